package tunnel

import (
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/wg"
)

func TestLotBounds(t *testing.T) {
	x, _, peer := newTapTest(t)
	p, now := x.entry(peer), sideEpoch
	lot := x.tap.lot
	for i := range lotPackets + 10 {
		if !lot.park(p, numbered(x.ip4, peer.ip4, i, 1000), now, 1) {
			t.Fatal("not parked")
		}
	}
	if got := x.c[parkFull].Load(); got != 10 {
		t.Errorf("%d pushed out", got)
	}
	var got []int
	if n := lot.release(p, now, func(batch [][]byte) { got = append(got, numbers(batch)...) }); n != lotPackets {
		t.Errorf("%d released", n)
	}
	if want := upTo(lotPackets + 10)[10:]; !slices.Equal(got, want) {
		t.Errorf("released %v", got)
	}
	if p.state.Load() != open {
		t.Error("not open after release")
	}

	for range lotPackets { // bytes count before packets do
		lot.park(p, make([]byte, 4000), now, 1)
	}
	if b := lot.bays[p]; b.bytes > lotMemberBytes || len(b.items) != lotMemberBytes/4000 {
		t.Errorf("%d bytes, %d packets", b.bytes, len(b.items))
	}
	full := x.c[parkFull].Load()
	if lot.park(p, make([]byte, lotMemberBytes+1), now, 1); x.c[parkFull].Load() != full+1 || len(lot.bays[p].items) == 0 {
		t.Error("a packet that never fits pushes others out")
	}
	waiting := uint64(len(lot.bays[p].items))
	if !lot.sweep(now.Add(lotAge)) || lot.sweep(now.Add(lotAge+1)) {
		t.Error("the sweep's answer is wrong")
	}
	if got := x.c[parkExpired].Load(); got != waiting {
		t.Errorf("%d of %d expired", got, waiting)
	}
	if lot.bytes != 0 || len(lot.bays) != 0 {
		t.Error("the books are off")
	}
	before := x.c[parkFull].Load()
	for range 2 * lotBytes / lotMemberBytes {
		other := &peer2{}
		other.entry.wg = wg.NewPeer([32]byte{5}, &other.entry, x.machine.Notes())
		for range lotPackets {
			lot.park(&other.entry, make([]byte, 2000), now, 1)
		}
	}
	if lot.bytes > lotBytes || x.c[parkFull].Load() == before {
		t.Errorf("%d bytes wait", lot.bytes)
	}
}

// peer2 is an entry that is in no table.
type peer2 struct{ entry peer }

func TestLotForgets(t *testing.T) {
	x := newSide(t, 1, false)
	gone, stays := addressesOf(2), addressesOf(3)
	x.know(gone, stays)
	for i := range 5 {
		x.tap.lot.park(x.entry(gone), numbered(x.ip4, gone.ip4, i, 100), sideEpoch, 1)
		x.tap.lot.park(x.entry(stays), numbered(x.ip4, stays.ip4, i, 100), sideEpoch, 1)
	}
	x.tap.lot.forget(x.entry(gone))
	only(t, &x.c, map[reason]uint64{parkRemoved: 5})
	var got []int
	x.tap.lot.release(x.entry(stays), sideEpoch, func(batch [][]byte) { got = append(got, numbers(batch)...) })
	if !slices.Equal(got, upTo(5)) || x.tap.lot.bytes != 0 {
		t.Errorf("left: %v, %d bytes", got, x.tap.lot.bytes)
	}
}

// TestParkWithSession: a packet waits behind others that do, and not otherwise.
func TestParkWithSession(t *testing.T) {
	a, b := sidePair(t)
	p := a.entry(b.node)
	if a.tap.lot.park(p, make([]byte, 40), sideEpoch, 1) {
		t.Error("parked although there is a session and nothing waits")
	}
	p.state.Store(parked) // as while others are let go
	if !a.tap.lot.park(p, make([]byte, 40), sideEpoch, 1) {
		t.Error("overtakes those that wait")
	}
	if got := a.machine.TakeNotes(sideEpoch); len(got) != 0 {
		t.Errorf("a session is asked for that is there: %v", got)
	}
}

