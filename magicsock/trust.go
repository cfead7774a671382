package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	// trustStep is how coarse the time of the last authenticated packet is.
	trustStep = 50 * time.Millisecond
	// tellEvery bounds how often core hears that authenticated packets come by another path than the route.
	tellEvery = 100 * time.Millisecond
	// silentFor is how long the best path may be silent, while packets come by another, before it is asked: a peer that
	// moved without noticing is followed in half a second.
	silentFor = 300 * time.Millisecond
)

// Authenticated takes what the data path knows of a train: it came from the peer. By the route, that is trust in it;
// core only hears of it while it doubts the route. By another path, core hears of it at most every tellEvery.
func (h *handle) Authenticated(now time.Time, from *datagram.Source, size int) {
	by, r := wayOf(from), h.route.Load()
	h.count(by, r, size)
	if named, ours := from.Relay.(*handle); from.Relay != nil && (!ours || named.id != h.id) {
		return // the relay names another sender: that says nothing of a path of this one
	}
	stamp := h.stamp(now)
	h.use(stamp)
	if r != nil && r.first.way == by {
		if stamp-h.trusted.Load() >= int64(trustStep) {
			h.trusted.Store(stamp)
		}
		if !r.shaky {
			return
		}
	} else {
		last := h.told.Load()
		if last != 0 && stamp-last < int64(tellEvery) || !h.told.CompareAndSwap(last, stamp) {
			return
		}
	}
	h.conn.doAt(now, func(core *core) {
		if p := core.peerByKey(now, h.wg); p != nil {
			core.authenticated(now, p, lineOf(from))
		}
	})
}

// authenticated notes that a path brought packets that only the peer can have sealed. A healthy best path keeps the
// data; one that is in doubt, or that nothing vouches for, gives way at once.
func (c *core) authenticated(now time.Time, p *peer, from line) {
	path := c.addPath(p, from.way)
	if path == nil {
		c.count.pathsFull.Add(1)
		return
	}
	if path != p.best {
		c.syncTrust(p)
	}
	p.handle.show(path)
	proven := path.confirmed()
	path.heard, path.local, path.dead = now, from.local, false
	p.usedAt = now
	switch {
	case path == p.best:
		p.doubt = time.Time{}
		p.handle.trusted.Store(p.handle.stamp(now))
		p.publish(nil) // which is not shaky any more
	case !p.healthy(now):
		c.moveTo(now, p, path, "the peer's packets come by it")
	case p.known && now.Sub(p.best.heard) >= silentFor:
		c.probe(now, p, p.best)
	}
	if p.known && !proven {
		c.probe(now, p, path)
	}
	c.schedule(now, p)
}

// healthy reports whether something vouches for the best path and nothing speaks against it.
func (p *peer) healthy(now time.Time) bool {
	b := p.best
	return b != nil && p.doubt.IsZero() && !b.dead && (b.confirmed() || now.Sub(b.heard) < deadAfter)
}

// syncTrust takes over what the packet path has noted of the best path since. Whatever decides on trust calls it first.
// Pings that went unanswered while authenticated packets arrived do not count against a path that did answer once.
func (c *core) syncTrust(p *peer) {
	b := p.best
	if b == nil {
		return
	}
	if at := p.handle.at(p.handle.trusted.Load()); at.After(b.heard) {
		b.heard = at
		b.dead = b.dead && !at.After(b.lastPing)
	}
	if b.tries > 0 && b.confirmed() && b.heard.After(b.lastPing) {
		b.tries = 0
	}
}
