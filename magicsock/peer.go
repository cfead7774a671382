package magicsock

import (
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
)

// seekFor is how long a peer that is wanted is looked for without being wanted again.
const seekFor = 5 * time.Second

// peer is what core knows of one member. Owned by core; its endpoint is shared with the packet path.
type peer struct {
	id    identity.PeerID
	disco identity.DiscoKey
	ep    *endpoint
	keys  []pairKeys // one per network key, newest first; made at first use
	known bool       // in the network map; false: provisional, being admitted or joining us

	paths map[netip.AddrPort]*path // the relay leg under the zero address
	best  *path
	pings map[disco.TxID]sentPing
	seen  txMemory
	heard time.Time // last pong of ours that came back

	wantedAt   time.Time // packets for it waited then
	theyWant   time.Time // its last fresh message said that it wants a session
	contactAt  time.Time // first pong since it was wanted
	told       bool      // Event Contact with Initiate went out since contactAt
	ready      bool      // our device knows it
	lastTold   time.Time // Event Contact on its wish went out then
	lastReset  time.Time
	boot       disco.BootID
	bootKnown  bool
	clock      time.Duration // its clock minus ours
	clockKnown bool
	hours      int64 // its clock minus the mesh's, in whole hours

	doubt       time.Time // the best path is in doubt since then
	lastUpgrade time.Time
	reason      string // why the best path is the best
	held        []byte // an initiation that waits for the pong from its path
	heldFrom    netip.AddrPort
	heldAt      time.Time

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
		p.contactAt, p.told = time.Time{}, false
		for _, path := range p.paths {
			if !path.confirmed() {
				path.tries, path.next = 0, time.Time{}
			}
		}
	}
	p.wantedAt = now
}

// addPath returns the path to addr, made where it is new. nil: there are too many.
func (c *core) addPath(p *peer, addr netip.AddrPort) *path {
	if existing := p.paths[addr]; existing != nil {
		return existing
	}
	if len(p.paths) >= maxPaths && !c.dropWorst(p) {
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
		if worst == nil || candidate.lastPong.Before(worst.lastPong) ||
			candidate.lastPong.Equal(worst.lastPong) && candidate.tries > worst.tries {
			worst = candidate
		}
	}
	if worst == nil {
		return false
	}
	c.forgetPath(p, worst)
	return true
}

// forgetPath drops a path with everything that leads to it.
func (c *core) forgetPath(p *peer, old *path) {
	delete(p.paths, old.addr)
	if c.byAddr[old.addr] == p {
		delete(c.byAddr, old.addr)
		c.addrDirty = true
	}
}

// publish hands the packet path its snapshot: the best path, and a second one while the first is in doubt.
func (p *peer) publish(also *path) {
	if p.best == nil {
		p.ep.route.Store(nil)
		return
	}
	r := &route{to: p.best.addr, src: p.best.local, relay: p.best.relay}
	if also != nil {
		r.also, r.alsoSrc, r.alsoRelay, r.double = also.addr, also.local, also.relay, true
		r.budget.Store(doubtBytes)
	}
	p.ep.route.Store(r)
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
		if !p.contactAt.IsZero() && !p.told {
			sooner(p.contactAt.Add(readyWait))
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
	return due
}
