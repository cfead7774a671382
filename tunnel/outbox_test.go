package tunnel

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// crowd is one side with n members, each with a session.
func crowd(t testing.TB, n int) (hub *side, members []*side) {
	t.Helper()
	hub = newSide(t, 1, false)
	var nodes []*node
	for i := range n {
		m := newSide(t, byte(2+i), false)
		m.know(hub.node)
		members, nodes = append(members, m), append(nodes, m.node)
	}
	hub.know(nodes...)
	for _, m := range members {
		shake(t, sideEpoch, hub, m)
	}
	return hub, members
}

// TestOutboxKeepsMembersApart interleaves packets for several members in one batch: each gets its own, in order, in one
// Send for each time that the arena or the groups were full.
func TestOutboxKeepsMembersApart(t *testing.T) {
	for _, tt := range []struct {
		name           string
		members, arena int
		each, size     int
		sends          int // at most, to each member
	}{
		{"three", 3, hostArena, 20, 500, 1},
		{"the arena is full", 3, 16 << 10, 50, 1280, 20},
		{"more members than groups", maxGroups + 8, hostArena, 5, 100, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hub, members := crowd(t, tt.members)
			hub.out = newOutbox(hub.tap, tt.arena)
			hub.out.begin(sideEpoch)
			for i := range tt.each {
				for _, m := range members {
					hub.out.add(hub.entry(m.node), numbered(hub.ip4, m.ip4, i, tt.size))
				}
			}
			hub.out.flush()
			for _, m := range members {
				link := hub.links[m.node]
				if len(link.runs) > tt.sends {
					t.Errorf("%d sends", len(link.runs))
				}
				m.take(sideEpoch, hub.node, link.take()...)
				if got := numbers(m.got()); !slices.Equal(got, upTo(tt.each)) {
					t.Fatalf("member got %v", got)
				}
			}
			only(t, &hub.c, nil)
		})
	}
}

// TestPadding: up to the MTU, to multiples of 16 but no further, with zeros.
func TestPadding(t *testing.T) {
	a, b := sidePair(t)
	for _, mtu := range []int{1280, 1300, 1420} {
		a.tap.mtu = mtu
		for _, size := range []int{28, 32, 33, 48, 500, 1265, 1279, 1280, mtu - 1, mtu} {
			pkt := bytes.Repeat([]byte{0xff}, size)
			copy(pkt, udpPacket(a.ip4, b.ip4, size-28))
			got := a.seal(sideEpoch, b.node, pkt)
			if len(got) != 1 {
				t.Fatalf("%d datagrams", len(got))
			}
			padded := len(got[0]) - wg.Overhead
			if padded < size || padded > mtu || padded != mtu && padded%16 != 0 || padded-size > 15 {
				t.Errorf("MTU %d: %d bytes become %d", mtu, size, padded)
			}
			s := b.machine.Table().Acquire(got[0], 1)
			plain, _, err := s.Open(new(wg.Nonce), got[0])
			s.Release()
			if err != nil || !bytes.Equal(plain[:size], pkt) || len(bytes.TrimLeft(plain[size:], "\x00")) != 0 {
				t.Errorf("MTU %d, %d bytes: opens to %d, %v", mtu, size, len(plain), err)
			}
		}
	}
}

// TestSessionEndsInBatch: packets of a batch go under the session that it began with; its keys last until then. The next
// batch waits for a session.
func TestSessionEndsInBatch(t *testing.T) {
	a, b := sidePair(t)
	p := a.entry(b.node)
	a.out.begin(sideEpoch)
	a.out.add(p, numbered(a.ip4, b.ip4, 0, 100))
	a.machine.Drop(sideEpoch, p.wg)
	a.out.add(p, numbered(a.ip4, b.ip4, 1, 100))
	if a.machine.Tick(sideEpoch); a.machine.Counters().Wipe != 0 {
		t.Error("keys are wiped while a batch uses them")
	}
	a.out.flush()
	if a.machine.Tick(sideEpoch); a.machine.Counters().Wipe != 1 {
		t.Error("keys are not wiped")
	}
	b.take(sideEpoch, a.node, a.links[b.node].take()...)
	if got := numbers(b.got()); !slices.Equal(got, upTo(2)) {
		t.Errorf("arrived: %v", got)
	}
	if got := a.seal(sideEpoch, b.node, numbered(a.ip4, b.ip4, 2, 100)); len(got) != 0 {
		t.Error("sealed without a session")
	}
	message(t, a.machine.TakeNotes(sideEpoch), wg.ActInitiate) // it was asked for
	only(t, &a.c, nil)
	a.out.begin(sideEpoch)
	a.out.put(p, numbered(a.ip4, b.ip4, 3, 100))
	a.out.keepalive(p)
	a.out.flush()
	only(t, &a.c, map[reason]uint64{outNoSession: 1})
}

