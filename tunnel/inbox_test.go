package tunnel

import (
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// sealed is n numbered datagrams of equal size from a to b.
func sealed(a, b *side, first, n, size int) [][]byte {
	var pkts [][]byte
	for i := range n {
		pkts = append(pkts, numbered(a.ip4, b.ip4, first+i, size))
	}
	return a.seal(sideEpoch, b.node, pkts...)
}

// TestRuns: what one session opened in one train goes on together, and its source is told once for each run.
func TestRuns(t *testing.T) {
	const size = 1000
	const whole = 1008 + wg.Overhead
	for _, tt := range []struct {
		name  string
		train func(t *testing.T, a, b *side) [][]byte
		want  int   // packets, in order
		runs  []int // bytes
		count map[reason]uint64
	}{
		{"one", func(_ *testing.T, a, b *side) [][]byte { return sealed(a, b, 0, 1, size) }, 1, []int{whole}, nil},
		{"many", func(_ *testing.T, a, b *side) [][]byte { return sealed(a, b, 0, 40, size) }, 40, []int{40 * whole}, nil},
		{
			"more than a run", func(_ *testing.T, a, b *side) [][]byte { return sealed(a, b, 0, 2*maxRun+7, size) },
			2*maxRun + 7,
			[]int{maxRun * whole, maxRun * whole, 7 * whole},
			nil,
		},
		{"two sessions", func(t *testing.T, a, b *side) [][]byte {
			old := sealed(a, b, 0, 5, size)
			shake(t, sideEpoch.Add(time.Second), a, b)
			b.links[a.node].auth = nil
			return append(append(old, sealed(a, b, 5, 5, size)...), nil...)
		}, 10, []int{5 * whole, 5 * whole}, nil},
		{"a forged one among them", func(_ *testing.T, a, b *side) [][]byte {
			all := sealed(a, b, 0, 10, size)
			all = slices.Insert(all, 4, slices.Clone(all[4]))
			all[4][50]++
			return all
		}, 10, []int{10 * whole}, map[reason]uint64{inForged: 1}},
		{"an unknown session among them", func(_ *testing.T, a, b *side) [][]byte {
			all := sealed(a, b, 0, 10, size)
			all = slices.Insert(all, 4, slices.Clone(all[4]))
			all[4][5]++
			return all
		}, 10, []int{4 * whole, 6 * whole}, map[reason]uint64{inNoSession: 1}},
		{"a train twice", func(_ *testing.T, a, b *side) [][]byte {
			all := sealed(a, b, 0, 10, size)
			return append(all, all...)
		}, 10, []int{10 * whole}, map[reason]uint64{inReplayed: 10}},
		{"an initiation at the end", func(t *testing.T, a, b *side) [][]byte {
			all := sealed(a, b, 0, 10, size)
			return append(all, message(t, a.machine.Renew(sideEpoch.Add(time.Second), a.entry(b.node).wg), wg.ActInitiate))
		}, 10, []int{10 * whole}, nil},
		{"a short one at the end", func(_ *testing.T, a, b *side) [][]byte {
			return append(sealed(a, b, 0, 10, size), make([]byte, wg.Overhead-1))
		}, 10, []int{10 * whole}, map[reason]uint64{inShort: 1}},
		{"no message", func(_ *testing.T, a, b *side) [][]byte {
			all := sealed(a, b, 0, 10, size)
			reserved := slices.Clone(all[0])
			reserved[2] = 1
			all[0][0] = 9
			return append(all, reserved, []byte{1, 0, 0, 0, 9, 9, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
		}, -9, []int{9 * whole}, map[reason]uint64{inMalformed: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := sidePair(t)
			b.links[a.node].auth = nil
			b.take(sideEpoch, a.node, tt.train(t, a, b)...)
			want := upTo(max(tt.want, 0))
			if tt.want < 0 { // the first one is missing
				want = upTo(1 - tt.want)[1:]
			}
			if got := numbers(b.got()); !slices.Equal(got, want) {
				t.Errorf("packets %v", got)
			}
			var runs []int
			for _, h := range b.links[a.node].auth {
				runs = append(runs, h.size)
				if h.from != sourceOf(a.node).Addr {
					t.Errorf("from %s", h.from)
				}
			}
			if !slices.Equal(runs, tt.runs) {
				t.Errorf("runs of %v bytes, want %v", runs, tt.runs)
			}
			only(t, &b.c, tt.count)
		})
	}
}

// TestReplay: nothing is taken twice, later or from elsewhere, and a replay moves nobody.
func TestReplay(t *testing.T) {
	a, b := sidePair(t)
	all := sealed(a, b, 0, 100, 200)
	b.take(sideEpoch, a.node, all...)
	b.got()
	heard := len(b.links[a.node].auth)
	rx := b.entry(a.node).wg.Stats(b.machine.Clock(), sideEpoch).RxBytes
	thief := addressesOf(66)
	for range 3 {
		b.take(sideEpoch, thief, all...)
		b.take(sideEpoch, a.node, all...)
	}
	if got := b.got(); len(got) != 0 {
		t.Errorf("%d packets came twice", len(got))
	}
	if got := len(b.links[a.node].auth); got != heard {
		t.Error("a replay was taken for the member")
	}
	if got := b.entry(a.node).wg.Stats(b.machine.Clock(), sideEpoch).RxBytes; got != rx {
		t.Error("a replay is counted as received")
	}
	only(t, &b.c, map[reason]uint64{inReplayed: 600})
}

// TestLateOnes: the window takes what was overtaken, and nothing that was overtaken by thousands.
func TestLateOnes(t *testing.T) {
	a, b := sidePair(t)
	all := sealed(a, b, 0, 9000, 60)
	slices.Reverse(all[8900:])
	b.take(sideEpoch, a.node, all[1:]...)
	if got := len(b.got()); got != 8999 {
		t.Errorf("%d of 8999 packets arrived", got)
	}
	b.take(sideEpoch, a.node, all[0])
	only(t, &b.c, map[reason]uint64{inReplayed: 1})
}

// TestSources: two trains of one read, from two places.
func TestSources(t *testing.T) {
	a, b := sidePair(t)
	all := sealed(a, b, 0, 10, 200)
	there, other := sourceOf(a.node), sourceOf(addressesOf(9))
	var x, y []airPacket
	for _, d := range all[:4] {
		x = append(x, airPacket{there.Addr, d})
	}
	for _, d := range all[4:] {
		y = append(y, airPacket{other.Addr, d})
	}
	b.links[a.node].auth = nil
	b.in.take(sideEpoch, append(trains(x), trains(y)...))
	size := 208 + wg.Overhead
	if want := []heard{{there.Addr, 4 * size}, {other.Addr, 6 * size}}; !slices.Equal(b.links[a.node].auth, want) {
		t.Errorf("heard %v", b.links[a.node].auth)
	}
	if b.host.flushes != 2 { // one for the first packet of the session
		t.Errorf("%d flushes", b.host.flushes)
	}
}

// TestMemberCannotSpoof: under its own session, with another member's address.
func TestMemberCannotSpoof(t *testing.T) {
	hub, members := crowd(t, 2)
	a, b := members[0], members[1]
	for _, pkt := range [][]byte{
		udpPacket(b.ip4, hub.ip4, 9), udpPacket(b.ip6, hub.ip6, 9), udpPacket(b.ctl, hub.ctl, 9), udpPacket(hub.ctl, hub.ctl, 9),
	} {
		hub.take(sideEpoch, a.node, a.seal(sideEpoch, hub.node, pkt)...)
	}
	if got := hub.got(); len(got) != 0 {
		t.Errorf("%d spoofed packets arrive", len(got))
	}
	only(t, &hub.c, map[reason]uint64{inSource: 4})
}

// TestMemberGone: its session opens nothing, even while a run is under way, and neither does that of a key it had.
func TestMemberGone(t *testing.T) {
	a, b := sidePair(t)
	all := sealed(a, b, 0, 30, 200)
	old := b.entry(a.node)

	// A run that began before keeps its session; the table that counts is that of the read.
	b.in.now, b.in.at, b.in.self, b.in.table = sideEpoch, 1, b.tap.self.Load(), b.tap.table.Load()
	from := sourceOf(a.node)
	b.in.transport(slices.Clone(all[0]), &from)
	b.know()
	b.in.transport(slices.Clone(all[1]), &from)
	b.in.end(&from)
	b.in.out.flush()
	if got := numbers(b.got()); !slices.Equal(got, upTo(2)) {
		t.Errorf("got %v", got)
	}
	b.take(sideEpoch, a.node, all[2:5]...)
	only(t, &b.c, map[reason]uint64{inNoSession: 3})

	// The same addresses under another key: the old entry, held by a snapshot, is nobody.
	b.know(a.node)
	if b.entry(a.node) == old {
		t.Fatal("the entry did not change")
	}
	if _, to := b.tap.fromMember(b.tap.self.Load(), b.tap.table.Load(), old, numbered(a.ip4, b.ip4, 5, 200)); to != inDropped {
		t.Error("the packet of an old entry is taken")
	}
	only(t, &b.c, map[reason]uint64{inNoSession: 3, inSource: 1})
}

func TestOldSessionOpensNothing(t *testing.T) {
	a, b := sidePair(t)
	all := sealed(a, b, 0, 2, 200)
	b.take(sideEpoch.Add(wg.RejectAfterTime-time.Second), a.node, all[0])
	b.take(sideEpoch.Add(wg.RejectAfterTime), a.node, all[1])
	if got := numbers(b.got()); !slices.Equal(got, upTo(1)) {
		t.Errorf("got %v", got)
	}
	only(t, &b.c, map[reason]uint64{inNoSession: 1})
}

// TestUserspaceInbox: without a TUN everything goes to the netstack.
func TestUserspaceInbox(t *testing.T) {
	a, b := newSide(t, 1, false), newSide(t, 2, true)
	a.know(b.node)
	b.know(a.node)
	shake(t, sideEpoch, a, b)
	b.take(sideEpoch, a.node, sealed(a, b, 0, 10, 100)...)
	if got := numbers(b.injected); !slices.Equal(got, upTo(10)) {
		t.Errorf("got %v", got)
	}
}

// FuzzInbox gives a node anything for a datagram.
func FuzzInbox(f *testing.F) {
	f.Add([]byte{noise.TypeData, 0, 0, 0}, 16)
	f.Add(make([]byte, noise.InitiationSize), 148)
	a, b := sidePair(f)
	for _, d := range sealed(a, b, 0, 2, 200) {
		f.Add(d, 100)
		f.Add(d, len(d))
	}
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		if size < 1 {
			return
		}
		b.in.take(sideEpoch, []datagram.Train{{Data: data, Size: size, From: sourceOf(a.node)}})
		for len(b.in.door.queue) > 0 {
			<-b.in.door.queue
		}
	})
}
