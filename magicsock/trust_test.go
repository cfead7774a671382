package magicsock

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/netmap"
)

// bench is a core with one member, whose answers the test makes up.
type bench struct {
	core *core
	p    *peer
	now  time.Time

	limit int // larger pings get lost; 0: none do
}

// relayEverybody is a relay leg that leads to everybody, and loses everything.
type relayEverybody struct{}

func (relayEverybody) Send(identity.PeerID, [][]byte, bool) error { return nil }

func (relayEverybody) Reaches(identity.PeerID) bool { return true }

func (relayEverybody) Via(identity.PeerID) string { return "relay.example" }

var (
	addrA = netip.MustParseAddrPort("192.0.2.1:1000")
	addrB = netip.MustParseAddrPort("192.0.2.2:1000")
	addrC = netip.MustParseAddrPort("192.0.2.3:1000")
)

func newBench(t *testing.T, leg bool, addrs ...netip.AddrPort) *bench {
	t.Helper()
	me, other := identity.FromSeed(identity.Secret{1}), identity.FromSeed(identity.Secret{2})
	b := &bench{now: time.Unix(1e9, 0)}
	b.core = newCore(me, disco.BootID{1}, rand.New(rand.NewPCG(simSeed, 1)))
	b.core.conn = &Conn{core: b.core, log: slog.New(slog.DiscardHandler), wake: make(chan struct{}, 1), relayed: make(chan relayBatch)}
	if leg {
		b.core.relay = relayEverybody{}
	}
	peer := netmap.Peer{ID: other.ID(), WG: other.WG(), Disco: other.Disco(), Endpoints: addrs}
	b.core.setMap(b.now, &netmap.Map{Network: netmap.Network{ID: identity.NetworkID{7}}, Peers: []netmap.Peer{peer}, Keys: []identity.Secret{{9}}})
	b.p = b.core.peer(b.now, other.ID())
	return b
}

// pass lets time pass, with the deadlines that come.
func (b *bench) pass(d time.Duration) {
	end := b.now.Add(d)
	for next := b.core.nextDeadline(); !next.IsZero() && !next.After(end); next = b.core.nextDeadline() {
		b.now = next
		b.core.tick(b.now)
	}
	b.now = end
}

// pong answers every ping that is under way to addr, after rtt, and the one for the full size that follows.
func (b *bench) pong(addr netip.AddrPort, rtt time.Duration) {
	for range 2 {
		b.now = b.now.Add(rtt)
		var due []disco.TxID
		for id, ping := range b.p.pings {
			if ping.path.addr == addr && (b.limit == 0 || ping.size <= b.limit) {
				due = append(due, id)
			}
		}
		for _, id := range due {
			ping, ok := b.p.pings[id]
			if !ok {
				continue
			}
			m := &disco.Message{Type: disco.TypePong, TxID: id, Time: b.now, Observed: addrC}
			b.core.handlePong(b.now, b.p, line{way: ping.path.way}, m)
			b.core.schedule(b.now, b.p)
		}
	}
}

// data brings an authenticated packet, as Authenticated does but for the sending.
func (b *bench) data(addr netip.AddrPort) {
	source := datagram.Source{Addr: addr}
	if addr == (netip.AddrPort{}) {
		source.Relay = b.p.handle
	}
	if r := b.p.handle.route.Load(); r != nil && r.first.way == wayOf(&source) {
		b.p.handle.trusted.Store(b.p.handle.stamp(b.now))
		if !r.shaky {
			return
		}
	}
	b.core.authenticated(b.now, b.p, lineOf(&source))
}

// send plays an outgoing packet.
func (b *bench) send() {
	if b.p.handle.stale(b.p.handle.stamp(b.now)) {
		b.core.verify(b.now, b.p)
	}
}

// sendOn plays packets for as long as nothing needs to vouch for the path.
func (b *bench) sendOn() {
	b.send()
	b.pass(trustFor)
	b.send()
}

func (b *bench) best() netip.AddrPort {
	if b.p.best == nil {
		return netip.AddrPort{}
	}
	return b.p.best.addr
}

