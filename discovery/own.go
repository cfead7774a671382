package discovery

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// fewMembers is how many connected members make a single one's word too little.
const fewMembers = 3

// Own is where this node may be reached. Safe for concurrent use.
type Own struct {
	mu       sync.Mutex
	local    []netip.AddrPort                // guarded by mu
	static   []netip.AddrPort                // guarded by mu
	observed map[identity.PeerID]observation // guarded by mu
	order    map[netip.AddrPort]int          // when an observed address was first believed; guarded by mu
}

type observation struct {
	addr  netip.AddrPort
	admin bool
}

// NewOwn starts with what the user advertises.
func NewOwn(static []netip.AddrPort) *Own {
	return &Own{
		static: static, observed: make(map[identity.PeerID]observation), order: make(map[netip.AddrPort]int),
	}
}

// SetLocal takes the usable interface addresses, each with the socket's port.
func (o *Own) SetLocal(addrs []netip.Addr, port uint16) {
	local := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		local = append(local, netip.AddrPortFrom(a, port))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.local = local
}

// Observed takes where a member sees our packets come from.
func (o *Own) Observed(by identity.PeerID, addr netip.AddrPort, admin bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.observed[by] = observation{addr, admin}
}

// Forget drops what a member saw, when it is out of touch.
func (o *Own) Forget(by identity.PeerID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.observed, by)
}

// Local are the interface addresses, with the zones of link-local ones.
func (o *Own) Local() []netip.AddrPort {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.local)
}

// Endpoints lists what to tell others, in the order of how likely it is to work for them: advertised, local, seen by
// members. An address that members saw is believed from an admin, or while fewer than three are connected, else when
// two agree.
func (o *Own) Endpoints() []netmap.Endpoint {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []netmap.Endpoint
	add := func(a netip.AddrPort, s netmap.Source) {
		a = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
		if !slices.ContainsFunc(all, func(e netmap.Endpoint) bool { return e.Addr == a }) {
			all = append(all, netmap.Endpoint{Addr: a, Source: s})
		}
	}
	for _, a := range o.static {
		add(a, netmap.SourceStatic)
	}
	for _, a := range o.local {
		add(a, netmap.SourceLocal)
	}
	for _, a := range o.believed() {
		add(a, netmap.SourcePeer)
	}
	return all
}

// believed are the observed addresses that count, those first believed first. Called with mu held.
func (o *Own) believed() []netip.AddrPort {
	votes := make(map[netip.AddrPort]int)
	for _, seen := range o.observed {
		votes[seen.addr]++
		if seen.admin || len(o.observed) < fewMembers {
			votes[seen.addr]++
		}
	}
	var all []netip.AddrPort
	for addr, n := range votes {
		ip := addr.Addr()
		if n < 2 || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() {
			continue
		}
		if _, known := o.order[addr]; !known {
			o.order[addr] = len(o.order)
		}
		all = append(all, addr)
	}
	for addr := range o.order {
		if votes[addr] == 0 && len(o.order) > 64 {
			delete(o.order, addr)
		}
	}
	slices.SortFunc(all, func(a, b netip.AddrPort) int { return o.order[a] - o.order[b] })
	return all
}
