package magicsock

import (
	"math"
	"slices"
	"time"
)

// maxSamples is how many pings the statistics of a path look back.
const maxSamples = 100

// samples are what became of the last pings on a path that answered once: round-trip times, or losses. A ring.
type samples struct {
	ring  [maxSamples]uint32 // in microseconds
	next  int
	count int
}

// lostSample stands for a ping that was not answered.
const lostSample = math.MaxUint32

func (s *samples) add(value uint32) {
	s.ring[s.next] = value
	s.next = (s.next + 1) % maxSamples
	s.count = min(s.count+1, maxSamples)
}

// sample notes a round-trip time.
func (p *path) sample(rtt time.Duration) {
	if p.samples == nil {
		p.samples = new(samples)
	}
	p.samples.add(uint32(min(max(rtt, 0).Microseconds(), lostSample-1)))
}

// lost notes that a ping was not answered in time.
func (p *path) lost() {
	if p.samples != nil {
		p.samples.add(lostSample)
	}
}

// RTTStats describes the last 100 pings on a path, or as many as there were since it answered first. Durations are in
// whole microseconds.
type RTTStats struct {
	Count  int           // pings whose fate is known
	Last   time.Duration // of the newest pong
	Avg    time.Duration
	Stddev time.Duration // of the population
	P95    time.Duration // nearest rank: at least 95 % were not slower
	Loss   float64       // share of the pings that were not answered within 5 s, 0 to 1
}

// stats computes the statistics.
func (s *samples) stats() (st RTTStats) {
	if s == nil || s.count == 0 {
		return st
	}
	st.Count = s.count
	values := make([]uint32, 0, s.count)
	sum := 0.0
	for i := range s.count { // the oldest first
		v := s.ring[(s.next-s.count+i+maxSamples)%maxSamples]
		if v == lostSample {
			continue
		}
		values = append(values, v)
		sum += float64(v)
		st.Last = time.Duration(v) * time.Microsecond
	}
	answered := float64(len(values))
	st.Loss = 1 - answered/float64(s.count)
	if len(values) == 0 {
		return st
	}
	mean, squares := sum/answered, 0.0
	for _, v := range values {
		squares += (float64(v) - mean) * (float64(v) - mean)
	}
	slices.Sort(values)
	micros := func(v float64) time.Duration { return time.Duration(math.Round(v)) * time.Microsecond }
	st.Avg, st.Stddev = micros(mean), micros(math.Sqrt(squares/answered))
	st.P95 = time.Duration(values[(len(values)*95+99)/100-1]) * time.Microsecond
	return st
}