// up makes the address the best path, confirmed by a pong.
func (b *bench) up(addr netip.AddrPort) {
	b.core.contact(b.now, b.p.id)
	b.pong(addr, 10*time.Millisecond)
	b.p.wantedAt = time.Time{}
	b.pass(10 * time.Second) // other pings are forgotten
}

func TestAuthenticatedChoosesPaths(t *testing.T) {
	for name, c := range map[string]struct {
		leg   bool
		addrs []netip.AddrPort
		steps func(b *bench)
		want  netip.AddrPort
	}{
		"the first path": {steps: func(b *bench) { b.data(addrA) }, want: addrA},
		"a healthy path stays": {
			addrs: []netip.AddrPort{addrA}, want: addrA,
			steps: func(b *bench) { b.up(addrA); b.data(addrB) },
		},
		"a pong moves it": {
			addrs: []netip.AddrPort{addrA}, want: addrB,
			steps: func(b *bench) {
				b.core.contact(b.now, b.p.id)
				b.pong(addrA, 200*time.Millisecond)
				b.data(addrB)
				b.pong(addrB, time.Millisecond)
			},
		},
		"in doubt": {
			addrs: []netip.AddrPort{addrA}, want: addrB,
			steps: func(b *bench) {
				b.up(addrA)
				b.sendOn()
				b.pass(200 * time.Millisecond)
				b.data(addrB)
			},
		},
		"dead": {
			addrs: []netip.AddrPort{addrA}, want: addrB,
			steps: func(b *bench) {
				b.up(addrA)
				b.sendOn()
				b.pass(5 * time.Second)
				b.data(addrB)
			},
		},
		"dead, and back": {
			addrs: []netip.AddrPort{addrA}, want: addrA,
			steps: func(b *bench) {
				b.up(addrA)
				b.sendOn()
				b.pass(5 * time.Second)
				b.data(addrA)
				b.data(addrB)
			},
		},
		"the unproven relay": {leg: true, steps: func(b *bench) { b.data(addrA) }, want: addrA},
		"the relay that data comes by": {
			leg:   true,
			steps: func(b *bench) { b.data(netip.AddrPort{}); b.data(addrA) },
		},
		"and its direct pong": {
			leg: true, want: addrA,
			steps: func(b *bench) {
				b.data(netip.AddrPort{})
				b.data(addrA)
				b.pong(addrA, 10*time.Millisecond)
			},
		},
		"unproven paths do not take turns": {
			want: addrA,
			steps: func(b *bench) {
				for range 20 {
					b.data(addrA)
					b.data(addrB)
					b.pass(100 * time.Millisecond)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.leg, c.addrs...)
			c.steps(b)
			if b.best() != c.want || b.p.best == nil {
				t.Fatalf("best path %v, want %v", b.best(), c.want)
			}
			b.data(c.want)
			if r := b.p.handle.route.Load(); r.first.addr != c.want || r.shaky {
				t.Errorf("route to %v, shaky %v", r.first.addr, r.shaky)
			}
		})
	}
}

// TestAuthenticatedIsTrust loses every pong, while data keeps coming: the path is neither doubted nor pinged to death.
func TestAuthenticatedIsTrust(t *testing.T) {
	b := newBench(t, false, addrA, addrB)
	b.up(addrA)
	b.pong(addrB, 10*time.Millisecond)
	for i := range 3000 {
		b.data(addrA)
		b.send()
		if i%50 == 0 {
			b.core.contact(b.now, b.p.id) // pings that nobody answers
		}
		b.pass(20 * time.Millisecond)
		if !b.p.doubt.IsZero() || b.best() != addrA || b.p.best.dead {
			t.Fatalf("after %d packets: in doubt since %v, best %v, dead %v", i, b.p.doubt, b.best(), b.p.best.dead)
		}
	}
	stopped := b.now
	for b.p.doubt.IsZero() && b.now.Sub(stopped) < 5*time.Second {
		b.send()
		b.pass(20 * time.Millisecond)
	}
	if took := b.now.Sub(stopped); took > 1500*time.Millisecond {
		t.Fatalf("in doubt %v after the last packet", took)
	}
	b.data(addrA)
	if r := b.p.handle.route.Load(); !b.p.doubt.IsZero() || r.shaky || r.double {
		t.Fatalf("still in doubt after a packet: %+v", r)
	}
}

