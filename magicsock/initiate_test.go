package magicsock

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/sim"
)

// initiations are the sends that are no pings, by address; relayed ones under the zero address.
func initiations(sends []send) (to []netip.AddrPort) {
	for _, s := range sends {
		if s.pkt[0] == wgInitiation {
			to = append(to, s.addr)
		}
	}
	return to
}

func TestSendAllTargets(t *testing.T) {
	pkt := wgPacket(wgInitiation, 148)
	many := make([]netip.AddrPort, 40)
	for i := range many {
		many[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i), 0, 1}), 1000)
	}
	for name, c := range map[string]struct {
		leg     bool
		addrs   []netip.AddrPort
		prepare func(b *bench)
		want    []netip.AddrPort // in this order; nil: only count
		count   int
	}{
		"nobody":             {},
		"candidates":         {addrs: []netip.AddrPort{addrA, addrB}, want: []netip.AddrPort{addrA, addrB}},
		"relay first":        {leg: true, addrs: []netip.AddrPort{addrA}, want: []netip.AddrPort{{}, addrA}},
		"at most 16":         {leg: true, addrs: many, count: 16},
		"the best, then all": {leg: true, addrs: []netip.AddrPort{addrA, addrB, addrC}, prepare: func(b *bench) { b.up(addrB) }, want: []netip.AddrPort{addrB, {}, addrA, addrC}},
		"vouched before unknown": {
			addrs:   []netip.AddrPort{addrA},
			prepare: func(b *bench) { b.core.addProvisional(b.now, b.p.id, b.p.handle.wg, way{addr: addrC}) },
			want:    []netip.AddrPort{addrC, addrA},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.leg, c.addrs...)
			if c.prepare != nil {
				c.prepare(b)
			}
			b.core.take()
			b.core.sendAll(b.now, b.p, pkt)
			sends, _ := b.core.take()
			got := initiations(sends)
			if c.want != nil && !slices.Equal(got, c.want) || c.want == nil && len(got) != c.count {
				t.Fatalf("initiations to %v, want %v (%d)", got, c.want, c.count)
			}
			if none := b.core.count.noRoute.Load() == 1; none != (len(got) == 0) {
				t.Errorf("no route counted: %v", none)
			}
			if !b.p.wanted(b.now) {
				t.Error("the peer is not looked for")
			}
			if len(c.addrs) > 0 && len(sends) == len(got) {
				t.Error("no pings beside the initiation")
			}
		})
	}
}

// TestSendAllIsBounded repeats an initiation that nobody answers: the unconfirmed address gets few, and its pings as
// many as without.
func TestSendAllIsBounded(t *testing.T) {
	run := func(all bool) (inits, pings int) {
		b := newBench(t, false, addrA)
		for range 200 {
			if all {
				b.core.sendAll(b.now, b.p, wgPacket(wgInitiation, 148))
			} else {
				b.core.contact(b.now, b.p.id)
			}
			b.pass(100 * time.Millisecond)
		}
		sends, _ := b.core.take()
		inits = len(initiations(sends))
		return inits, len(sends) - inits
	}
	inits, pings := run(true)
	_, want := run(false)
	if inits < 4 || inits > 7 || pings != want {
		t.Fatalf("%d initiations and %d pings in 20 s; without initiations %d pings", inits, pings, want)
	}
}

func TestReachable(t *testing.T) {
	b := newBench(t, false, addrA, addrB)
	reachable := func() (count int) {
		_, events := b.core.take()
		for _, e := range events {
			if e.Type == EventReachable {
				count++
			}
		}
		return count
	}
	b.core.sendAll(b.now, b.p, wgPacket(wgInitiation, 148))
	b.pong(addrA, 10*time.Millisecond)
	if n := reachable(); n != 0 {
		t.Fatalf("%d times told of a path that the initiation left by with its ping", n)
	}
	b.pass(300 * time.Millisecond)
	b.core.probe(b.now, b.p, b.p.paths[way{addr: addrB}])
	b.pong(addrB, 10*time.Millisecond)
	b.pong(addrB, 10*time.Millisecond)
	if n := reachable(); n != 1 {
		t.Fatalf("told %d times, want once", n)
	}
	b.core.conn.Connected(b.p.id)
	if b.p.wanted(b.now) {
		t.Fatal("wanted in spite of a session")
	}
	b.pass(time.Second)
	b.core.ping(b.now, b.p, b.p.best)
	b.pong(b.best(), 10*time.Millisecond)
	if n := reachable(); n != 0 {
		t.Fatal("told of a peer that nobody looks for")
	}
}

// TestContactTellsReachable: a peer that Contact looks for is reachable with its first pong.
func TestContactTellsReachable(t *testing.T) {
	w, _, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	a.know(b.peer(b.addr))
	b.know(a.peer())
	a.contact(b)
	w.RunFor(time.Second)
	if !a.has(func(e Event) bool { return e.Type == EventReachable && e.Peer == b.id.ID() && e.Path.Addr == b.addr }) {
		t.Fatal("not told")
	}
}
