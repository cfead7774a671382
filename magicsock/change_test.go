package magicsock

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/sim"
)

// arrivals notes what of one node's data came at another, and when.
type arrivals struct {
	seen    map[uint64]bool
	highest uint64
	late    int           // came after a later one
	behind  uint64        // by so many, at most
	longest time.Duration // pause
	last    time.Time
}

func (a *arrivals) take(now time.Time, n uint64) {
	if a.seen == nil {
		a.seen = make(map[uint64]bool)
	}
	if !a.seen[n] && n < a.highest {
		a.late++
		a.behind = max(a.behind, a.highest-n)
	}
	a.seen[n] = true
	a.highest = max(a.highest, n)
	if !a.last.IsZero() {
		a.longest = max(a.longest, now.Sub(a.last))
	}
	a.last = now
}

// every calls fn in equal steps until stop.
func every(w *sim.World, step time.Duration, stop time.Time, fn func()) {
	var turn func()
	turn = func() {
		fn()
		if w.Now().Add(step).Before(stop) {
			w.After(step, turn)
		}
	}
	w.After(0, turn)
}

// TestSimRelayToDirect sends 2000 datagrams a second each way while the path changes from the relay server to a direct
// one: none is lost.
func TestSimRelayToDirect(t *testing.T) {
	for _, kind := range []sim.NATKind{sim.NATNone, sim.PortRestricted} {
		m := newMatrix(simSeed, kind, sim.PortRestricted)
		m.net.SetLink(sim.Link{Delay: 15 * time.Millisecond})
		var atA, atB arrivals
		m.a.taken = func(_ *simNode, n, _ uint64) { atA.take(m.w.Now(), n) }
		m.b.taken = func(_ *simNode, n, _ uint64) { atB.take(m.w.Now(), n) }
		stop := m.w.Now().Add(5 * time.Second)
		every(m.w, 500*time.Microsecond, stop, func() {
			m.a.sendSized(m.b, 200)
			m.b.sendSized(m.a, 200)
		})
		m.w.RunFor(20 * time.Millisecond)
		if m.direct() {
			t.Fatal("direct from the beginning: the test proves nothing")
		}
		m.w.Run(stop.Add(time.Second))
		if !m.direct() {
			t.Fatal("no direct path")
		}
		for _, got := range []*arrivals{&atA, &atB} {
			t.Logf("%v: %d datagrams, %d out of order by at most %d, longest pause %v", kind, len(got.seen), got.late, got.behind, got.longest)
			if len(got.seen) != 10000 {
				t.Errorf("%v: %d of 10000 datagrams arrived", kind, len(got.seen))
			}
			if got.behind > 500 {
				t.Errorf("%v: %d datagrams were overtaken", kind, got.behind)
			}
		}
	}
}

// TestSimCutAndRepair cuts the direct path under data and repairs it: the relay server takes over within a second, and
// the direct path is back within three.
func TestSimCutAndRepair(t *testing.T) {
	var outages, repairs []time.Duration
	for seed := range uint64(20) {
		m := newMatrix(seed+simSeed, sim.PortRestricted, sim.AddressRestricted)
		m.talk(m.w.Now().Add(10 * time.Minute))
		if !m.w.RunUntil(m.direct, 5*time.Second) {
			t.Fatal("no direct path")
		}
		m.w.RunFor(10*time.Second + time.Duration(seed)*37*time.Millisecond)
		at := arrivals{last: m.w.Now()}
		m.a.taken = func(_ *simNode, n, _ uint64) { at.take(m.w.Now(), n) }
		m.net.Partition([]*sim.Host{m.a.host}, []*sim.Host{m.b.host})
		m.w.RunFor(20 * time.Second)
		outages = append(outages, at.longest)
		if r := m.a.route(m.b); !r.first.relay || r.double {
			t.Fatalf("data goes by %+v", r.first.way)
		}
		m.net.Heal()
		start := m.w.Now()
		if !m.w.RunUntil(m.direct, 10*time.Second) {
			t.Fatal("the direct path does not come back")
		}
		repairs = append(repairs, m.w.Now().Sub(start))
	}
	slices.Sort(outages)
	slices.Sort(repairs)
	t.Logf("seeds from %d: outage median %v, worst %v; repair median %v, worst %v", simSeed, outages[10], outages[19], repairs[10], repairs[19])
	if outages[19] > time.Second { // there and back
		t.Errorf("an outage of %v", outages[19])
	}
	if repairs[19] > 3*time.Second {
		t.Errorf("back after %v", repairs[19])
	}
}

