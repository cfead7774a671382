package meshnet

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/discovery"
	"github.com/meshnet/meshnet/discovery/portmap"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/platform"
)

// outside is how the node looks from outside: where its socket is seen, what the router maps, and where it is at home.
//
//	interfaces, members' word, STUN, router ─▶ discovery.Own ─┐
//	relay servers, members with a direct path ─▶ chooseHomes ─┴─▶ tellReach ─▶ control (reach), magicsock (calls)
type outside struct {
	own      *discovery.Own
	reporter *discovery.Reporter
	mapper   *portmap.Mapper // nil: not wanted
	changed  chan struct{}   // capacity 1: tellReach has to look

	telling sync.Mutex // one look at a time; held over calls into the workers
	told    reach      // guarded by telling
	alone   bool       // no rendezvous was told; guarded by telling

	mu    sync.Mutex
	homes []netmap.Home // guarded by mu
	nat   netmap.NAT    // guarded by mu
}

// reach is what others were told last.
type reach struct {
	control.Reachability
	known bool
}

const (
	// reachEvery is how often homes are looked at while nothing tells that they might change.
	reachEvery = 5 * time.Second
	// reachAfter gathers what changes together.
	reachAfter = 100 * time.Millisecond
)

// openOutside makes what finds out how the node looks from outside. It runs with the socket.
func (n *Node) openOutside() {
	n.out.changed = make(chan struct{}, 1)
	if n.cfg.PortMap {
		n.out.mapper = portmap.New(portmap.Config{
			Logger: n.log, Port: n.conn.Port, Nonce: n.mappingNonce(),
			Changed: func(external netip.AddrPort) {
				n.log.Info("port mapping", "endpoint", external)
				n.out.own.SetPortMap(external)
				n.out.poke()
			},
		})
	}
	cfg := discovery.Config{
		Logger: n.log, Send: n.conn.SendSTUN, Servers: n.stunServers, Local: n.out.own.Local,
		Open:   func() (net.PacketConn, error) { return net.ListenPacket("udp", ":0") },
		Active: func() bool { return n.member.Load() && n.out.kind() != netmap.NATNone && len(n.mesh.Sessions()) > 0 },
		Heard:  n.heardDirectly,
	}
	cfg.Found = func(r discovery.Report) {
		n.out.own.SetReport(r)
		n.out.poke()
	}
	cfg.Early = cfg.Found
	if n.out.mapper != nil {
		cfg.PortMap = n.out.mapper.Status
	}
	n.out.reporter = discovery.NewReporter(cfg)
}

// mappingNonce is the same at each start, so that the router gives a mapping that was left behind back to this node. It
// tells the router nothing of who that is.
func (n *Node) mappingNonce() (nonce [12]byte) {
	private := n.id.WGPrivate()
	mac := hmac.New(sha256.New, private[:])
	mac.Write([]byte("meshnet/portmap/v1"))
	copy(nonce[:], mac.Sum(nil))
	return nonce
}

// runOutside runs until ctx ends. The router's mapping is given back then.
func (n *Node) runOutside(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { _ = n.out.reporter.Run(ctx) }) // ends with ctx only
	if n.out.mapper != nil {
		wg.Go(func() { _ = n.out.mapper.Run(ctx) })
	}
}

// moved has everything found out anew: the host is in another network.
func (o *outside) moved() {
	o.reporter.LinkChanged()
	if o.mapper != nil {
		o.mapper.LinkChanged()
	}
}

func (o *outside) poke() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// kind is how the node's NATs choose its outside address.
func (o *outside) kind() netmap.NAT {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.nat
}

// homed are the homes that were chosen last.
func (o *outside) homed() []netmap.Home {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.homes)
}

// findNAT asks STUN servers' word first, then that of members.
func (o *outside) findNAT() netmap.NAT {
	byMembers := o.own.NAT()
	switch r := o.reporter.Report(); {
	case r.At.IsZero() || r.NAT == netmap.NATUnknown, r.NAT == netmap.NATBlocked && byMembers != netmap.NATUnknown:
		return byMembers
	default:
		return r.NAT
	}
}

// reachLoop tells others where the node is, whenever that may have changed.
func (n *Node) reachLoop(ctx context.Context) {
	tick := time.NewTicker(reachEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-n.out.changed:
			pause := time.NewTimer(reachAfter)
			select {
			case <-ctx.Done():
				pause.Stop()
				return
			case <-pause.C:
			}
		}
		n.tellReach()
	}
}