func TestExpiredSessionParks(t *testing.T) {
	a, b := sidePair(t)
	late := sideEpoch.Add(wg.RejectAfterTime)
	if got := a.seal(late.Add(-time.Second), b.node, numbered(a.ip4, b.ip4, 0, 100)); len(got) != 1 {
		t.Fatal("the session does not last")
	}
	if got := a.seal(late, b.node, numbered(a.ip4, b.ip4, 1, 100)); len(got) != 0 || a.tap.lot.order.Len() != 1 {
		t.Fatal("sealed under an old session")
	}
	shake(t, late.Add(5*time.Second), a, b)
	b.take(late, a.node, a.seal(late.Add(5*time.Second), b.node, numbered(a.ip4, b.ip4, 2, 100))...)
	got := numbers(b.got())
	if !slices.Equal(got, []int{1, 2}) {
		t.Errorf("arrived: %v", got)
	}
}

func TestSessionUsedUp(t *testing.T) {
	a, b := sidePair(t)
	p := a.entry(b.node)
	a.out.begin(sideEpoch)
	a.out.add(p, numbered(a.ip4, b.ip4, 0, 100))
	a.out.last.session.Reserve(-1 << 13) // counters wrap: all but 2^13 are taken
	a.out.add(p, numbered(a.ip4, b.ip4, 1, 100))
	a.out.flush()
	only(t, &a.c, map[reason]uint64{outUsedUp: 1})
	if got := len(a.links[b.node].take()); got != 1 {
		t.Errorf("%d datagrams", got)
	}
	if got := a.seal(sideEpoch, b.node, numbered(a.ip4, b.ip4, 2, 100)); len(got) != 0 {
		t.Error("sealed under a session that is used up")
	}
}

func TestKeepalive(t *testing.T) {
	a, b := sidePair(t)
	a.out.begin(sideEpoch)
	a.out.keepalive(a.entry(b.node))
	a.out.flush()
	got := a.links[b.node].take()
	if len(got) != 1 || len(got[0]) != wg.Overhead {
		t.Fatalf("%d datagrams", len(got))
	}
	b.take(sideEpoch, a.node, got...)
	if len(b.got()) != 0 || len(b.links[a.node].auth) != 2 { // with the first packet of the session
		t.Error("a keepalive is a packet, or does not authenticate its source")
	}
	only(t, &b.c, nil)
}

func TestSocketWithoutMember(t *testing.T) {
	a, b := sidePair(t)
	a.entry(b.node).link.Store(nil)
	a.seal(sideEpoch, b.node, numbered(a.ip4, b.ip4, 0, 100), numbered(a.ip4, b.ip4, 1, 100))
	only(t, &a.c, map[reason]uint64{outNoLink: 2})
	if got := a.entry(b.node).wg.Stats(a.machine.Clock(), sideEpoch).TxBytes; got != wg.Overhead {
		t.Errorf("%d bytes counted as sent", got)
	}
}

// TestConcurrentOutboxes seals for one session from several goroutines: no counter twice.
func TestConcurrentOutboxes(t *testing.T) {
	a, b := sidePair(t)
	p := a.entry(b.node)
	const senders, each = 4, 500
	done := make(chan struct{})
	for range senders {
		go func() {
			defer func() { done <- struct{}{} }()
			out := newOutbox(a.tap, stackArena)
			for i := range each {
				out.begin(sideEpoch)
				out.add(p, numbered(a.ip4, b.ip4, i, 60))
				out.flush()
			}
		}()
	}
	for range senders {
		<-done
	}
	b.take(sideEpoch, a.node, a.links[b.node].take()...)
	if got := len(b.got()); got != senders*each {
		t.Errorf("%d packets arrived", got)
	}
	only(t, &b.c, nil)
}

// wire gives what one side sends to the other at once, in its own memory.
type wire struct {
	to    *inbox
	from  datagram.Source
	buf   []byte
	train [1]datagram.Train
}

// SendAhead is Send: order is not what is tested with it.
func (w *wire) SendAhead(now time.Time, pkts [][]byte) { w.Send(now, pkts) }

func (w *wire) Send(now time.Time, pkts [][]byte) {
	for i := 0; i < len(pkts); { // equal ones lie together, as the socket sends them
		w.buf = w.buf[:0]
		size, whole := len(pkts[i]), true
		for ; whole && i < len(pkts) && len(pkts[i]) <= size; i++ {
			w.buf = append(w.buf, pkts[i]...)
			whole = len(pkts[i]) == size
		}
		w.train[0] = datagram.Train{Data: w.buf, Size: size, From: w.from}
		w.to.take(now, w.train[:])
	}
}

func (w *wire) SendAll(time.Time, []byte)                      {}
func (w *wire) Authenticated(time.Time, *datagram.Source, int) {}
func (w *wire) MaxSize() int                                   { return 0 }