// TestSimBulkMovesWhenItsBudgetEnds cuts the path of a fast stream: what is more than goes twice goes by the fallback.
func TestSimBulkMovesWhenItsBudgetEnds(t *testing.T) {
	m := newMatrix(simSeed, sim.NATNone, sim.NATNone)
	var at arrivals
	m.b.taken = func(_ *simNode, n, _ uint64) { at.take(m.w.Now(), n) }
	every(m.w, 500*time.Microsecond, m.w.Now().Add(8*time.Second), func() { m.a.sendSized(m.b, 1300) })
	m.w.RunFor(4 * time.Second)
	at = arrivals{last: m.w.Now()}
	m.net.Partition([]*sim.Host{m.a.host}, []*sim.Host{m.b.host})
	m.w.RunFor(3 * time.Second)
	if at.longest > time.Second || len(at.seen) < 3500 {
		t.Fatalf("a pause of %v, %d datagrams", at.longest, len(at.seen))
	}
}

// TestSimRelayEnds ends the relay server under data between two that have nothing else, and two that have: these go on.
func TestSimRelayEnds(t *testing.T) {
	m := newMatrix(simSeed, sim.Symmetric, sim.Symmetric)
	m.talk(m.w.Now().Add(time.Minute))
	m.w.RunFor(2 * time.Second)
	if r := m.a.route(m.b); r == nil || !r.first.relay {
		t.Fatal("not by the relay server")
	}
	m.relay.setDown(true)
	if r := m.a.route(m.b); r != nil {
		t.Fatalf("data goes by %v, which is no more", r.first.way)
	}
	m.w.RunFor(10 * time.Second)
	m.relay.setDown(false)
	before := m.ranks[0][rankRelay]
	m.w.RunFor(time.Second)
	if m.ranks[0][rankRelay] == before {
		t.Fatal("nothing comes after the relay server is back")
	}
}

// TestSimRelayEndsInDoubt takes the relay server away while the direct path is in doubt and after it was left.
func TestSimRelayEndsInDoubt(t *testing.T) {
	m := newMatrix(simSeed, sim.NATNone, sim.NATNone)
	m.talk(m.w.Now().Add(time.Minute))
	m.w.RunFor(3 * time.Second)
	m.net.Partition([]*sim.Host{m.a.host}, []*sim.Host{m.b.host})
	if !m.w.RunUntil(func() bool { return m.a.route(m.b).double }, 2*time.Second) {
		t.Fatal("no doubt")
	}
	m.relay.setDown(true)
	if r := m.a.route(m.b); r.double || r.first.relay {
		t.Fatalf("data goes by %+v", r)
	}
	m.net.Heal()
	if !m.w.RunUntil(m.direct, 5*time.Second) {
		t.Fatal("the direct path does not come back")
	}
}

// TestSimRoamsBehindNAT moves a node behind another NAT under data; its STUN servers tell it where it is a second later.
func TestSimRoamsBehindNAT(t *testing.T) {
	m := newMatrix(simSeed, sim.PortRestricted, sim.PortRestricted)
	m.talk(m.w.Now().Add(time.Minute))
	m.w.RunFor(5 * time.Second)
	if !m.direct() {
		t.Fatal("no direct path")
	}
	at := arrivals{last: m.w.Now()}
	m.a.taken = func(_ *simNode, n, _ uint64) { at.take(m.w.Now(), n) }
	m.a.host.Move(m.net.NAT(sim.PortRestricted, netip.MustParseAddr("192.0.2.77")), netip.MustParseAddr("10.7.0.2"))
	m.a.core.linkChanged(m.a.now())
	m.a.act()
	m.w.After(time.Second, func() { m.a.stun.ask(m.a, m.a.stun.servers) })
	m.w.RunFor(10 * time.Second)
	t.Logf("longest pause %v", at.longest)
	if at.longest > 1500*time.Millisecond {
		t.Fatalf("a pause of %v", at.longest)
	}
	if !m.direct() {
		t.Fatal("no direct path from the new place")
	}
}