// tellReach tells others where this node may be found, and the socket what to tell by calls, if that changed.
func (n *Node) tellReach() {
	n.out.telling.Lock()
	defer n.out.telling.Unlock()
	nat := n.out.findNAT()
	now := control.Reachability{
		Endpoints: n.endpoints(), NAT: nat, Relays: n.relaysForMembers(nat),
		Homes: chooseHomes(homeFacts{nat: nat, relays: n.pool.Homes(), members: n.homeMembers(), before: n.out.homed()}),
	}
	before := n.out.told
	n.out.told = reach{now, true}
	n.out.mu.Lock()
	n.out.homes, n.out.nat = now.Homes, nat
	n.out.mu.Unlock()
	moved := !before.known || !slices.Equal(before.Endpoints, now.Endpoints)
	if moved || before.NAT != now.NAT {
		n.conn.SetEndpoints(now.Endpoints, nat)
	}
	if moved {
		n.publish(EventEndpointChanged, nil, map[string]any{"endpoints": now.Endpoints})
	}
	if !before.known || before.Relays != now.Relays {
		n.conn.ServeRelay(now.Relays)
	}
	if !before.known || !slices.Equal(before.Homes, now.Homes) {
		n.conn.SetHomes(memberHomes(now.Homes))
		n.publish(EventHomeChanged, nil, map[string]any{"homes": n.homeNames(now.Homes)})
	}
	n.mesh.SetReach(now)
	n.tellRendezvous()
}

// noRendezvous is what stands in the way of members in other networks when nobody here can be signalled.
var noRendezvous = Health{
	Code: "no_rendezvous", Severity: platform.SeverityInfo,
	Text: "members in other networks cannot reach this one: there is no relay server, and nobody has a public address",
	Hint: "run a member or `meshnet relay` on a host with a public address, forward a UDP port and name it with --advertise, or add --relay-server URL",
}

// noRendezvous reports whether somebody who reaches nobody here directly has no way to this node, nor to any other
// member. It says nothing while that may still be found out.
func (n *Node) noRendezvous() bool {
	if time.Since(n.started) < rendezvousAfter {
		return false
	}
	self, others := n.mesh.Contactable()
	return !self && !others
}

// rendezvousAfter is how long after the start servers, the router and members may take to say what they know.
const rendezvousAfter = 5 * time.Second

// tellRendezvous says once that nobody here can be signalled.
func (n *Node) tellRendezvous() {
	alone := n.noRendezvous()
	if alone && !n.out.alone {
		h := noRendezvous
		n.log.Info(h.Text, "hint", h.Hint)
		n.publish(EventHealth, nil, map[string]any{"code": h.Code, "severity": h.Severity, "text": h.Text, "hint": h.Hint})
	}
	n.out.alone = alone
}

// defaultMemberRelayRate is what a node passes on between members unless it is told otherwise, in bytes per second.
const defaultMemberRelayRate = 20_000_000 / 8

// memberRelayRate is the rate of a configuration as the socket takes it: 0 is no limit.
func memberRelayRate(configured int64) int64 {
	switch {
	case configured == 0:
		return defaultMemberRelayRate
	case configured < 0:
		return 0
	}
	return configured
}

// relaysForMembers decides whether this node passes on packets between other members.
func (n *Node) relaysForMembers(nat netmap.NAT) bool {
	switch n.cfg.MemberRelay {
	case MemberRelayOff:
		return false
	case MemberRelayOn:
		return true
	}
	mapped := n.out.mapper != nil && n.out.mapper.Status().External.IsValid()
	open := filteringOpen(n.out.reporter.Report())
	return nat == netmap.NATNone || mapped || open || len(n.cfg.Advertise) > 0
}

// homeMembers are the members in session that others reach from outside, and that answer us directly: the nearest first.
func (n *Node) homeMembers() []identity.PeerID {
	type near struct {
		id  identity.PeerID
		rtt time.Duration
	}
	var all []near
	m := n.mesh.Map()
	for _, id := range n.mesh.Sessions() {
		p := m.Peer(id)
		if p == nil || p.NAT != netmap.NATNone && !p.Relays {
			continue
		}
		if info, ok := n.conn.Peer(id); ok && isDirect(info) {
			all = append(all, near{id, info.Path.RTT})
		}
	}
	slices.SortFunc(all, func(a, b near) int { return int(a.rtt - b.rtt) })
	ids := make([]identity.PeerID, 0, len(all))
	for _, m := range all {
		ids = append(ids, m.id)
	}
	return ids
}

// heardDirectly reports whether some member answers by UDP, without a relay server.
func (n *Node) heardDirectly() bool {
	if !n.member.Load() {
		return false
	}
	return slices.ContainsFunc(n.mesh.Sessions(), func(id identity.PeerID) bool {
		info, ok := n.conn.Peer(id)
		return ok && isDirect(info)
	})
}
