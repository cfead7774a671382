package tunnel

import (
	"container/list"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// The lot's bounds.
const (
	lotPackets     = 64        // of one member
	lotMemberBytes = 128 << 10 // of one member
	lotBytes       = 4 << 20   // in all
	lotAge         = 10 * time.Second
)

// lot keeps packets for members without a session: parked ones, which the device has not seen, and copies of those it
// took but cannot have sent yet, so that Reset, which removes the peer with its queue, loses nothing.
// Guarded by mu; peers' states change only under it.
type lot struct {
	counters *counters
	queue    *queue // called without mu

	mu    sync.Mutex
	order list.List // of *waiting, oldest first
	bays  map[identity.PeerID]*bay
	bytes int
}

// bay is what waits for one member, oldest first. Its peer is kept, since a removed member is no longer in the table.
type bay struct {
	items []*list.Element
	bytes int
}

type waiting struct {
	id   identity.PeerID
	data []byte
	at   time.Time
	sent bool // the device has it
}

func newLot(c *counters, q *queue) *lot {
	return &lot{counters: c, queue: q, bays: make(map[identity.PeerID]*bay)}
}

type kept int

const (
	waits  kept = iota // parked
	copied             // goes to the device now; the lot has a copy
	passes             // goes to the device now
)

// keep stores a copy of pkt unless p's session is known to work.
func (l *lot) keep(p *peer, pkt []byte, now time.Time) kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := p.state.Load()
	if state == open || state == trying && p.heard.Load() {
		return passes
	}
	l.expire(now)
	verdict := waits
	if state == trying {
		verdict = copied
	}
	if len(pkt) > lotMemberBytes {
		if verdict == copied {
			return passes
		}
		l.counters.add(parkFull)
		return waits
	}
	b := l.bays[p.id]
	if b == nil {
		b = &bay{}
		l.bays[p.id] = b
	}
	for len(b.items) >= lotPackets || b.bytes+len(pkt) > lotMemberBytes {
		l.drop(b.items[0], parkFull)
	}
	for l.bytes+len(pkt) > lotBytes {
		l.drop(l.order.Front(), parkFull)
	}
	l.bays[p.id] = b // drop removes an empty bay
	w := &waiting{id: p.id, data: append([]byte(nil), pkt...), at: now, sent: state == trying}
	b.items = append(b.items, l.order.PushBack(w))
	b.bytes += len(pkt)
	l.bytes += len(pkt)
	return verdict
}

// drop removes one packet, which is the oldest of its member. Copies are no loss and are not counted.
func (l *lot) drop(e *list.Element, why reason) {
	w := l.order.Remove(e).(*waiting)
	b := l.bays[w.id]
	b.items[0] = nil
	b.items = b.items[1:]
	b.bytes -= len(w.data)
	l.bytes -= len(w.data)
	if len(b.items) == 0 {
		delete(l.bays, w.id)
	}
	if !w.sent {
		l.counters.add(why)
	}
}

// expire drops what is too old; mu is held.
func (l *lot) expire(now time.Time) {
	for e := l.order.Front(); e != nil && now.Sub(e.Value.(*waiting).at) > lotAge; e = l.order.Front() {
		l.drop(e, parkExpired)
	}
}

// sweep is expire for the owner's timer; it tells whether anything still waits.
func (l *lot) sweep(now time.Time) (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(now)
	return l.order.Len() > 0
}

// hold makes packets for p wait, also those the device took but did not send: the peer leaves the device.
func (l *lot) hold(p *peer) {
	defer l.queue.forget(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	p.state.Store(parked)
	p.heard.Store(false)
	if b := l.bays[p.id]; b != nil {
		for _, e := range b.items {
			e.Value.(*waiting).sent = false
		}
	}
}

// release gives the device what waits for p and lets later packets pass. Those that come while it works are parked
// behind the others, so that order is kept. It returns how many there were.
func (l *lot) release(p *peer, now time.Time) (count int) {
	for {
		batch, done := l.unsent(p, now)
		if done {
			return count
		}
		count += len(batch)
		for _, pkt := range batch {
			pkt.kept = p
			if !l.queue.push(pkt) {
				l.counters.add(outQueueFull)
				pkt.free()
			}
		}
	}
}

func (l *lot) unsent(p *peer, now time.Time) (batch []*packet, done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.state.Load() != parked {
		return nil, true
	}
	l.expire(now)
	if b := l.bays[p.id]; b != nil {
		for _, e := range b.items {
			if w := e.Value.(*waiting); !w.sent {
				w.sent = true
				batch = append(batch, copyPacket(w.data))
			}
		}
	}
	if len(batch) == 0 {
		p.state.Store(trying)
		return nil, true
	}
	return batch, false
}

// settle says that p has a session: its copies are not needed.
func (l *lot) settle(p *peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.state.Store(open)
	l.empty(p.id, parkRemoved)
}

// forget drops what waits for a member that is gone.
func (l *lot) forget(id identity.PeerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.empty(id, parkRemoved)
}

func (l *lot) empty(id identity.PeerID, why reason) {
	for b := l.bays[id]; b != nil; b = l.bays[id] {
		l.drop(b.items[0], why)
	}
}
