package relay

import (
	"cmp"
	"slices"
	"time"
)

// A home is changed for one that is better by as much, at most so often.
const (
	homeGain   = 10 * time.Millisecond // and a third
	homeChange = 5 * time.Minute
)

const (
	settle    = time.Second      // how long the first choice waits for servers that are slower to connect
	trialTime = 10 * time.Second // for which the new one has to be better
	trialPing = time.Second
	probeTime = 30 * time.Minute // between looking for better ones
	lostTime  = 5 * time.Second  // after which a home that is not connected is not announced any more
	maxSpares = 2                // dialled at a time when a home is lost
)

// trial compares a home with a server that seems better, or with a home behind it in the order.
type trial struct {
	holder, challenger *server
	until              time.Time
	pinged             time.Time
}

// better reports whether a latency is worth a change.
func better(a, b time.Duration) bool { return a > 0 && a+homeGain <= b && 3*a <= 2*b }

// byLatency orders servers: unknown latencies last, then as configured.
func byLatency(a, b *server) int {
	if (a.rtt == 0) != (b.rtt == 0) {
		return cmp.Compare(b.rtt, a.rtt)
	}
	return cmp.Or(cmp.Compare(a.rtt, b.rtt), cmp.Compare(a.rank, b.rank))
}

// keepHomes sees to it that there are as many homes as there should be, and good ones.
func (r *roster) keepHomes(now time.Time, p *plan) {
	r.replaceLost(now, p)
	r.fillHomes(now, p)
	r.runTrial(now, p)
	r.probe(now, p)
	r.announce(now, p)
}

// spares are the servers that might become homes.
func (r *roster) spares(match func(*server) bool) []*server {
	var spares []*server
	for _, s := range r.own {
		if !r.isHome(s) && match(s) {
			spares = append(spares, s)
		}
	}
	slices.SortStableFunc(spares, byLatency)
	return spares
}

func (r *roster) isHome(s *server) bool { return slices.Contains(r.homes, s) }

func isConnected(s *server) bool { return s.phase == connected && !s.doubt }

// replaceLost gives the place of a home that is lost to the next server, at once where one is connected.
func (r *roster) replaceLost(now time.Time, p *plan) {
	for i, home := range r.homes {
		if isConnected(home) {
			continue
		}
		if now.Before(home.restart) && slices.ContainsFunc(r.homes, isConnected) {
			p.by(home.restart)
			continue
		}
		if spares := r.spares(isConnected); len(spares) > 0 {
			r.homes[i] = spares[0]
			r.changed = now
			slices.SortStableFunc(r.homes, byLatency)
			r.replaceLost(now, p)
			return
		}
		r.wakeSpares(now, p, maxSpares)
	}
}

// wakeSpares has spare servers dialled, so that at most n are at a time.
func (r *roster) wakeSpares(now time.Time, p *plan, n int) {
	n -= len(r.spares(func(s *server) bool { return s.phase == dialling || s.measure }))
	for _, s := range r.spares(func(s *server) bool { return s.phase == idle && !s.measure }) {
		switch {
		case now.Before(s.next):
			p.by(s.next)
		case n > 0:
			s.measure = true
			n--
		}
	}
}

// fillHomes makes the best connected servers homes, when it is known which these are or that takes too long.
func (r *roster) fillHomes(now time.Time, p *plan) {
	if len(r.homes) >= r.most {
		return
	}
	spares := r.spares(isConnected)
	if len(spares) > 0 {
		first := spares[0].since
		for _, s := range spares {
			if s.since.Before(first) {
				first = s.since
			}
		}
		unknown := func(s *server) bool { return s.phase == dialling || s.phase == connected && s.rtt == 0 }
		if now.Sub(first) < settle && len(r.spares(unknown)) > 0 {
			p.by(first.Add(settle))
			return
		}
		n := min(len(spares), r.most-len(r.homes))
		r.homes = append(r.homes, spares[:n]...)
		slices.SortStableFunc(r.homes, byLatency)
		r.probed = now
	}
	if len(r.homes) < r.most {
		r.wakeSpares(now, p, maxProbes)
	}
}

func (r *roster) onTrial(s *server) bool {
	return r.trial != nil && (r.trial.holder == s || r.trial.challenger == s)
}

// runTrial changes a home for a better one, after both were pinged for a while.
func (r *roster) runTrial(now time.Time, p *plan) {
	t := r.trial
	if t == nil {
		r.startTrial(now, p)
		return
	}
	switch i := slices.Index(r.homes, t.holder); {
	case i < 0 || t.challenger.rank < 0 || !isConnected(t.holder) || !isConnected(t.challenger):
		r.trial = nil
	case now.Before(t.until):
		if now.Sub(t.pinged) >= trialPing {
			t.pinged = now
			p.ping = append(p.ping, t.holder, t.challenger)
		}
		p.by(t.pinged.Add(trialPing))
	case better(t.challenger.rtt, t.holder.rtt):
		if !r.isHome(t.challenger) {
			r.homes[i] = t.challenger
		}
		slices.SortStableFunc(r.homes, byLatency)
		r.trial, r.changed = nil, now
	default:
		r.trial, r.noTrial = nil, now.Add(homeChange)
	}
}

// startTrial looks for a pair to compare.
func (r *roster) startTrial(now time.Time, p *plan) {
	if len(r.homes) == 0 {
		return
	}
	challenger, holder := (*server)(nil), r.homes[len(r.homes)-1]
	if spares := r.spares(isConnected); len(spares) > 0 && better(spares[0].rtt, holder.rtt) {
		challenger = spares[0]
	} else if holder = r.homes[0]; len(r.homes) > 1 {
		for _, s := range r.homes[1:] {
			if isConnected(s) && better(s.rtt, holder.rtt) {
				challenger = s
			}
		}
	}
	if challenger == nil || !isConnected(holder) {
		return
	}
	start := r.noTrial
	if again := r.changed.Add(homeChange); !r.changed.IsZero() && again.After(start) {
		start = again
	}
	if now.Before(start) {
		p.by(start)
		return
	}
	r.trial = &trial{holder: holder, challenger: challenger, until: now.Add(trialTime), pinged: now}
	for _, s := range []*server{holder, challenger} {
		s.rtt, s.newest = 0, 0
		p.ping = append(p.ping, s)
	}
	p.by(now.Add(trialPing))
}

// probe has other servers measured now and then, unless no home could become better.
func (r *roster) probe(now time.Time, p *plan) {
	if len(r.homes) == 0 || len(r.own) == len(r.homes) || r.homes[len(r.homes)-1].rtt <= homeGain {
		return
	}
	if r.probed.IsZero() {
		r.probed = now.Add(-probeTime)
	}
	if at := r.probed.Add(probeTime); now.Before(at) {
		p.by(at)
		return
	}
	r.probed = now.Add(time.Duration((r.rand() - 0.5) * float64(probeTime) / 4))
	r.wakeSpares(now, p, maxProbes)
}

// announce tells which homes there are, when that changed. One that is lost for a moment is still named.
func (r *roster) announce(now time.Time, p *plan) {
	var urls []string
	for _, s := range r.homes {
		if gone := s.down.Add(lostTime); !s.down.IsZero() {
			if !now.Before(gone) {
				continue
			}
			p.by(gone)
		}
		urls = append(urls, s.text)
	}
	if slices.Equal(urls, r.announced) {
		return
	}
	r.announced = urls
	r.tell(PoolEvent{Kind: HomesChanged, Homes: slices.Clone(urls)})
}
