package magicsock

import (
	"time"
)

const (
	// doubtFor and doubtBytes bound how long and how much data goes by two paths.
	doubtFor   = 2 * time.Second
	doubtBytes = 1 << 20
	// goodEnough is the latency below which no better path is looked for.
	goodEnough = 5 * time.Millisecond
	// upgradeEvery is how often a better path is looked for while data is sent.
	upgradeEvery = 60 * time.Second
	// trustFor is how long a pong vouches for a path that data is sent on.
	trustFor = time.Second
)

// better reports whether path a should take the place of b, with hysteresis: it must be a fifth and a millisecond
// cheaper, or b must have stopped answering.
func better(a, b *path) bool {
	switch {
	case b == nil:
		return true
	case !a.confirmed():
		return false
	case !b.confirmed():
		return true
	}
	ca, cb := a.cost(), b.cost()
	return ca+time.Millisecond < cb && ca < cb*4/5
}

// choose makes the best path the peer's route, when it has changed.
func (c *core) choose(now time.Time, p *peer, reason string) {
	best := p.best
	for _, candidate := range p.paths {
		if candidate != best && (candidate.confirmed() || candidate.vouch) && better(candidate, best) {
			best = candidate
		}
	}
	if best != p.best {
		c.moveTo(now, p, best, reason)
	}
}

// moveTo switches the peer's data to a path, or to none.
func (c *core) moveTo(now time.Time, p *peer, to *path, reason string) {
	c.syncTrust(p)
	from := p.best
	p.best, p.doubt, p.reason = to, time.Time{}, reason
	if to != nil {
		to.since = now
		p.handle.trusted.Store(p.handle.stamp(to.heard))
	}
	p.publish(nil)
	c.tell(Event{Type: EventPathChanged, Peer: p.id, Path: pathInfo(to), Old: pathInfo(from), Reason: reason})
}

// fallback is the best confirmed path besides the one in use.
func (p *peer) fallback() *path {
	var second *path
	for _, candidate := range p.paths {
		if candidate == p.best || !candidate.confirmed() {
			continue
		}
		if second == nil || candidate.cost() < second.cost() {
			second = candidate
		}
	}
	return second
}

// checkTrust acts on a best path whose pong is overdue: first doubt, then a move. It is called when the deadline
// that nextDue named has come.
func (c *core) checkTrust(now time.Time, p *peer) {
	b := p.best
	if b == nil {
		return
	}
	c.syncTrust(p)
	if p.doubt.IsZero() {
		if at := p.overdueAt(); b.tries == 0 || at.IsZero() || now.Before(at) {
			return
		}
		p.doubt = now
		p.publish(p.fallback())
		c.probe(now, p, b)
		c.probeAll(now, p)
		return
	}
	if now.Before(p.doubt.Add(doubtFor)) {
		if !now.Before(b.next) {
			c.ping(now, p, b)
		}
		return
	}
	b.dead = true
	if second := p.fallback(); second != nil {
		c.moveTo(now, p, second, "the path before it stopped answering")
		return
	}
	p.doubt = time.Time{}
	p.publish(nil)
	p.seek(now)
	c.probeAll(now, p)
}

// overdueAt is when the pong to the oldest ping on the best path since anything vouched for it is overdue; zero when
// something has vouched for the path since the last ping.
func (p *peer) overdueAt() time.Time {
	b := p.best
	if !b.lastPing.After(b.heard) {
		return time.Time{}
	}
	first := b.lastPing
	for _, ping := range p.pings {
		if ping.path == b && ping.at.Before(first) && ping.at.After(b.heard) {
			first = ping.at
		}
	}
	return first.Add(b.doubtAfter())
}