// hooked is a link that looks at each Send.
type hooked struct {
	recorder
	before func(pkts [][]byte)
}

// SendAhead is Send: order is not what is tested with it.
func (h *hooked) SendAhead(now time.Time, pkts [][]byte) { h.Send(now, pkts) }

func (h *hooked) Send(now time.Time, pkts [][]byte) {
	if h.before != nil {
		h.before(pkts)
	}
	h.recorder.Send(now, pkts)
}

// TestReleaseOrder: while those that waited are sent, later ones queue up behind them, even in the last moment.
func TestReleaseOrder(t *testing.T) {
	a, b := newSide(t, 1, false), newSide(t, 2, false)
	a.know(b.node)
	b.know(a.node)
	p := a.entry(b.node)
	var n int
	add := func(o *outbox) {
		o.begin(sideEpoch)
		o.add(p, numbered(a.ip4, b.ip4, n, 300))
		o.flush()
		n++
	}
	other := newOutbox(a.tap, stackArena) // another goroutine's
	for range 10 {
		add(other)
	}
	link := &hooked{}
	late := 0
	link.before = func(pkts [][]byte) {
		if late < 3 && len(pkts[0]) > wg.Overhead {
			late++
			add(other)
		}
	}
	var l datagram.Peer = link
	p.link.Store(&l)
	fromA, fromB := sourceOf(a.node), sourceOf(b.node)
	first := message(t, a.machine.Renew(sideEpoch, p.wg), wg.ActInitiate)
	reply := message(t, b.machine.Initiation(sideEpoch, first, &fromA), wg.ActReply)
	actions := a.machine.Response(sideEpoch, reply, &fromB)
	cfg := a.config()
	o := &owner{machine: a.machine, tap: a.tap, out: newOutbox(a.tap, stackArena), cfg: &cfg, log: quiet, relink: func(*peer) {}}
	o.perform(sideEpoch, actions)
	add(other)
	b.take(sideEpoch, a.node, link.take()...)
	if got := numbers(b.got()); !slices.Equal(got, upTo(n)) || late != 3 {
		t.Errorf("order %v", got)
	}
	only(t, &a.c, nil)
}

// TestConcurrentSendersKeepOrder: several goroutines send before, while and after a session comes; each one's packets
// leave in its order.
func TestConcurrentSendersKeepOrder(t *testing.T) {
	a, b := newSide(t, 1, false), newSide(t, 2, false)
	a.know(b.node)
	b.know(a.node)
	p := a.entry(b.node)
	const senders, each = 4, 2000
	var wait, begun sync.WaitGroup
	begun.Add(senders)
	for s := range senders {
		wait.Go(func() {
			out := newOutbox(a.tap, stackArena)
			for i := range each {
				pkt := numbered(a.ip4, b.ip4, i, 100)
				binary.BigEndian.PutUint32(pkt[32:], uint32(s))
				out.begin(sideEpoch)
				out.add(p, pkt)
				out.flush()
				if i == 10 {
					begun.Done()
				}
			}
		})
	}
	begun.Wait()
	shake(t, sideEpoch, a, b)
	wait.Wait()
	b.take(sideEpoch, a.node, a.links[b.node].take()...)
	last := make([]int, senders)
	arrived := 0
	for _, pkt := range b.got() {
		s, n := binary.BigEndian.Uint32(pkt[32:]), number(pkt)
		if n < last[s] {
			t.Fatalf("sender %d: %d after %d", s, n, last[s])
		}
		last[s] = n
		arrived++
	}
	if lost := int(a.c[parkFull].Load()); arrived+lost != senders*each {
		t.Errorf("%d arrived, %d pushed out of the lot", arrived, lost)
	}
}
