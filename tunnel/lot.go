package tunnel

import (
	"container/list"
	"sync"
	"time"
)

// The lot's bounds.
const (
	lotPackets     = 64        // of one member
	lotMemberBytes = 128 << 10 // of one member
	lotBytes       = 4 << 20   // in all
	lotAge         = 10 * time.Second
)

// lot keeps packets for members without a session, and those that come while they are let go, so that order is kept.
// Guarded by mu; peers' states change only under it.
type lot struct {
	counters *counters

	mu    sync.Mutex
	order list.List // of *waiting, oldest first
	bays  map[*peer]*bay
	bytes int
}

// bay is what waits for one member, oldest first.
type bay struct {
	items []*list.Element
	bytes int
}

type waiting struct {
	peer *peer
	data []byte
	at   time.Time
}

func newLot(c *counters) *lot {
	return &lot{counters: c, bays: make(map[*peer]*bay)}
}

// park keeps a copy of pkt and asks for a session. false: p has one by now and nothing waits, so the packet may go.
func (l *lot) park(p *peer, pkt []byte, now time.Time, at int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.state.Load() == open && p.wg.Ready(at) {
		return false
	}
	p.state.Store(parked)
	if !p.wg.Ready(at) {
		p.wg.Want()
	}
	l.expire(now)
	if len(pkt) > lotMemberBytes {
		l.counters.add(parkFull)
		return true
	}
	b := l.bays[p]
	if b == nil {
		b = &bay{}
	}
	for len(b.items) >= lotPackets || b.bytes+len(pkt) > lotMemberBytes {
		l.drop(b.items[0], parkFull)
	}
	for l.bytes+len(pkt) > lotBytes {
		l.drop(l.order.Front(), parkFull)
	}
	l.bays[p] = b // drop removes an empty bay
	w := &waiting{peer: p, data: append([]byte(nil), pkt...), at: now}
	b.items = append(b.items, l.order.PushBack(w))
	b.bytes += len(pkt)
	l.bytes += len(pkt)
	return true
}

// remove takes out one packet, which is the oldest of its member.
func (l *lot) remove(e *list.Element) *waiting {
	w := l.order.Remove(e).(*waiting)
	b := l.bays[w.peer]
	b.items[0] = nil
	b.items = b.items[1:]
	b.bytes -= len(w.data)
	l.bytes -= len(w.data)
	if len(b.items) == 0 {
		delete(l.bays, w.peer)
	}
	return w
}

func (l *lot) drop(e *list.Element, why reason) {
	l.remove(e)
	l.counters.add(why)
}

// expire drops what is too old; mu is held.
func (l *lot) expire(now time.Time) {
	for e := l.order.Front(); e != nil && now.Sub(e.Value.(*waiting).at) > lotAge; e = l.order.Front() {
		l.drop(e, parkExpired)
	}
}

// sweep is expire for a timer; it tells whether anything still waits.
func (l *lot) sweep(now time.Time) (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(now)
	return l.order.Len() > 0
}

// release hands what waits for p to send, oldest first, and then lets later packets pass. Those that come while it works
// are parked behind the others. It returns how many there were. send is called without the lock; the packets must have
// left when it returns, or later ones could overtake them.
func (l *lot) release(p *peer, now time.Time, send func(batch [][]byte)) (count int) {
	for {
		batch := l.next(p, now)
		if batch == nil {
			return count
		}
		send(batch)
		count += len(batch)
	}
}

// next takes out everything that waits for p now; when there is nothing, p is open.
func (l *lot) next(p *peer, now time.Time) (batch [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(now)
	for b := l.bays[p]; b != nil; b = l.bays[p] {
		batch = append(batch, l.remove(b.items[0]).data)
	}
	if batch == nil {
		p.state.Store(open)
	}
	return batch
}

// forget drops what waits for a member that is gone.
func (l *lot) forget(p *peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for b := l.bays[p]; b != nil; b = l.bays[p] {
		l.drop(b.items[0], parkRemoved)
	}
}
