package magicsock

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/magicsock/disco"
)

// simSeed may be changed to look for other histories; a failure prints it.
const simSeed = 1

func (n *simNode) has(match func(Event) bool) bool { return slices.ContainsFunc(n.events, match) }

// reaches tells whether a handshake may be begun because to answered.
func (n *simNode) reaches(to *simNode) func() bool {
	return func() bool {
		return n.has(func(e Event) bool { return e.Type == EventReachable && e.Peer == to.id.ID() })
	}
}

func (n *simNode) route(to *simNode) *route {
	return n.core.peer(n.now(), to.id.ID()).handle.route.Load()
}

// pair is two nodes on public addresses.
func pair(t *testing.T, link sim.Link) (w *sim.World, net *sim.Network, a, b *simNode) {
	t.Helper()
	t.Logf("seed %d", simSeed)
	w = sim.New(simSeed)
	net = w.Network(link)
	a = newSimNode(w, 1, net.Host(netip.MustParseAddr("203.0.113.1")), "203.0.113.1:41820")
	b = newSimNode(w, 2, net.Host(netip.MustParseAddr("198.51.100.1")), "198.51.100.1:41820")
	return w, net, a, b
}

func TestSimContactUnderLoss(t *testing.T) {
	for _, loss := range []float64{0, 0.1, 0.3} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) {
			w, net, a, b := pair(t, sim.Link{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: loss})
			a.know(b.peer(b.addr))
			b.know(a.peer())
			start := w.Now()
			a.contact(b)
			want := 400 * time.Millisecond
			if loss > 0 {
				want = 5 * time.Second
			}
			if !w.RunUntil(a.reaches(b), want) {
				t.Fatalf("not reachable within %v", want)
			}
			t.Logf("reachable after %v", w.Now().Sub(start))
			w.RunFor(10 * time.Second)
			if sent := net.Counters().Sent; sent > 60 {
				t.Fatalf("%d datagrams for one contact", sent)
			}
			if r := b.route(a); r == nil || r.first.addr != a.addr {
				t.Fatal("b did not confirm its path")
			}
		})
	}
}

// TestSimBehindNAT reaches a node behind a NAT as soon as it has sent something itself.
func TestSimBehindNAT(t *testing.T) {
	for _, kind := range []sim.NATKind{sim.FullCone, sim.AddressRestricted, sim.PortRestricted, sim.Symmetric} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			w := sim.New(simSeed)
			net := w.Network(sim.Link{Delay: 10 * time.Millisecond})
			nat := net.NAT(kind, netip.MustParseAddr("203.0.113.1"))
			a := newSimNode(w, 1, nat.Host(netip.MustParseAddr("10.0.0.2")), "10.0.0.2:41820")
			b := newSimNode(w, 2, net.Host(netip.MustParseAddr("198.51.100.1")), "198.51.100.1:41820")
			a.know(b.peer(b.addr))
			b.know(a.peer(a.addr))
			a.contact(b)
			if !w.RunUntil(a.reaches(b), 2*time.Second) {
				t.Fatal("no contact")
			}
			w.RunFor(50 * time.Millisecond) // for the pong to b
			r := b.route(a)
			if r == nil || r.first.addr.Addr() != netip.MustParseAddr("203.0.113.1") {
				t.Fatalf("b sends to %+v, want the NAT's address", r)
			}
		})
	}
}

