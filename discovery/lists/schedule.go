package lists

import (
	"math/rand/v2"
	"time"
)

const (
	steady = time.Minute // between rounds in the end, and between looks while nothing is lacking
	// settled is how long enough members have to be connected for the rounds to begin anew after it: a connection that
	// comes and goes does not bring a round each time.
	settled = time.Minute
)

// schedule says when rounds are. It has no clock. Owned by a loop.
//
//	lacking:      round, 1 s, round, 2 s, round, 4, 8, 16 s, then a minute, all ±20 %
//	not lacking:  none; after a minute of it, the next lack begins at the top
type schedule struct {
	rounds int       // since the beginning
	last   time.Time // the last round
	due    time.Time // the next one
	enough time.Time // since when nothing is lacking; zero while something is
	looked time.Time // the last look at which nothing was
}

// look notes whether members are lacking, and says whether a round is due.
func (s *schedule) look(now time.Time, lacking bool) bool {
	if !lacking {
		s.looked = now
		if s.enough.IsZero() {
			s.enough = now
		}
		return false
	}
	if !s.enough.IsZero() && now.Sub(s.enough) >= settled {
		s.restart(now)
	}
	s.enough = time.Time{}
	return !now.Before(s.due)
}

// begin notes that a round begins.
func (s *schedule) begin(now time.Time) {
	s.last = now
	s.due = now.Add(pause(s.rounds))
	s.rounds++
}

// restart begins at the top, though not within a second of the last round.
func (s *schedule) restart(now time.Time) {
	s.rounds = 0
	s.due = now
	if soonest := s.last.Add(time.Second); !s.last.IsZero() && soonest.After(now) {
		s.due = soonest
	}
}

// next is when to look again.
func (s *schedule) next() time.Time {
	if !s.enough.IsZero() {
		return s.looked.Add(steady)
	}
	return s.due
}

// pause is the time after a round, of which n were before: 1, 2, 4, 8, 16 s, then a minute, ±20 %.
func pause(n int) time.Duration {
	d := steady
	if n < 5 {
		d = time.Second << n
	}
	return d - d/5 + rand.N(2*d/5+1)
}
