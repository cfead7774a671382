package magicsock

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/netmap"
)

// simNode is a core on a simulated host.
type simNode struct {
	world  *sim.World
	core   *core
	id     *identity.Identity
	peerID identity.PeerID
	host   *sim.Host
	socket *sim.Socket
	addr   netip.AddrPort
	ahead  time.Duration // its clock before the world's
	events []Event
	timer  *sim.Timer
	broken netip.AddrPort // what goes there is lost

	relay   *simRelay // nil: none
	control *simRelay // carries signals; nil: nothing does
	stun    simSTUN
	extras  simExtras
	sent    uint64                            // data
	taken   func(from *simNode, n, by uint64) // is told of each data packet: its number and the rank of its way
	asleep  bool
	deaf    bool // keeps no events
	mtu     int  // larger datagrams of this host are refused; 0: none
}

func newSimNode(w *sim.World, seed byte, host *sim.Host, addr string) *simNode {
	id := identity.FromSeed(identity.Secret{seed})
	n := &simNode{world: w, id: id, peerID: id.ID(), host: host, addr: netip.MustParseAddrPort(addr)}
	n.core = newCore(id, disco.BootID{seed}, rand.New(rand.NewPCG(simSeed, uint64(seed))))
	n.socket = host.Bind(n.addr.Port(), func(from netip.AddrPort, pkt []byte) { n.take(way{addr: from}, pkt) })
	return n
}

func (n *simNode) now() time.Time { return n.world.Now().Add(n.ahead) }

// take handles a datagram as Receive does.
func (n *simNode) take(from way, pkt []byte) {
	switch {
	case isWireGuard(pkt):
		n.data(from, pkt)
	case isContact(pkt):
		n.core.handleContact(n.now(), line{way: from}, pkt)
	case isSignal(pkt):
		n.core.handleSignal(n.now(), pkt)
	case n.takeHop(from, pkt):
	case len(pkt) > 0 && pkt[0] == simSTUNAnswer:
		n.stun.answer(n, from.addr, pkt)
	}
	n.act()
}

func (n *simNode) peer(addrs ...netip.AddrPort) netmap.Peer {
	return netmap.Peer{ID: n.id.ID(), WG: n.id.WG(), Disco: n.id.Disco(), Endpoints: addrs}
}

func (n *simNode) know(peers ...netmap.Peer) {
	slices.SortFunc(peers, func(a, b netmap.Peer) int { return a.ID.Compare(b.ID) })
	n.core.setMap(n.now(), &netmap.Map{Network: netmap.Network{ID: identity.NetworkID{7}}, Peers: peers, Keys: []identity.Secret{{9}}})
	n.act()
}

// act does what the core decided and sets its timer.
func (n *simNode) act() {
	sends, events := n.core.take()
	for i := range sends {
		switch s := &sends[i]; {
		case s.signal:
			n.control.carry(n, s.peer.id, s.pkt)
		default:
			n.transmit(s.peer, s.way, s.pkt)
		}
	}
	if !n.deaf {
		n.events = append(n.events, events...)
	}
	n.follow(n.core.takeOrders())
	if n.timer != nil {
		n.timer.Stop()
	}
	if next := n.core.nextDeadline(); !next.IsZero() {
		n.timer = n.world.At(next.Add(-n.ahead), func() {
			n.core.tick(n.now())
			n.act()
		})
	}
}

func (n *simNode) transmit(to *handle, by way, pkt []byte) {
	switch {
	case by.relay:
		n.relay.carry(n, to.id, pkt)
	case by.addr == n.broken:
	case n.mtu > 0 && len(pkt) > n.mtu:
		if p := n.core.peers[to.id]; p != nil {
			n.core.tooLarge(n.now(), p, by, len(pkt))
		}
	default:
		n.emit(by, pkt)
	}
}

func (n *simNode) contact(to *simNode) {
	n.core.contact(n.now(), to.id.ID())
	n.act()
}

// send plays a data packet: it notices a path that nothing vouches for, as Send does.
func (n *simNode) send(to *simNode) {
	p := n.core.peer(n.now(), to.id.ID())
	if p.handle.route.Load() == nil {
		n.contact(to)
		return
	}
	p.handle.use(p.handle.stamp(n.now()))
	if p.handle.stale(p.handle.stamp(n.now())) {
		n.core.verify(n.now(), p)
		n.act()
	}
}

// simData is the header of a data packet: a WireGuard type, who sent it, and its number.
const simData = 4 + 32 + 8

// sendData sends a datagram of a session by the route, and by the second path while in doubt, as Send does.
func (n *simNode) sendData(to *simNode) { n.sendSized(to, simData) }

func (n *simNode) sendSized(to *simNode, size int) {
	id := n.id.ID()
	pkt := make([]byte, size)
	pkt[0] = wgTransport
	copy(pkt[4:], id[:])
	binary.BigEndian.PutUint64(pkt[36:], n.sent)
	n.sent++
	p := n.core.peer(n.now(), to.id.ID())
	p.handle.largest.Store(max(p.handle.largest.Load(), int64(size)))
	n.send(to)
	r := n.route(to)
	if r == nil {
		return
	}
	if !r.double || r.budget.Add(-int64(size)) > 0 {
		n.transmitLeg(p.handle, &r.first, pkt)
	}
	if r.double {
		n.transmitLeg(p.handle, &r.second, pkt)
	}
	n.act()
}

