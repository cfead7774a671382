package discovery

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// fewMembers is how many connected members make a single one's word too little.
const fewMembers = 3

const (
	// stunLife is how long an address that STUN servers saw is still told of, when they see another one now: the NAT may
	// keep the old mapping for as long, and a round that got no answer proves nothing.
	stunLife = 3 * time.Minute
	maxSeen  = 8 // STUN addresses
)

// Own is where this node may be reached. Safe for concurrent use.
type Own struct {
	mu       sync.Mutex
	local    []netip.AddrPort        // guarded by mu
	port     uint16                  // of the socket; guarded by mu
	static   []netip.AddrPort        // guarded by mu
	mapped   netip.AddrPort          // by the router; guarded by mu
	stun     []seen                  // those of the last report first; guarded by mu
	hard     bool                    // the NAT's mapping depends on the destination; guarded by mu
	observed map[witness]observation // guarded by mu
	order    map[netip.AddrPort]int  // when an observed address was first believed; guarded by mu
}

// seen is an address that a STUN server saw, and when that was last so.
type seen struct {
	addr netip.AddrPort
	at   time.Time
}

// witness is a member that sees this node by one of the families.
type witness struct {
	member identity.PeerID
	is4    bool
}

type observation struct {
	addr  netip.AddrPort
	admin bool
}

// NewOwn starts with what the user advertises, but for addresses that are not those of one host (unspecified, multicast,
// broadcast) and port 0: members would take none of the addresses then.
func NewOwn(static []netip.AddrPort) *Own {
	static = slices.DeleteFunc(slices.Clone(static), func(a netip.AddrPort) bool {
		ip := a.Addr().Unmap()
		return !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || a.Port() == 0
	})
	return &Own{
		static: static, observed: make(map[witness]observation), order: make(map[netip.AddrPort]int),
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
	o.local, o.port = local, port
}

// SetReport takes what STUN servers see. Addresses that they saw before are kept for three minutes.
func (o *Own) SetReport(rep Report) {
	var all []seen
	for _, a := range rep.Mapped {
		if told(a) {
			all = append(all, seen{a, rep.At})
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.stun {
		known := slices.ContainsFunc(all, func(n seen) bool { return n.addr == s.addr })
		if !known && rep.At.Sub(s.at) < stunLife {
			all = append(all, s)
		}
	}
	o.stun = all[:min(len(all), maxSeen)]
	o.hard = rep.NAT == netmap.NATHard
}

// ForgetSTUN drops what STUN servers saw: the node is in another network.
func (o *Own) ForgetSTUN() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stun, o.hard = nil, false
}

// SetPortMap takes the outside address of the router's port mapping; zero: there is none.
func (o *Own) SetPortMap(external netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mapped = external
}

// Observed takes where a member sees our packets come from. By each family the last word counts.
func (o *Own) Observed(by identity.PeerID, addr netip.AddrPort, admin bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.observed[witness{by, addr.Addr().Unmap().Is4()}] = observation{addr, admin}
}

// Forget drops what a member saw, when it is out of touch.
func (o *Own) Forget(by identity.PeerID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, is4 := range []bool{false, true} {
		delete(o.observed, witness{by, is4})
	}
}

// Local are the interface addresses, with the zones of link-local ones.
func (o *Own) Local() []netip.AddrPort {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.local)
}

// believed are the observed addresses that count, those first believed first. Called with mu held.
func (o *Own) believed() []netip.AddrPort {
	votes, members := make(map[netip.AddrPort]int), make(map[identity.PeerID]bool)
	for by := range o.observed {
		members[by.member] = true
	}
	for _, seen := range o.observed {
		votes[seen.addr]++
		if seen.admin || len(members) < fewMembers {
			votes[seen.addr]++
		}
	}
	var all []netip.AddrPort
	for addr, n := range votes {
		if n < 2 || !told(addr) {
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

// told reports whether somebody else's word for an address of ours is worth telling.
func told(a netip.AddrPort) bool {
	ip := a.Addr()
	return a.Port() != 0 && scopeOf(ip) >= scopeSite && !ip.IsUnspecified() && !ip.IsMulticast()
}
