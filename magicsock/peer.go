package magicsock

import (
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
)

// seekFor is how long a peer that is wanted is looked for without being wanted again.
const seekFor = 5 * time.Second

// peer is what core knows of one member. Owned by core; its handle is shared with the packet path.
type peer struct {
	id     identity.PeerID
	disco  identity.DiscoKey
	handle *handle
	keys   []pairKeys // one per network key, newest first; made at first use
	known  bool       // in the network map; false: provisional, being admitted or joining us

	paths map[netip.AddrPort]*path // the relay leg under the zero address
	best  *path
	pings map[disco.TxID]sentPing
	seen  *txMemory // nil until a ping came

	usedAt     time.Time // it became a peer, or one of us looked for the other; what data tells is in handle
	wantedAt   time.Time // packets for it waited then
	theyWant   time.Time // its last fresh message said that it looks for us
	reachTold  time.Time // Event Reachable went out then
	boot       disco.BootID
	bootKnown  bool
	clock      time.Duration // its clock minus ours
	clockKnown bool
	hours      int64 // its clock minus the mesh's, in whole hours

	doubt       time.Time // the best path is in doubt since then
	lastUpgrade time.Time
	reason      string // why the best path is the best

	due   time.Time // deadline in core.timers
	index int       // position there; -1: none
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

// seek makes the peer wanted; after a pause, all its addresses are tried quickly again.
func (p *peer) seek(now time.Time) {
	if !p.wanted(now) {
		for _, path := range p.paths {
			if !path.confirmed() {
				path.tries, path.next, path.inits = 0, time.Time{}, 0
			}
		}
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

// addPath returns the path to addr, made where it is new. nil: it cannot be one, or there are too many.
func (c *core) addPath(p *peer, addr netip.AddrPort) *path {
	if existing := p.paths[addr]; existing != nil {
		return existing
	}
	if !addr.IsValid() || len(p.paths) >= maxPaths && !c.dropWorst(p) { // no address: a relay leg that there is not
		return nil
	}
	fresh := &path{addr: addr}
	p.paths[addr] = fresh
	return fresh
}

// dropWorst makes room by forgetting a path that never answered, or answered longest ago.
func (c *core) dropWorst(p *peer) bool {
	var worst *path
	for _, candidate := range p.paths {
		if candidate == p.best || candidate.relay || candidate.vouch {
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
	delete(p.paths, worst.addr)
	return true
}

// publish hands the packet path its snapshot: the best path, and a second one while the first is in doubt.
func (p *peer) publish(also *path) {
	if p.best == nil {
		p.handle.route.Store(nil)
		return
	}
	r := &route{
		to: p.best.addr, src: p.best.local, relay: p.best.relay,
		shaky: !p.doubt.IsZero() || p.best.dead || p.best.heard.IsZero(),
	}
	if also != nil {
		r.also, r.alsoSrc, r.alsoRelay, r.double = also.addr, also.local, also.relay, true
		r.budget.Store(doubtBytes)
	}
	p.handle.route.Store(r)
}

// nextDue is when the timer must look at this peer again; zero: only when something happens.
func (p *peer) nextDue(now time.Time) time.Time {
	var due time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	if p.wanted(now) {
		sooner(p.wantedAt.Add(seekFor))
		for _, path := range p.paths {
			if !path.confirmed() {
				sooner(path.next)
			}
		}
	}
	if p.best != nil {
		switch {
		case !p.doubt.IsZero():
			sooner(p.doubt.Add(doubtFor))
			sooner(p.best.next)
		case p.best.tries > 0 && p.best.tries < quickTries && len(p.pings) > 0:
			sooner(p.overdueAt())
		}
	}
	for _, ping := range p.pings {
		sooner(ping.at.Add(pingTimeout))
	}
	if p.forgettable() {
		sooner(p.lastUsed().Add(forgetAfter))
	}
	return due
}
