package magicsock

import (
	"time"
)

const (
	// doubtFor and doubtBytes bound how long and how much data goes by two paths.
	doubtFor   = 2 * time.Second
	doubtBytes = 1 << 20
	// goodEnough is the latency below which no better direct path is looked for.
	goodEnough = 5 * time.Millisecond
	// trustFor is how long data is sent on a path without a pong or an authenticated packet until it is asked. With doubtAfter,
	// data goes by the fallback too 0.65 s after the path was cut, as long as it is not slower than 50 ms.
	trustFor = 500 * time.Millisecond
	// deadAfter is how long a path was silent that some unanswered pings are the end of.
	deadAfter = time.Second
)

// The standings of a path, the best first: what it has shown of being fit for data.
const (
	standsProven   = iota // it answers, and datagrams of the full size pass
	standsExpected        // a relay server reaches the peer, or Intro and Welcome went by it
	standsSmall           // it answers, but not to the full size, or not yet
	standsNot
)

// standing of a path that is not in use.
func (p *path) standing() int {
	switch {
	case p.confirmed() && p.carries():
		return standsProven
	case !p.dead && (p.relay || p.vouch):
		return standsExpected
	case p.confirmed():
		return standsSmall
	}
	return standsNot
}

// held is the standing of the path in use: it is not left because its sizes are asked for anew.
func (p *path) held() int {
	if p.confirmed() && p.fit == fitUnknown {
		return standsProven
	}
	return p.standing()
}

// better reports whether path a should take the place of b, the one in use. Within a kind there is hysteresis: it must
// be a fifth and a millisecond cheaper. Between kinds latency does not count.
func better(a, b *path) bool {
	if b == nil {
		return a.standing() < standsNot
	}
	sa, sb := a.standing(), b.held()
	switch {
	case sa != sb:
		return sa < sb
	case a.rank() != b.rank():
		return a.rank() < b.rank() && sa < standsNot
	case sa != standsProven:
		return false
	}
	ca, cb := a.cost(), b.cost()
	return ca+time.Millisecond < cb && ca < cb*4/5
}

// choose makes the best path the peer's route, when it has changed.
func (c *core) choose(now time.Time, p *peer, reason string) {
	best := p.best
	for _, candidate := range p.paths {
		if candidate != best && better(candidate, best) {
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
	c.tell(Event{Type: EventPathChanged, Peer: p.id, Path: c.pathInfo(p, to), Old: c.pathInfo(p, from), Reason: reason})
	if from != nil && from.direct() && (to == nil || !to.direct()) {
		p.searchAnew(now)
	}
}

// fallback is the path that takes over from the one in use: the best of those that answer, else a relay server's. nil:
// there is none.
func (p *peer) fallback() *path {
	var second *path
	for _, candidate := range p.paths {
		if candidate == p.best || candidate.standing() == standsNot || candidate.vouch && !candidate.relay {
			continue
		}
		if second == nil || before(candidate, second) {
			second = candidate
		}
	}
	return second
}

// before orders paths without hysteresis.
func before(a, b *path) bool {
	switch sa, sb := a.standing(), b.standing(); {
	case sa != sb:
		return sa < sb
	case a.rank() != b.rank():
		return a.rank() < b.rank()
	}
	return a.cost() < b.cost()
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
		if at := p.overdueAt(); b.tries > 0 && !b.dead && !at.IsZero() && !now.Before(at) {
			c.doubtPath(now, p)
		}
		return
	}
	if now.Before(p.doubt.Add(doubtFor)) {
		if !now.Before(b.next) {
			c.ping(now, p, b)
		}
		return
	}
	b.die()
	if second := p.fallback(); second != nil {
		c.moveTo(now, p, second, "the path before it stopped answering")
		return
	}
	p.doubt = time.Time{}
	p.publish(nil)
	p.seek(now)
	c.probeAll(now, p)
}

// doubtPath has data go by the fallback as well, until something vouches for the best path or it is left.
func (c *core) doubtPath(now time.Time, p *peer) {
	p.doubt = now
	p.best.sizing = sizing{size: p.best.most()}
	p.publish(p.fallback())
	c.probe(now, p, p.best)
	c.probeAll(now, p)
	if p.active(now) {
		p.searchAnew(now)
	}
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
		if ping.path == b && !ping.asks && ping.at.Before(first) && ping.at.After(b.heard) {
			first = ping.at
		}
	}
	return first.Add(b.doubtAfter())
}