// TestSimPathDies kills the better of two paths under data: traffic goes on both, then on the other.
func TestSimPathDies(t *testing.T) {
	w := sim.New(simSeed)
	net := w.Network(sim.Link{Delay: 10 * time.Millisecond})
	one, two := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")
	hostA := net.Host(netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::2"))
	hostB := net.Host(one, two)
	a := newSimNode(w, 1, hostA, "203.0.113.1:41820")
	b := newSimNode(w, 2, hostB, "198.51.100.1:41820")
	a.know(b.peer(netip.AddrPortFrom(one, 41820), netip.AddrPortFrom(two, 41820)))
	b.know(a.peer(netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), 41820), netip.MustParseAddrPort("[2001:db8::2]:41820")))
	a.contact(b)
	w.RunFor(2 * time.Second)
	first := a.route(b).first.addr
	w.After(0, func() {})
	stop := w.Now().Add(time.Minute)
	var keepSending func()
	keepSending = func() {
		a.send(b)
		if w.Now().Before(stop) {
			w.After(20*time.Millisecond, keepSending)
		}
	}
	w.After(0, keepSending)
	w.RunFor(5 * time.Second)
	if got := a.route(b).first.addr; got != first {
		t.Fatalf("the path moved from %v to %v without a reason", first, got)
	}
	dead := w.Now()
	hostB.SetAddrs(map[bool]netip.Addr{true: two, false: one}[first.Addr() == one])
	if !w.RunUntil(func() bool { return a.route(b).double }, 3*time.Second) {
		t.Fatal("no doubt")
	}
	doubt := w.Now().Sub(dead)
	if !w.RunUntil(func() bool { return a.route(b).first.addr != first && !a.route(b).double }, 5*time.Second) {
		t.Fatal("data did not move")
	}
	t.Logf("in doubt after %v, moved after %v", doubt, w.Now().Sub(dead))
	if doubt > 1500*time.Millisecond {
		t.Fatalf("in doubt only after %v", doubt)
	}
}

// TestSimRoams moves a node to another address: it tells at once, and the other follows.
func TestSimRoams(t *testing.T) {
	w, _, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	a.know(b.peer(b.addr))
	b.know(a.peer(a.addr))
	a.contact(b)
	w.RunFor(time.Second)
	moved := netip.MustParseAddr("192.0.2.77")
	a.host.SetAddrs(moved)
	a.core.linkChanged(a.now())
	a.act()
	stop := w.Now().Add(10 * time.Second)
	var keepSending func()
	keepSending = func() {
		b.send(a)
		if w.Now().Before(stop) {
			w.After(20*time.Millisecond, keepSending)
		}
	}
	start := w.Now()
	w.After(0, keepSending)
	if !w.RunUntil(func() bool {
		r := b.route(a)
		return r.first.addr.Addr() == moved || r.double && r.second.addr.Addr() == moved
	}, 3*time.Second) {
		t.Fatal("b does not send to the new address")
	}
	t.Logf("data reaches the new address after %v", w.Now().Sub(start))
}

// TestSimRestart gives a node a new boot id: the other hears of it from a pong, once.
func TestSimRestart(t *testing.T) {
	w, _, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	a.know(b.peer(b.addr))
	b.know(a.peer(a.addr))
	a.contact(b)
	w.RunFor(time.Second)
	b.core.boot = disco.BootID{99}
	b.core.peers[a.id.ID()].bootKnown = false
	b.contact(a)
	restarted := func(e Event) bool { return e.Type == EventRestarted && e.Peer == b.id.ID() }
	if !w.RunUntil(func() bool { return a.has(restarted) }, time.Second) {
		t.Fatal("a did not notice")
	}
	w.RunFor(time.Minute)
	count := 0
	for _, e := range a.events {
		if restarted(e) {
			count++
		}
	}
	if count != 1 || b.has(func(e Event) bool { return e.Type == EventRestarted }) {
		t.Fatalf("a heard of the restart %d times", count)
	}
}

// TestSimWrongClock sets one clock a year off. Contact fails, as tags are of other hours, until an Intro told how far;
// then it works in both directions.
func TestSimWrongClock(t *testing.T) {
	for _, ahead := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour} {
		w, _, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
		a.ahead = ahead
		a.know(b.peer(b.addr))
		b.know(a.peer(a.addr))
		a.contact(b)
		w.RunFor(3 * time.Second)
		if a.reaches(b)() {
			t.Fatal("contact in spite of tags of another year: the test proves nothing")
		}
		a.core.found(a.now(), b.id.ID(), way{addr: b.addr}, -ahead)
		b.core.found(b.now(), a.id.ID(), way{addr: a.addr}, ahead)
		a.contact(b)
		if !w.RunUntil(a.reaches(b), 2*time.Second) {
			t.Fatalf("no contact with a clock that is %v ahead", ahead)
		}
	}
}