// transmitLeg sends by a leg, in fragments where those are allowed: a link that is too small for the whole takes them.
func (n *simNode) transmitLeg(to *handle, l *leg, pkt []byte) {
	if l.whole > 0 && len(pkt) > l.whole {
		pkt = pkt[:simData]
	}
	n.transmit(to, l.way, pkt)
}

// data takes a datagram that the peer's session opened, as Authenticated does.
func (n *simNode) data(from way, pkt []byte) {
	id := identity.PeerID(pkt[4:])
	p := n.core.peer(n.now(), id)
	if n.taken != nil {
		if other := n.relay.find(id); other != nil {
			n.taken(other, binary.BigEndian.Uint64(pkt[36:]), uint64(from.rank()))
		}
	}
	h := p.handle
	h.use(h.stamp(n.now()))
	if r := h.route.Load(); r != nil && r.first.way == from {
		h.trusted.Store(h.stamp(n.now()))
		if !r.shaky {
			return
		}
	}
	n.core.authenticated(n.now(), p, line{way: from})
	n.act()
}

// simRelay carries datagrams between nodes by their ids: a relay server, or a common member for signals.
type simRelay struct {
	world *sim.World
	delay time.Duration
	down  bool
	nodes []*simNode
	sent  uint64
}

// carry takes a datagram to another node.
func (r *simRelay) carry(from *simNode, to identity.PeerID, pkt []byte) {
	if r == nil {
		return
	}
	n := r.find(to)
	if n == nil || r.down || from.asleep || n.asleep {
		return
	}
	r.sent++
	r.world.After(r.delay, func() {
		if !r.down && !n.asleep {
			n.take(byRelay, pkt)
		}
	})
}

func (r *simRelay) find(id identity.PeerID) *simNode {
	for _, n := range r.nodes {
		if n.peerID == id {
			return n
		}
	}
	return nil
}

// join connects nodes to the relay server.
func (r *simRelay) join(nodes ...*simNode) {
	r.nodes = append(r.nodes, nodes...)
	for _, n := range nodes {
		n.relay, n.core.relay = r, r
		n.core.relayChanged(n.now())
		n.act()
	}
}

// setDown ends or begins the server, which its clients notice.
func (r *simRelay) setDown(down bool) {
	r.down = down
	for _, n := range r.nodes {
		n.core.relayChanged(n.now())
		n.act()
	}
}

func (r *simRelay) Send(identity.PeerID, [][]byte, bool) error { return nil }

func (r *simRelay) Reaches(identity.PeerID) bool { return !r.down }

func (r *simRelay) Via(identity.PeerID) string { return "https://relay.example" }

// simSTUNAnswer begins the answer of a simulated STUN server.
const simSTUNAnswer = 0xF0

// simSTUN is what a node learns from two servers about where it is seen.
type simSTUN struct {
	servers [2]netip.AddrPort
	seen    [2]netip.AddrPort
}

// stunServers adds two servers to a network.
func stunServers(net *sim.Network) (servers [2]netip.AddrPort) {
	for i := range servers {
		ip := netip.AddrFrom4([4]byte{192, 88, 99, byte(1 + i)})
		var s *sim.Socket
		s = net.Host(ip).Bind(3478, func(from netip.AddrPort, _ []byte) {
			raw, _ := from.MarshalBinary()
			s.Send(from, append([]byte{simSTUNAnswer}, raw...))
		})
		servers[i] = netip.AddrPortFrom(ip, 3478)
	}
	return servers
}

// ask asks both servers, from now on every 25 s.
func (s *simSTUN) ask(n *simNode, servers [2]netip.AddrPort) {
	s.servers = servers
	for _, server := range servers {
		n.socket.Send(server, []byte{simSTUNAnswer ^ 0xFF})
	}
	n.world.After(25*time.Second, func() { s.ask(n, servers) })
}

func (s *simSTUN) answer(n *simNode, from netip.AddrPort, pkt []byte) {
	var seen netip.AddrPort
	if seen.UnmarshalBinary(pkt[1:]) != nil {
		return
	}
	for i, server := range s.servers {
		if server == from {
			s.seen[i] = seen
		}
	}
	n.core.setEndpoints(n.now(), s.endpoints(n), s.nat(n))
}

func (s *simSTUN) endpoints(n *simNode) (all []netip.AddrPort) {
	for _, a := range n.host.Addrs() {
		all = append(all, netip.AddrPortFrom(a, n.addr.Port()))
	}
	for _, a := range s.seen {
		if a.IsValid() && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

func (s *simSTUN) nat(n *simNode) netmap.NAT {
	switch {
	case !s.seen[0].IsValid() || !s.seen[1].IsValid():
		return netmap.NATUnknown
	case s.seen[0] != s.seen[1]:
		return netmap.NATHard
	case slices.Contains(n.host.Addrs(), s.seen[0].Addr()):
		return netmap.NATNone
	}
	return netmap.NATEasy
}
