package hop

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Verdict is what becomes of frames.
type Verdict byte

// The verdicts.
const (
	Pass    Verdict = iota // to the other side
	Gone                   // there is no such session
	Unbound                // they came from an address that is not bound
	Waiting                // the other side is not bound yet
	Over                   // nothing more passes at this rate
)

// usedStep is how coarse the time of a session's last frame is.
const usedStep = int64(time.Second)

// Forward decides on a run of frames of one session, which came from an address: size bytes in all, each of unit bytes
// but the last. The first n of those bytes go to the End, as they are, the rest is dropped; n is 0 unless Pass. Safe for
// concurrent use, beside every other method; it takes no lock and allocates nothing.
func (t *Table) Forward(now time.Time, from netip.AddrPort, sid uint32, size, unit int) (to *End, n int, v Verdict) {
	s := (*t.sessions.Load())[sid]
	if s == nil {
		t.count.drop(Gone, size)
		return nil, 0, Gone
	}
	a, b := s.sides[0].end.Load(), s.sides[1].end.Load()
	switch {
	case a != nil && a.Addr == from:
		to = b
	case b != nil && b.Addr == from:
		to = a
	default:
		t.count.drop(Unbound, size)
		return nil, 0, Unbound
	}
	if to == nil {
		t.count.drop(Waiting, size)
		return nil, 0, Waiting
	}
	stamp := t.stamp(now)
	if stamp-s.used.Load() >= usedStep {
		s.used.Store(stamp)
	}
	n = t.rate.take(stamp, size, unit)
	if n < size {
		t.count.drop(Over, size-n)
	}
	if n == 0 {
		return nil, 0, Over
	}
	t.count.passed.Add(uint64(n))
	return to, n, Pass
}

// Counters are totals since NewTable.
type Counters struct {
	Sessions                         int    // now
	Opened, Closed, Bound            uint64 // sessions; bindings
	Passed                           uint64 // bytes of frames
	Gone, Unbound, Waiting, OverRate uint64 // bytes of frames that were dropped, by reason
	Malformed, Unproven, Limited     uint64 // bind packets: no such thing; a wrong proof; answered too often
}

type counters struct {
	opened, closed, bound        atomic.Uint64
	passed                       atomic.Uint64
	dropped                      [Over + 1]atomic.Uint64
	malformed, unproven, limited atomic.Uint64
}

func (c *counters) drop(v Verdict, size int) { c.dropped[v].Add(uint64(size)) }

// Counters returns the totals.
func (t *Table) Counters() Counters {
	c := &t.count
	return Counters{
		Sessions: len(*t.sessions.Load()),
		Opened:   c.opened.Load(), Closed: c.closed.Load(), Bound: c.bound.Load(),
		Passed: c.passed.Load(),
		Gone:   c.dropped[Gone].Load(), Unbound: c.dropped[Unbound].Load(),
		Waiting: c.dropped[Waiting].Load(), OverRate: c.dropped[Over].Load(),
		Malformed: c.malformed.Load(), Unproven: c.unproven.Load(), Limited: c.limited.Load(),
	}
}
