package magicsock

import (
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/sim"
)

// TestFullSizeBeforeData answers small pings on a path and not large ones: its data stays with the relay server, and
// without one goes there in fragments.
func TestFullSizeBeforeData(t *testing.T) {
	for _, leg := range []bool{true, false} {
		b := newBench(t, leg, addrA)
		b.limit = 1260
		b.core.contact(b.now, b.p.id)
		for range 20 {
			b.pong(addrA, 10*time.Millisecond)
			b.pong(netip.AddrPort{}, 40*time.Millisecond)
			b.pass(100 * time.Millisecond)
		}
		r, info := b.p.handle.route.Load(), b.core.info(b.now, b.p)
		direct := info.Candidates[0]
		if direct.Size != 1252 {
			t.Errorf("relay %v: the path is found to carry %d bytes, want 1252", leg, direct.Size)
		}
		switch {
		case leg && (!r.first.relay || info.Reason != "relay: "+reasonSmall || direct.Verdict != verdictSmall || b.p.handle.MaxSize() != 0):
			t.Errorf("%+v, %q, %q", r.first, info.Reason, direct.Verdict)
		case !leg && (r.first.relay || r.first.most != 1252 || info.Reason != reasonPieces || b.p.handle.MaxSize() != 1252):
			t.Errorf("%+v, %q, MaxSize %d", r.first, info.Reason, b.p.handle.MaxSize())
		}
		b.limit = 0
		whole := func() bool {
			r := b.p.handle.route.Load()
			return !r.first.relay && r.first.most == 0
		}
		for end := b.now.Add(2 * sizeAgain); b.now.Before(end) && !whole(); { // while it is used, the full size is tried again
			b.p.handle.use(b.p.handle.stamp(b.now))
			b.pass(50 * time.Millisecond)
			b.pong(addrA, 10*time.Millisecond)
			b.data(addrA)
		}
		if !whole() {
			t.Errorf("relay %v: the route is %+v once the path carries everything", leg, b.p.handle.route.Load().first)
		}
	}
}

// TestSmallPathIsAskedRarely counts what a path that takes no full datagrams costs in an hour of use.
func TestSmallPathIsAskedRarely(t *testing.T) {
	b := newBench(t, true, addrA)
	b.limit = 1260
	b.core.contact(b.now, b.p.id)
	sent := 0
	for range 3600 {
		b.p.handle.use(b.p.handle.stamp(b.now))
		b.data(netip.AddrPort{})
		b.pong(addrA, 10*time.Millisecond)
		b.pong(netip.AddrPort{}, 0)
		b.pass(980 * time.Millisecond)
		sends, _ := b.core.take()
		for _, s := range sends {
			if s.addr == addrA {
				sent += len(s.pkt)
			}
		}
	}
	t.Logf("%d bytes in an hour", sent)
	if sent > 100_000 {
		t.Fatalf("%d bytes in an hour", sent)
	}
}

// TestRefusedByTheHost has a link of this host refuse full datagrams: the path is small at once.
func TestRefusedByTheHost(t *testing.T) {
	b := newBench(t, true, addrA)
	b.up(addrA)
	b.core.tooLarge(b.now, b.p, way{addr: addrA}, 1312)
	if r := b.p.handle.route.Load(); !r.first.relay {
		t.Fatalf("data goes on by %+v", r.first)
	}
	alone := newBench(t, false, addrA)
	alone.up(addrA)
	alone.core.tooLarge(alone.now, alone.p, way{addr: addrA}, 1312)
	if r := alone.p.handle.route.Load(); r.first.most == 0 || r.first.most >= 1312 {
		t.Fatalf("data goes by %+v", r.first)
	}
}

// TestSimLinkBecomesSmall lets a link on the way carry less than before, without a word: bulk moves to the relay server,
// and comes back when the link is as it was.
func TestSimLinkBecomesSmall(t *testing.T) {
	m := newMatrix(simSeed, sim.NATNone, sim.NATNone)
	stop := m.w.Now().Add(time.Hour)
	every(m.w, 20*time.Millisecond, stop, func() { m.a.sendSized(m.b, 1312) })
	m.w.RunFor(5 * time.Second)
	if !m.a.route(m.b).first.direct() {
		t.Fatal("no direct path")
	}
	link := sim.Link{Delay: 15 * time.Millisecond}
	link.MTU = 1300
	m.net.SetLink(link)
	at := arrivals{last: m.w.Now()}
	m.b.taken = func(_ *simNode, n, _ uint64) { at.take(m.w.Now(), n) }
	m.w.RunFor(20 * time.Second)
	t.Logf("longest pause %v", at.longest)
	if r := m.a.route(m.b); !r.first.relay || at.longest > 1500*time.Millisecond {
		t.Fatalf("data goes by %+v after a pause of %v", r.first.way, at.longest)
	}
	link.MTU = 0
	m.net.SetLink(link)
	if !m.w.RunUntil(func() bool { return m.a.route(m.b).first.direct() }, sizeAgain+time.Minute) {
		t.Fatal("the direct path does not come back")
	}
}

// TestSilenceIsNotSmall cuts a path while its full size is asked for again: it is not small for that, and carries data
// again as soon as it works.
func TestSilenceIsNotSmall(t *testing.T) {
	b := newBench(t, true, addrA)
	b.up(addrA)
	path := b.p.paths[way{addr: addrA}]
	b.p.handle.use(b.p.handle.stamp(b.now))
	b.core.proveAgain(b.now, b.p, path)
	if path.nextSize.IsZero() {
		t.Fatal("the size was not asked for")
	}
	b.core.schedule(b.now, b.p)
	b.pass(500 * time.Millisecond)
	for range 50 {
		b.p.handle.use(b.p.handle.stamp(b.now))
		b.data(netip.AddrPort{})
		b.pass(50 * time.Millisecond)
	}
	if r := b.p.handle.route.Load(); path.fit == fitSmall || !r.first.relay {
		t.Fatalf("data goes by %+v; fit %v", r.first, path.fit)
	}
	for range 60 {
		b.p.handle.use(b.p.handle.stamp(b.now))
		b.pass(50 * time.Millisecond)
		b.pong(addrA, 5*time.Millisecond)
	}
	if r := b.p.handle.route.Load(); r.first.relay {
		t.Fatalf("data goes by %+v; fit %v", r.first, path.fit)
	}
}
