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
	due := c.serving.table.Due()
	if len(c.timers) > 0 && (due.IsZero() || c.timers[0].due.Before(due)) {
		due = c.timers[0].due
	}
	return due
}

// nextDue is when the timer must look at this peer again; zero: only when something happens.
func (p *peer) nextDue(now time.Time) time.Time {
	var due time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	active := p.active(now)
	for _, path := range p.paths {
		sooner(path.nextSize)
		if !path.confirmed() && p.probing(now, path, active) {
			sooner(path.next)
		}
	}
	if p.wanted(now) {
		sooner(p.wantedAt.Add(seekFor))
	}
	if active {
		sooner(p.nextRound)
	}
	if p.best != nil {
		switch {
		case !p.doubt.IsZero():
			sooner(p.doubt.Add(doubtFor))
			sooner(p.best.next)
		case p.best.tries > 0 && !p.best.dead && len(p.pings) > 0:
			sooner(p.overdueAt())
		}
	}
	for _, ping := range p.pings {
		sooner(ping.at.Add(pingTimeout))
	}
	sooner(p.warmAt)
	sooner(p.viaDue)
	sooner(p.guessDue)
	if !p.punch.IsZero() {
		sooner(p.punch.Add(punchFor))
	}
	if p.forgettable() {
		sooner(p.lastUsed().Add(forgetAfter))
	}
	return due
}

// probing reports whether a path that does not answer is pinged again when its backoff is over.
func (p *peer) probing(now time.Time, path *path, active bool) bool {
	return p.wanted(now) || active && path.dead && path.direct() && path.recent(now) && !p.settled()
}

// minStep keeps a deadline that was just handled from coming again at once.
const minStep = 5 * time.Millisecond

// tick handles every deadline that has come.
func (c *core) tick(now time.Time) {
	c.serving.table.Tick(now)
	for len(c.timers) > 0 && !c.timers[0].due.After(now) {
		p := c.timers[0]
		for id, ping := range p.pings {
			if now.Sub(ping.at) >= pingTimeout {
				delete(p.pings, id)
				if !ping.asks {
					ping.path.lost()
				}
			}
		}
		c.checkTrust(now, p)
		c.checkSizes(now, p)
		c.checkSearch(now, p)
		c.checkWarm(now, p)
		c.checkOutcomes(now, p)
		c.checkVias(now, p)
		c.checkGuess(now, p)
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
