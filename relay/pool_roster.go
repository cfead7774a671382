package relay

import (
	"cmp"
	"slices"
	"time"
)

const (
	idleTime  = 60 * time.Second // without a datagram, a server that is no home is left
	forget    = 10 * time.Minute // after which a server that only a member named is forgotten
	maxNamed  = 64               // servers that only members named
	maxProbes = 8                // servers that are dialled for their latency at a time

	watchful = 250 * time.Millisecond // how often servers are looked at while something is sent by them
	measured = 250 * time.Millisecond // the same while a latency is not known yet
	busyFor  = 2 * time.Second        // since the last datagram
)

// roster is all servers of a pool and which of them are homes. It decides and does nothing: plan says what to do.
// Guarded by Pool.mu.
type roster struct {
	began   time.Time
	most    int // homes
	servers map[URL]*server
	own     []*server      // by rank
	rand    func() float64 // [0, 1)

	homes     []*server // best first
	announced []string  // what was last told of them
	changed   time.Time // when a home was last changed for a better one
	noTrial   time.Time // none before
	trial     *trial
	probed    time.Time // when all were last measured

	events []PoolEvent // that happened and were not told yet
}

// plan is what a roster wants done.
type plan struct {
	dial, close, ping []*server
	resend            []parcel  // by whatever server is best now
	next              time.Time // when to ask again at the latest; zero: when something happens
}

// by has the roster asked again at t, or before.
func (p *plan) by(t time.Time) {
	if p.next.IsZero() || t.Before(p.next) {
		p.next = t
	}
}

func newRoster(began time.Time, homes int, rand func() float64) *roster {
	return &roster{began: began, most: homes, servers: make(map[URL]*server), rand: rand}
}

// setServers replaces the configuration.
func (r *roster) setServers(now time.Time, urls []URL) {
	if slices.EqualFunc(r.own, urls, func(s *server, u URL) bool { return s.url == u }) {
		return
	}
	for _, s := range r.own {
		s.rank = -1
	}
	r.own = r.own[:0]
	for _, u := range urls {
		s := r.get(now, u)
		if s.rank >= 0 {
			continue // twice in the list
		}
		s.rank = len(r.own)
		r.own = append(r.own, s)
	}
	r.homes = slices.DeleteFunc(r.homes, func(s *server) bool { return s.rank < 0 })
	r.probed = time.Time{}
}

// get is the server of a URL, which is made where it is missing.
func (r *roster) get(now time.Time, u URL) *server {
	s := r.servers[u]
	if s == nil {
		s = &server{url: u, text: u.String(), rank: -1, since: now}
		r.servers[u] = s
	}
	return s
}

// named is the server of a URL that a member named. When there are many of them, the one that was idle for longest is
// forgotten for it; nil: none is.
func (r *roster) named(now time.Time, u URL) *server {
	if r.servers[u] == nil && len(r.servers)-len(r.own) >= maxNamed {
		var oldest *server
		for _, s := range r.servers {
			if s.rank < 0 && s.phase == idle && len(s.waiting) == 0 && (oldest == nil || s.since.Before(oldest.since)) {
				oldest = s
			}
		}
		if oldest == nil {
			return nil
		}
		delete(r.servers, oldest.url)
	}
	return r.get(now, u)
}

// linkChanged has everything tried again at once, as this host is somewhere else now.
func (r *roster) linkChanged(now time.Time) {
	for _, s := range r.servers {
		s.wait, s.next = 0, now
	}
	r.probed = time.Time{}
	r.noTrial = time.Time{}
}

// plan decides what to do now.
func (r *roster) plan(now time.Time) plan {
	var p plan
	r.keepHomes(now, &p)
	for _, s := range r.sorted() {
		switch s.phase {
		case idle:
			r.planIdle(now, s, &p)
		case dialling:
			r.planDialling(now, s, &p)
		case connected:
			r.planConnected(now, s, &p)
		}
	}
	return p
}

// sorted is all servers in an order that does not change from call to call.
func (r *roster) sorted() []*server {
	all := make([]*server, 0, len(r.servers))
	for _, s := range r.servers {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *server) int { return cmp.Compare(a.text, b.text) })
	return all
}

func (r *roster) planIdle(now time.Time, s *server, p *plan) {
	switch {
	case s.measure || len(s.waiting) > 0 || r.isHome(s):
		if now.Before(s.next) {
			p.by(s.next)
			return
		}
		s.dial(now)
		p.dial = append(p.dial, s)
	case s.rank < 0 && now.Sub(s.since) >= forget:
		delete(r.servers, s.url)
	}
}

// planDialling has what waits for an attempt that takes long tried elsewhere.
func (r *roster) planDialling(now time.Time, s *server, p *plan) {
	switch {
	case s.rerouted || len(s.waiting) == 0:
	case !s.slow(now):
		p.by(s.since.Add(slowDial))
	default:
		s.rerouted = true
		parcels, _ := s.unpark(now)
		p.resend = append(p.resend, parcels...)
	}
}

func (r *roster) planConnected(now time.Time, s *server, p *plan) {
	if s.rtt == 0 && now.Sub(s.since) < idleTime/6 {
		p.by(now.Add(measured))
	}
	if now.Sub(r.began.Add(time.Duration(s.sent.Load()))) < busyFor || s.doubt {
		p.by(now.Add(watchful))
	}
	if r.isHome(s) || r.onTrial(s) {
		return
	}
	last := r.began.Add(time.Duration(s.used.Load()))
	if s.since.After(last) {
		last = s.since
	}
	if end := last.Add(idleTime); now.Before(end) {
		p.by(end)
		return
	}
	p.close = append(p.close, s)
}

// tell queues an event.
func (r *roster) tell(e PoolEvent) { r.events = append(r.events, e) }
