package wg

import (
	"container/heap"
	"slices"
	"time"
)

// examine does what is due for a peer.
func (m *Machine) examine(now time.Time, p *Peer) {
	a, at := p.active, m.clock.At(now)
	m.expire(p, a, at)
	if since := p.unheard(); since != 0 && at-since >= int64(unheardTimeout) {
		p.waiting.Store(0) // counted again from the next packet on
		m.begin(now, p)
	}
	if since := p.owes(); since != 0 && at-since >= int64(KeepaliveTimeout) {
		p.owing.Store(0)
		if p.Ready(at) {
			m.act(Action{Kind: ActKeepalive, Peer: p})
		}
	}
	if p.unheard() == 0 && p.owes() == 0 {
		p.armed.Store(false)
		if p.unheard() != 0 || p.owes() != 0 { // it came between
			p.armed.Store(true)
		}
	}
	if a.trying && !now.Before(a.nextTry) {
		m.try(now, p, a)
	}
	if !a.trying && !now.Before(a.linger) {
		m.forgetFirst(a, len(a.pending))
	}
	m.settle(now, p)
}

// expire retires the sessions that are too old.
func (m *Machine) expire(p *Peer, a *active, at int64) {
	old := func(s *Session) bool { return at-s.born >= int64(RejectAfterTime) }
	if s := p.current.Load(); s != nil && old(s) {
		p.current.Store(nil)
		m.retire(s)
		m.count.SessionsExpired++
	}
	gone := func(s *Session) bool {
		if old(s) {
			m.retire(s)
			return true
		}
		return false
	}
	a.previous = slices.DeleteFunc(a.previous, gone)
	a.next = slices.DeleteFunc(a.next, gone)
}

// settle lets go of a peer that has nothing any more, and otherwise sets its deadline.
func (m *Machine) settle(now time.Time, p *Peer) {
	a := p.active
	if a == nil {
		return
	}
	if p.current.Load() == nil && len(a.previous) == 0 && len(a.next) == 0 && !a.trying {
		m.drop(p)
		return
	}
	m.schedule(now, p)
}

// dueAt is when a peer has to be looked at.
func (m *Machine) dueAt(now time.Time, p *Peer, a *active) time.Time {
	var due time.Time
	sooner := func(t time.Time) {
		if due.IsZero() || t.Before(due) {
			due = t
		}
	}
	expiry := func(s *Session) { sooner(m.clock.Time(s.born).Add(RejectAfterTime)) }
	if s := p.current.Load(); s != nil {
		expiry(s)
	}
	for _, s := range a.previous {
		expiry(s)
	}
	for _, s := range a.next {
		expiry(s)
	}
	switch {
	case a.trying:
		sooner(a.nextTry)
	case len(a.pending) > 0:
		sooner(a.linger)
	}
	if p.armed.Load() {
		sooner(now.Add(KeepaliveTimeout)) // whatever begins to count until then is in time
		if since := p.unheard(); since != 0 {
			sooner(m.clock.Time(since).Add(unheardTimeout))
		}
		if since := p.owes(); since != 0 {
			sooner(m.clock.Time(since).Add(KeepaliveTimeout))
		}
	}
	return due
}

// schedule sets a peer's deadline.
func (m *Machine) schedule(now time.Time, p *Peer) {
	a := p.active
	due := m.dueAt(now, p, a)
	switch {
	case due.IsZero():
		m.unschedule(p)
	case a.heapAt >= 0:
		a.due = due
		heap.Fix(&m.timers, a.heapAt)
	default:
		a.due = due
		heap.Push(&m.timers, p)
	}
}

func (m *Machine) unschedule(p *Peer) {
	if p.active.heapAt >= 0 {
		heap.Remove(&m.timers, p.active.heapAt)
	}
}

// timerHeap orders peers by deadline.
type timerHeap []*Peer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].active.due.Before(h[j].active.due) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].active.heapAt, h[j].active.heapAt = i, j
}

// Push is for container/heap.
func (h *timerHeap) Push(x any) {
	p := x.(*Peer)
	p.active.heapAt = len(*h)
	*h = append(*h, p)
}

// Pop is for container/heap.
func (h *timerHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	p.active.heapAt = -1
	return p
}