// TestSimNATForgets empties a NAT's table under data, without anybody being told.
func TestSimNATForgets(t *testing.T) {
	m := newMatrix(simSeed, sim.PortRestricted, sim.NATNone)
	nat := m.net.NAT(sim.Symmetric, netip.MustParseAddr("192.0.2.77"))
	m.a.host.Move(nat, netip.MustParseAddr("10.7.0.2"))
	m.a.core.linkChanged(m.a.now())
	m.talk(m.w.Now().Add(time.Minute))
	m.w.RunFor(5 * time.Second)
	if !m.direct() {
		t.Fatal("no direct path")
	}
	at := arrivals{last: m.w.Now()}
	m.a.taken = func(_ *simNode, n, _ uint64) { at.take(m.w.Now(), n) }
	nat.Forget()
	m.w.RunFor(5 * time.Second)
	t.Logf("longest pause %v", at.longest)
	if at.longest > 1500*time.Millisecond || !m.direct() {
		t.Fatalf("a pause of %v", at.longest)
	}
}

// TestSimIdleThenData waits until NATs have forgotten, and sends one datagram: it arrives.
func TestSimIdleThenData(t *testing.T) {
	m := newMatrix(simSeed, sim.PortRestricted, sim.PortRestricted)
	m.talk(m.w.Now().Add(5 * time.Second))
	m.w.RunFor(6 * time.Second)
	if !m.direct() {
		t.Fatal("no direct path")
	}
	m.w.RunFor(5 * time.Minute)
	idle := m.a.core.count.pingsSent.Load()
	m.w.RunFor(4 * time.Minute)
	if n := m.a.core.count.pingsSent.Load() - idle; n != 0 {
		t.Fatalf("%d pings to an idle peer", n)
	}
	var at arrivals
	m.b.taken = func(_ *simNode, n, _ uint64) { at.take(m.w.Now(), n) }
	m.a.sendData(m.b)
	m.w.RunFor(200 * time.Millisecond)
	if len(at.seen) != 1 {
		t.Fatal("the first datagram after a pause is lost")
	}
	m.w.RunFor(3 * time.Second)
	if !m.direct() {
		t.Fatal("no direct path after a pause")
	}
}

// TestSimWarm keeps a path open through a NAT that forgets in 30 s: while there is data now and then, and to a home.
func TestSimWarm(t *testing.T) {
	for _, home := range []bool{false, true} {
		m := newMatrix(simSeed, sim.PortRestricted, sim.PortRestricted)
		m.talk(m.w.Now().Add(5 * time.Second))
		m.w.RunFor(6 * time.Second)
		relayed := m.ranks[1][rankRelay]
		if home {
			m.a.core.setHomes(m.a.now(), []identity.PeerID{m.b.id.ID()})
			m.a.act()
		}
		for range 5 {
			if home {
				m.w.RunFor(time.Hour)
			} else {
				m.w.RunFor(110 * time.Second)
			}
			m.a.sendData(m.b)
			m.w.RunFor(time.Second)
		}
		if got := m.ranks[1][rankRelay] - relayed; got != 0 {
			t.Errorf("home %v: %d datagrams by the relay server", home, got)
		}
	}
}

// TestSimHomeBeforeItsMember names a home that is no member yet: it is looked for once it is one, and again after its
// path broke, without anything being sent to it.
func TestSimHomeBeforeItsMember(t *testing.T) {
	w, net, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	a.core.setHomes(a.now(), []identity.PeerID{b.id.ID()})
	a.act()
	b.know(a.peer())
	a.know(b.peer(b.addr))
	answers := func() bool { return a.core.peers[b.id.ID()].healthy(a.now()) && a.route(b) != nil }
	if !w.RunUntil(answers, 5*time.Second) {
		t.Fatal("no path to a home")
	}
	net.SetDown(b.host, true)
	w.RunFor(30 * time.Minute)
	if answers() {
		t.Fatal("nobody noticed that the home is gone")
	}
	sent := net.Counters().Sent
	w.RunFor(30 * time.Minute)
	if n := net.Counters().Sent - sent; n > 150 {
		t.Errorf("%d packets to a home that is gone, in half an hour", n)
	}
	net.SetDown(b.host, false)
	if !w.RunUntil(answers, 2*time.Minute) {
		t.Fatal("the home is not found again")
	}
	before := net.Counters().Sent
	w.RunFor(time.Hour)
	if n := net.Counters().Sent - before; n < 2*144 || n > 2*180 {
		t.Errorf("%d packets to keep a path open for an hour", n)
	}
	a.core.setHomes(a.now(), nil)
	a.act()
	w.RunFor(time.Minute)
	before = net.Counters().Sent
	w.RunFor(time.Hour)
	if n := net.Counters().Sent - before; n != 0 {
		t.Errorf("%d packets to what was a home", n)
	}
}