// TestSimIdleCostsNothing counts what two nodes send after their contact is over.
func TestSimIdleCostsNothing(t *testing.T) {
	w, net, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	a.know(b.peer(b.addr))
	b.know(a.peer(a.addr))
	a.contact(b)
	w.RunFor(10 * time.Second)
	before := net.Counters().Sent
	w.RunFor(24 * time.Hour)
	if sent := net.Counters().Sent - before; sent != 0 {
		t.Fatalf("%d datagrams in an idle day", sent)
	}
}

// TestSimUnreachable looks for somebody who is not there: the pings become rare and end.
func TestSimUnreachable(t *testing.T) {
	w, net, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	net.SetDown(b.host, true)
	a.know(b.peer(b.addr))
	stop := w.Now().Add(10 * time.Minute)
	var want func()
	want = func() {
		a.contact(b)
		if w.Now().Before(stop) {
			w.After(250*time.Millisecond, want)
		}
	}
	w.After(0, want)
	w.RunFor(11 * time.Minute)
	sent := net.Counters().Sent
	if sent > 30 || sent < 8 {
		t.Fatalf("%d pings in ten minutes to somebody who is not there", sent)
	}
	w.RunFor(time.Hour)
	if net.Counters().Sent != sent {
		t.Fatal("it goes on pinging after nobody wants it")
	}
}

// TestSimDeadPathStaysDead lets one path die for good. Later contacts must not take it for a good one.
func TestSimDeadPathStaysDead(t *testing.T) {
	w := sim.New(simSeed)
	net := w.Network(sim.Link{Delay: 10 * time.Millisecond})
	one, two := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")
	a := newSimNode(w, 1, net.Host(netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::2")), "203.0.113.1:41820")
	b := newSimNode(w, 2, net.Host(one, two), "198.51.100.1:41820")
	a.know(b.peer(netip.AddrPortFrom(one, 41820), netip.AddrPortFrom(two, 41820)))
	b.know(a.peer())
	a.contact(b)
	w.RunFor(2 * time.Second)
	dead := a.route(b).first.addr
	b.host.SetAddrs(map[bool]netip.Addr{true: two, false: one}[dead.Addr() == one])
	events := w.Events()
	for range 500 {
		a.send(b)
		w.RunFor(20 * time.Millisecond)
	}
	if ticks := w.Events() - events; ticks > 300 {
		t.Errorf("%d events in ten seconds around a path that dies: the timer spins", ticks)
	}
	alive := a.route(b).first.addr
	if alive == dead {
		t.Fatal("data did not move")
	}
	w.RunFor(9 * time.Minute)
	a.core.linkChanged(a.now())
	a.act()
	for range 100 {
		a.contact(b)
		w.RunFor(20 * time.Millisecond)
		if got := a.route(b).first.addr; got != alive {
			t.Fatalf("data went back to the dead path %v", got)
		}
	}
}

// TestSimManyRoams keeps a bounded memory of a member that comes from ever new addresses.
func TestSimManyRoams(t *testing.T) {
	w, _, a, b := pair(t, sim.Link{Delay: time.Millisecond})
	a.know(b.peer(b.addr))
	b.know(a.peer())
	for i := range 1000 {
		a.host.SetAddrs(netip.AddrFrom4([4]byte{192, byte(i >> 8), byte(i), 7}))
		a.core.peer(a.now(), b.id.ID()).wantedAt = time.Time{}
		a.contact(b)
		w.RunFor(3 * time.Second)
	}
	if n := len(b.core.peers[a.id.ID()].paths); n > maxPaths {
		t.Fatalf("%d paths of one peer remembered", n)
	}
}

// TestSimFirstPingsTooEarly starts the second node a moment after the first one's pings: its own ping makes the first
// one ask again at once, on the path it came by.
func TestSimFirstPingsTooEarly(t *testing.T) {
	w, net, a, b := pair(t, sim.Link{Delay: time.Millisecond})
	net.SetDown(b.host, true)
	a.know(b.peer(b.addr))
	b.know(a.peer(a.addr))
	a.contact(b)
	w.RunFor(5 * time.Millisecond)
	net.SetDown(b.host, false)
	b.contact(a)
	w.RunFor(20 * time.Millisecond)
	if p := a.core.peers[b.id.ID()].paths[way{addr: b.addr}]; !p.confirmed() {
		t.Fatal("a has not verified the path by which b's ping came")
	}
}