// TestTrustedPathNeedsNoTimer counts the deadlines while pings go unanswered and data flows.
func TestTrustedPathNeedsNoTimer(t *testing.T) {
	for _, confirmed := range []bool{true, false} {
		b := newBench(t, false)
		b.data(addrA)
		if confirmed {
			b.pong(addrA, time.Millisecond)
		}
		ticks := 0
		for range 500 {
			b.core.probe(b.now, b.p, b.p.best)
			b.core.schedule(b.now, b.p)
			b.data(addrA)
			for end := b.now.Add(20 * time.Millisecond); ; ticks++ {
				next := b.core.nextDeadline()
				if next.IsZero() || next.After(end) {
					b.now = end
					break
				}
				b.now = next
				b.core.tick(b.now)
			}
		}
		if ticks > 150 {
			t.Errorf("confirmed %v: %d deadlines in 10 s", confirmed, ticks)
		}
		if !b.p.doubt.IsZero() || b.p.best.dead {
			t.Errorf("confirmed %v: in doubt", confirmed)
		}
	}
}

// TestAuthenticatedProbesWithinLimits counts the pings to an address that data comes from and that answers none.
func TestAuthenticatedProbesWithinLimits(t *testing.T) {
	b := newBench(t, false, addrA)
	b.up(addrA)
	before := b.core.count.pingsSent.Load()
	for range 600 {
		b.data(addrA)
		b.data(addrB)
		b.pass(100 * time.Millisecond)
	}
	if sent := b.core.count.pingsSent.Load() - before; sent < 4 || sent > 12 {
		t.Fatalf("%d pings in a minute", sent)
	}
}

// TestAuthenticatedGates calls the real method: by the route it does not bother core, from elsewhere ten times a second.
func TestAuthenticatedGates(t *testing.T) {
	b := newBench(t, false, addrA)
	b.up(addrA)
	b.core.take()
	h, told := b.p.handle, 0
	from, route := datagram.Source{Addr: addrB}, datagram.Source{Addr: addrA}
	for range 1000 {
		b.now = b.now.Add(time.Millisecond)
		before := h.told.Load()
		h.Authenticated(b.now, &route, 10) // which stays healthy
		h.Authenticated(b.now, &from, 10)
		if h.told.Load() != before {
			told++
		}
		b.p.paths[way{addr: addrB}].next = b.now.Add(time.Hour) // no pings: there is no socket here
	}
	if told != 10 {
		t.Errorf("core heard of it %d times in a second, want 10", told)
	}
	stamp := int64(0)
	stores := 0
	for range 1000 {
		b.now = b.now.Add(time.Millisecond)
		h.Authenticated(b.now, &route, 10)
		if now := h.trusted.Load(); now != stamp {
			stamp = now
			stores++
		}
	}
	if stores > 21 || h.stale(h.stamp(b.now)) {
		t.Errorf("%d stores in a second, stale %v", stores, h.stale(h.stamp(b.now)))
	}
	if got := h.sum().Rx; got != 30000 {
		t.Errorf("%d bytes received, want 30000", got)
	}
	if heard := b.core.info(b.now, b.p).Heard; b.now.Sub(heard) > trustStep {
		t.Errorf("heard %v ago", b.now.Sub(heard))
	}
	stranger := datagram.Source{Relay: newHandle(b.now, nil, identity.PeerID{5}, identity.WGKey{5})}
	h.Authenticated(b.now.Add(time.Hour), &stranger, 10)
	if h.trusted.Load() != stamp {
		t.Error("a relay's wrong name is trust in the route")
	}
}

// TestMovedPathIsNotTrustedForItsPredecessor moves to a path that was heard of long ago.
func TestMovedPathIsNotTrustedForItsPredecessor(t *testing.T) {
	b := newBench(t, false, addrA, addrB)
	b.core.contact(b.now, b.p.id)
	b.pong(addrA, time.Millisecond)
	b.pong(addrB, 30*time.Millisecond)
	b.pass(time.Minute)
	b.data(addrA)
	b.core.moveTo(b.now, b.p, b.p.paths[way{addr: addrB}], "a test")
	if !b.p.handle.stale(b.p.handle.stamp(b.now)) {
		t.Error("the new path is trusted for what came by the old one")
	}
	if !b.p.paths[way{addr: addrA}].heard.Equal(b.now) {
		t.Error("the old path lost what came by it")
	}
}

