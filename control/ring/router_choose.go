package ring

import (
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// launch sends a signal to the best next hop that was not tried, or reports that there is none.
func (r *Router) launch(now time.Time, p *pending, a *Actions) bool {
	for p.tries < maxTries {
		id, ok := r.choose(now, p)
		if !ok {
			return false
		}
		p.avoid = append(p.avoid, id)
		n := r.neighbour(now, id)
		if p.own() && n != nil && !n.own.Take(now, rateOrigin, rateOrigin) {
			continue // it would only be dropped there
		}
		p.tries++
		p.next = id
		f := &signalFrame{kindSignal, p.body, p.sig, p.ttl, p.key.way}
		a.Sends = append(a.Sends, Send{id, f.encode()})
		r.memory.wait(now, p)
		if p.own() {
			r.counts[sent]++
		}
		return true
	}
	return false
}

// choose finds the next hop. Those who lately stayed silent come last.
func (r *Router) choose(now time.Time, p *pending) (identity.PeerID, bool) {
	for _, slow := range []bool{false, true} {
		may := func(id identity.PeerID) bool {
			if id == p.from || id == p.key.origin || slices.Contains(p.avoid, id) {
				return false
			}
			n := r.near[id]
			return (slow || n == nil || !now.Before(n.slow)) && !(p.own() && r.noted.isDeadEnd(now, id, p.target))
		}
		if id, ok := r.best(p, may); ok {
			return id, true
		}
	}
	return identity.PeerID{}, false
}

// best is the session to send p over, of those that may carry it: that with the target itself, else
//
//	Full mode    of this node's own: somebody it is reached well through, or anybody. Of others: nobody
//	Ringed mode  the nearest to the target on the side of the way, or for a second try of this node anybody
func (r *Router) best(p *pending, may func(identity.PeerID) bool) (identity.PeerID, bool) {
	if _, ok := r.sessions[p.target]; ok && may(p.target) {
		return p.target, true
	}
	switch {
	case r.view.Mode == Full && !p.own():
		return identity.PeerID{}, false
	case r.view.Mode == Full:
		if r.view.Prefer != nil {
			for _, id := range r.view.Prefer(p.target) {
				if _, ok := r.sessions[id]; ok && may(id) {
					return id, true
				}
			}
		}
		return r.anybody(may)
	case p.roam:
		return r.anybody(may)
	}
	return r.nearest(p, may)
}

// nearest is the session that comes nearest to the target on one side. It is nearer than this node is, so a signal never
// goes round.
func (r *Router) nearest(p *pending, may func(identity.PeerID) bool) (best identity.PeerID, found bool) {
	target := PositionOf(r.cfg.Network, p.target)
	left := func(at Position) Position {
		if p.key.way == wayAfter {
			return target.To(at)
		}
		return at.To(target)
	}
	least := left(r.here)
	for id, at := range r.sessions {
		if d := left(at); d.Compare(least) < 0 && may(id) {
			best, found, least = id, true, d
		}
	}
	return best, found
}

// anybody is a session drawn at random.
func (r *Router) anybody(may func(identity.PeerID) bool) (identity.PeerID, bool) {
	all := r.view.Sessions
	if len(all) == 0 {
		return identity.PeerID{}, false
	}
	for i, n := r.cfg.Rand.IntN(len(all)), 0; n < len(all); i, n = (i+1)%len(all), n+1 {
		if may(all[i]) {
			return all[i], true
		}
	}
	return identity.PeerID{}, false
}
