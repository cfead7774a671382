package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/netmap"
)

const (
	// seekFor is how long a peer that is wanted is looked for without being wanted again.
	seekFor = 5 * time.Second
	// idleAfter is how long after the last packet a path is kept open, and a better one looked for.
	idleAfter = 2 * time.Minute
)

// peer is what core knows of one member. Owned by core; its handle is shared with the packet path.
type peer struct {
	id     identity.PeerID
	disco  identity.DiscoKey
	handle *handle
	keys   []pairKeys // one per network key, newest first; made at first use
	known  bool       // in the network map; false: provisional, being admitted or joining us
	home   bool       // a home of ours: its path is kept open
	nat    netmap.NAT // in front of it, as it says

	paths  map[way]*path
	best   *path
	pings  map[disco.TxID]sentPing
	seen   *txMemory     // pings; nil until one came
	probes bucket.Bucket // pings to addresses that it named and nobody confirmed

	usedAt    time.Time // it became a peer, or one of us looked for the other; what data tells is in handle
	wantedAt  time.Time // packets for it waited then
	theyWant  time.Time // its last fresh message said that it looks for us
	reachTold time.Time // Event Reachable went out then
	seeking
	warmAt time.Time // the path in use is kept open by a ping then; zero: no need
	run
	relaying
	guessing

	doubt  time.Time // the best path is in doubt since then
	reason string    // why the best path is the best

	due   time.Time // deadline in core.timers
	index int       // position there; -1: none
}

// run is what a peer's pongs told of its process. Known after the first.
type run struct {
	boot       disco.BootID
	bootKnown  bool
	clock      time.Duration // its clock minus ours
	clockKnown bool
	hours      int64 // its clock minus the mesh's, in whole hours
}

// pairKeys seal and open contact packets with one peer under one network key.
type pairKeys struct {
	kid        [4]byte
	secret     identity.Secret
	seal, open disco.Key
}

// wanted reports whether we have packets for the peer and no session yet.
func (p *peer) wanted(now time.Time) bool {
	return !p.wantedAt.IsZero() && now.Sub(p.wantedAt) < seekFor
}

// inUse reports whether data went or came a moment ago.
func (p *peer) inUse(now time.Time) bool {
	at := p.handle.at(p.handle.used.Load())
	return !at.IsZero() && now.Sub(at) < idleAfter
}

// active reports whether a path to the peer is worth packets without data.
func (p *peer) active(now time.Time) bool {
	return p.known && (p.home || p.wanted(now) || p.inUse(now))
}

// seek makes the peer wanted; after a pause, all its addresses are tried quickly again.
func (p *peer) seek(now time.Time) {
	if !p.wanted(now) {
		for _, path := range p.paths {
			if !path.confirmed() {
				path.anew()
			}
		}
		p.searchAnew(now)
	}
	p.usedAt, p.wantedAt = now, now
}

// lastHeard is when a pong or an authenticated packet came last, by whatever path.
func (p *peer) lastHeard() (last time.Time) {
	for _, path := range p.paths {
		if path.heard.After(last) {
			last = path.heard
		}
	}
	return last
}

// addPath returns the path by a way, made where it is new. nil: it cannot be one, or there are too many.
func (c *core) addPath(p *peer, by way) *path {
	if existing := p.paths[by]; existing != nil {
		return existing
	}
	if by.relay == by.addr.IsValid() || len(p.paths) >= maxPaths && !c.dropWorst(p) {
		return nil
	}
	fresh := newPath(by)
	p.paths[by] = fresh
	return fresh
}

// dropWorst makes room by forgetting a path that never answered, or answered longest ago.
func (c *core) dropWorst(p *peer) bool {
	var worst *path
	for _, candidate := range p.paths {
		if candidate == p.best || !candidate.direct() || candidate.vouch {
			continue
		}
		if worst == nil || candidate.heard.Before(worst.heard) ||
			candidate.heard.Equal(worst.heard) && candidate.tries > worst.tries {
			worst = candidate
		}
	}
	if worst == nil {
		return false
	}
	c.removePath(p, worst)
	return true
}

// removePath forgets a path that is not the best.
func (c *core) removePath(p *peer, gone *path) {
	delete(p.paths, gone.way)
	for id, ping := range p.pings {
		if ping.path == gone {
			delete(p.pings, id)
		}
	}
	p.handle.hide(gone)
	if gone.sid != 0 {
		c.publishSession(gone.way, false)
	}
	c.releaseSocket(p, gone)
}

// dropPath forgets a path that leads nowhere any more, and has data go by another at once.
func (c *core) dropPath(now time.Time, p *peer, gone *path, reason string) {
	c.removePath(p, gone)
	switch {
	case p.best == gone:
		c.moveTo(now, p, p.fallback(), reason)
		p.searchAnew(now)
	default:
		p.republish()
	}
	c.schedule(now, p)
}

func legOf(p *path) leg {
	return leg{line: line{p.way, p.local}, whole: p.whole(), most: p.most(), meter: p.meter}
}

// republish is publish for as much doubt as there is.
func (p *peer) republish() {
	if p.doubt.IsZero() {
		p.publish(nil)
		return
	}
	p.publish(p.fallback())
}

// publish hands the packet path its snapshot: the best path, and a second one while the first is in doubt.
func (p *peer) publish(also *path) {
	if p.best == nil {
		p.handle.route.Store(nil)
		return
	}
	r := &route{first: legOf(p.best), shaky: !p.doubt.IsZero() || p.best.dead || p.best.heard.IsZero()}
	p.handle.show(p.best)
	if also != nil {
		r.second, r.double = legOf(also), true
		r.budget.Store(doubtBytes)
		p.handle.show(also)
	}
	p.handle.route.Store(r)
}