// stream makes both nodes send to each other every 20 ms until stop.
func stream(w *sim.World, a, b *simNode, stop time.Time) {
	var turn func()
	turn = func() {
		a.sendData(b)
		b.sendData(a)
		if w.Now().Before(stop) {
			w.After(20*time.Millisecond, turn)
		}
	}
	w.After(0, turn)
}

// TestSimDataNeedsNoPings lets data flow both ways for a minute: it is all the trust that a path needs.
func TestSimDataNeedsNoPings(t *testing.T) {
	w, net, a, b := pair(t, sim.Link{Delay: time.Millisecond})
	a.know(b.peer(b.addr))
	b.know(a.peer(a.addr))
	a.contact(b)
	w.RunFor(time.Second)
	before := a.core.count.pingsSent.Load() + b.core.count.pingsSent.Load()
	sent := net.Counters().Sent
	stream(w, a, b, w.Now().Add(time.Minute))
	w.RunFor(time.Minute)
	pings := a.core.count.pingsSent.Load() + b.core.count.pingsSent.Load() - before
	if data := net.Counters().Sent - sent; pings > 4 || data < 5000 {
		t.Fatalf("%d pings beside %d datagrams", pings, data)
	}
}

// TestSimRoamsUnnoticed moves a node to another address that it does not notice itself, as a NAT that forgot does: its
// data carries the news, and the data to it follows.
func TestSimRoamsUnnoticed(t *testing.T) {
	w, _, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	a.know(b.peer(b.addr))
	b.know(a.peer(a.addr))
	a.contact(b)
	w.RunFor(time.Second)
	stream(w, a, b, w.Now().Add(20*time.Second))
	w.RunFor(5 * time.Second)
	moved := netip.MustParseAddr("192.0.2.77")
	a.host.SetAddrs(moved)
	start := w.Now()
	if !w.RunUntil(func() bool {
		r := b.route(a)
		return r.first.addr.Addr() == moved || r.double && r.second.addr.Addr() == moved
	}, 3*time.Second) {
		t.Fatal("b does not send to the new address")
	}
	took := w.Now().Sub(start)
	t.Logf("data reaches the new address after %v", took)
	if took > 600*time.Millisecond {
		t.Fatalf("data reaches the new address after %v", took)
	}
	w.RunFor(5 * time.Second)
	if r := b.route(a); r.first.addr.Addr() != moved || r.double {
		t.Fatalf("b's route is %v, double %v", r.first.addr, r.double)
	}
}

// TestSimOneWay breaks one direction of a path: the side whose packets are lost moves away from it, and takes the
// other with it, though it still hears the other by the broken path.
func TestSimOneWay(t *testing.T) {
	w := sim.New(simSeed)
	net := w.Network(sim.Link{Delay: 10 * time.Millisecond})
	four, six := netip.MustParseAddrPort("198.51.100.1:41820"), netip.MustParseAddrPort("[2001:db8::1]:41820")
	hostA := net.Host(netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::2"))
	hostB := net.Host(four.Addr(), six.Addr())
	a := newSimNode(w, 1, hostA, "203.0.113.1:41820")
	b := newSimNode(w, 2, hostB, "198.51.100.1:41820")
	a.know(b.peer(four, six))
	b.know(a.peer())
	a.contact(b)
	w.RunFor(2 * time.Second)
	a.broken = a.route(b).first.addr
	stream(w, a, b, w.Now().Add(time.Minute))
	start := w.Now()
	if !w.RunUntil(func() bool { r := a.route(b); return r.first.addr != a.broken || r.double }, 6*time.Second) {
		t.Fatal("a goes on sending into the void")
	}
	t.Logf("data of a arrives again after %v", w.Now().Sub(start))
	w.RunFor(5 * time.Second)
	for range 500 {
		w.RunFor(100 * time.Millisecond)
		if r := a.route(b); r.first.addr == a.broken {
			t.Fatal("a went back to the broken path")
		}
	}
}
