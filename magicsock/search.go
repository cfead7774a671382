package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/identity"
)

// A search goes on while data is sent and the path is not direct, or is slow. Each round pings every candidate and, while
// nothing between us works, calls the other side to do the same (call.go):
//
//	not direct: after 0, 0.5, 1.5, 4, 10 and 30 s, then every 30 to 60 s, for ever
//	direct:     every 60 s, unless it answers within 5 ms
//	            or hardly carries anything
//
// In between, what answered in the last ten minutes is pinged every 1.5 seconds, so that a path that was cut is back as
// soon as it works; and what somebody waits for, with a backoff.

const (
	// upgradeEvery is how often a better path than a direct one is looked for.
	upgradeEvery = 60 * time.Second
	// worthSearch is how many bytes a direct path has to carry between two rounds for a better one to be worth packets:
	// signs of life do not count as use.
	worthSearch = 4096
	// warmEvery is how often a path is kept open, less up to a fifth: NATs forget after 30 s at the earliest.
	warmEvery = 25 * time.Second
)

// searchSteps are the waits after the first rounds of a search.
var searchSteps = [...]time.Duration{
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 6 * time.Second, 20 * time.Second,
}

// seeking is where the search for a better path stands.
type seeking struct {
	rounds    int
	carried   uint64    // bytes by the best path, at the last round
	nextRound time.Time // zero: the search begins with the next data
	calling
}

// searchAnew has the next round be the first.
func (p *peer) searchAnew(now time.Time) { p.rounds, p.nextRound = 0, now }

// settled reports whether nothing better than the path in use is worth looking for often.
func (p *peer) settled() bool {
	b := p.best
	return b != nil && b.direct() && b.confirmed() && b.fit != fitSmall && p.doubt.IsZero()
}

// checkSearch begins a round when its time has come.
func (c *core) checkSearch(now time.Time, p *peer) {
	switch {
	case !p.active(now):
		p.nextRound = time.Time{}
		return
	case p.nextRound.IsZero():
		if p.searchAnew(now); p.settled() {
			p.nextRound = now.Add(upgradeEvery)
		}
	}
	if !now.Before(p.nextRound) {
		c.round(now, p)
	}
	c.probeRecent(now, p)
	if p.wanted(now) && (p.best == nil || !p.best.confirmed()) {
		c.probeAll(now, p)
	}
}

// round looks for a better path once.
func (c *core) round(now time.Time, p *peer) {
	wait := upgradeEvery
	c.prune(now, p)
	switch {
	case p.settled() && !p.worthSearch():
	case p.settled():
		if p.best.rtt > goodEnough && p.inUse(now) {
			c.probeAll(now, p)
		}
		c.proveAgain(now, p, p.best)
	default:
		c.call(now, p)
		for _, path := range p.paths {
			if !path.confirmed() {
				path.next = time.Time{}
			}
		}
		c.probeAll(now, p)
		wait = upgradeEvery/2 + time.Duration(c.rand.Float64()*float64(upgradeEvery/2))
		if p.rounds < len(searchSteps) {
			wait = searchSteps[p.rounds]
		}
	}
	p.rounds++
	p.nextRound = now.Add(wait)
}

// worthSearch reports whether the path in use carried more than signs of life since the last round.
func (p *peer) worthSearch() bool {
	t := p.best.meter.traffic()
	before := p.carried
	p.carried = t.Rx + t.Tx
	return p.carried < before || p.carried-before >= worthSearch
}

// probeRecent pings what stopped answering not long ago.
func (c *core) probeRecent(now time.Time, p *peer) {
	if p.settled() {
		return
	}
	for _, path := range p.paths {
		if path != p.best && path.dead && path.direct() && path.recent(now) {
			c.probe(now, p, path)
		}
	}
}

// checkWarm keeps the path in use open while there is data now and then, and that to a home always.
func (c *core) checkWarm(now time.Time, p *peer) {
	if p.best == nil || p.best.relay || !p.home && !p.inUse(now) {
		p.warmAt = time.Time{}
		return
	}
	c.syncTrust(p)
	jitter := time.Duration(c.rand.Float64() * float64(warmEvery/5))
	quiet := p.best.heard
	if p.best.lastPing.After(quiet) {
		quiet = p.best.lastPing
	}
	if now.Sub(quiet) >= warmEvery*4/5 && !p.warmAt.IsZero() && !now.Before(p.warmAt) {
		c.probe(now, p, p.best)
		quiet = now
	}
	if p.warmAt.IsZero() || !now.Before(p.warmAt) {
		p.warmAt = quiet.Add(warmEvery - jitter)
	}
}

// setHomes takes the members whose paths are kept open.
func (c *core) setHomes(now time.Time, ids []identity.PeerID) {
	homes := make(map[identity.PeerID]bool, len(ids))
	for _, id := range ids {
		homes[id] = true
	}
	c.homes = homes
	for id, p := range c.peers {
		if p.home && !homes[id] {
			p.home = false
			c.schedule(now, p)
		}
	}
	c.meetHomes(now)
}

// meetHomes begins to look for the homes that are members.
func (c *core) meetHomes(now time.Time) {
	for id := range c.homes {
		p := c.peer(now, id)
		if p == nil || !p.known || p.home {
			continue
		}
		p.home, p.usedAt = true, now
		p.searchAnew(now)
		c.schedule(now, p)
	}
}
