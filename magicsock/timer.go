package magicsock

import (
	"container/heap"
	"time"
)

// peerHeap orders the peers that have a deadline by it.
type peerHeap []*peer

func (h peerHeap) Len() int           { return len(h) }
func (h peerHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h peerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *peerHeap) Push(x any) {
	p := x.(*peer)
	p.index = len(*h)
	*h = append(*h, p)
}

// Pop is for container/heap.
func (h *peerHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	p.index = -1
	return p
}

// schedule puts the peer's next deadline into the heap.
func (c *core) schedule(now time.Time, p *peer) {
	due := p.nextDue(now)
	switch {
	case due.IsZero() && p.index >= 0:
		heap.Remove(&c.timers, p.index)
	case due.IsZero():
	case p.index >= 0:
		p.due = due
		heap.Fix(&c.timers, p.index)
	default:
		p.due = due
		heap.Push(&c.timers, p)
	}
}

// nextDeadline is when tick wants to be called; zero: never.
func (c *core) nextDeadline() time.Time {
	if len(c.timers) == 0 {
		return time.Time{}
	}
	return c.timers[0].due
}

// minStep keeps a deadline that was just handled from coming again at once.
const minStep = 5 * time.Millisecond

// tick handles every deadline that has come.
func (c *core) tick(now time.Time) {
	for len(c.timers) > 0 && !c.timers[0].due.After(now) {
		p := c.timers[0]
		for id, ping := range p.pings {
			if now.Sub(ping.at) >= pingTimeout {
				delete(p.pings, id)
			}
		}
		c.checkTrust(now, p)
		c.checkContact(now, p)
		if c.forget(now, p) {
			continue
		}
		c.schedule(now, p)
		if p.index >= 0 && !p.due.After(now) {
			p.due = now.Add(minStep)
			heap.Fix(&c.timers, p.index)
		}
	}
}
