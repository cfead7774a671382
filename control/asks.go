package control

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/internal/bucket"
)

const (
	// askAgainAfter is when what was asked for is asked of another partner that offered it, or once more.
	askAgainAfter = 5 * time.Second
	askTries      = 4
	maxAsked      = 65536
	// maxOffering is how many partners are remembered for a fact.
	maxOffering = 4
	// askRate and askBurst bound how many facts are asked for in a second, and askOf how many of one partner at a time in
	// a larger network: when everybody has news at once, nobody's line is full of them.
	askRate, askBurst = 44, 48
	askOf             = 16
	// askLater is when to look again at what has to wait, and how far apart a partner is asked.
	askLater = time.Second
)

// asks are the facts that partners offered and that are not held. Guarded by Mesh.mu.
type asks struct {
	all     map[tag]*asking
	asked   []timed // by time; some came meanwhile, or are asked for anew
	waiting []tag   // in their order; some came meanwhile
	lookAt  time.Time
	rate    bucket.Bucket
}

// asking is a fact that is, or will be, asked for.
type asking struct {
	of    []*session // who offered it and was not asked since
	by    *session   // who is asked now; nil: nobody
	until time.Time  // it has time to answer
	tries int
}

type timed struct {
	tag tag
	at  time.Time
}

func newAsks() asks { return asks{all: make(map[tag]*asking)} }

// came ends asking for a fact.
func (x *asks) came(t tag) {
	if a := x.all[t]; a != nil {
		a.free()
		delete(x.all, t)
	}
}

// free lets the partner be asked for something else.
func (a *asking) free() {
	if a.by != nil {
		a.by.asking--
		a.by = nil
	}
}

// offered notes that a partner has a fact that is not held. It reports whether to ask it now.
func (x *asks) offered(now time.Time, t tag, s *session, most int) bool {
	a := x.all[t]
	switch {
	case a != nil:
		if len(a.of) < maxOffering && a.by != s && !slices.Contains(a.of, s) {
			a.of = append(a.of, s)
		}
		return false
	case len(x.all) >= maxAsked:
		return false
	}
	a = &asking{of: []*session{s}}
	x.all[t] = a
	if len(x.waiting) > 0 || s.asking >= most || now.Before(s.askedAt.Add(askLater)) || !x.rate.Take(now, askRate, askBurst) {
		x.wait(now, t)
		return false
	}
	x.ask(now, t, a, s)
	return true
}

func (x *asks) wait(now time.Time, t tag) {
	x.waiting = append(x.waiting, t)
	if x.lookAt.IsZero() {
		x.lookAt = now.Add(askLater)
	}
}

func (x *asks) ask(now time.Time, t tag, a *asking, s *session) {
	a.of = slices.DeleteFunc(a.of, func(o *session) bool { return o == s })
	a.by, a.until, s.askedAt = s, now.Add(askAgainAfter), now
	a.tries++
	s.asking++
	x.asked = append(x.asked, timed{t, a.until})
}

// next is when something is due; zero: nothing is.
func (x *asks) next() time.Time {
	next := x.lookAt
	if len(x.asked) > 0 && (next.IsZero() || x.asked[0].at.Before(next)) {
		next = x.asked[0].at
	}
	return next
}

// due returns what to ask of whom: what had to wait, and what did not come or was of no use yet.
func (x *asks) due(now time.Time, lives func(*session) bool, most int) map[*session][]tag {
	for len(x.asked) > 0 && !now.Before(x.asked[0].at) {
		late := x.asked[0]
		x.asked = x.asked[1:]
		a := x.all[late.tag]
		if a == nil || a.by == nil || !a.until.Equal(late.at) {
			continue
		}
		if len(a.of) < maxOffering {
			a.of = append(a.of, a.by)
		}
		a.free()
		x.wait(now, late.tag)
	}
	if x.lookAt.IsZero() || now.Before(x.lookAt) {
		return nil
	}
	x.lookAt = time.Time{}
	lists := make(map[*session][]tag)
	waiting := x.waiting
	x.waiting = nil
	for i, t := range waiting {
		a := x.all[t]
		if a == nil || a.by != nil {
			continue
		}
		a.of = slices.DeleteFunc(a.of, func(s *session) bool { return !lives(s) })
		if len(a.of) == 0 || a.tries == askTries {
			delete(x.all, t)
			continue
		}
		s := slices.MinFunc(a.of, func(p, q *session) int { return p.asking - q.asking })
		if s.asking >= most {
			x.waiting = append(x.waiting, t)
			continue
		}
		if !x.rate.Take(now, askRate, askBurst) {
			x.waiting = append(x.waiting, waiting[i:]...)
			break
		}
		x.ask(now, t, a, s)
		lists[s] = append(lists[s], t)
	}
	if len(x.waiting) > 0 {
		x.lookAt = now.Add(askLater)
	}
	return lists
}

// mostAsked is how many facts one partner is asked for at a time. Called with mu held.
func (m *Mesh) mostAsked() int {
	if m.mode == ring.Full {
		return maxAsked
	}
	return askOf
}

// handleOffer asks for what is offered and not held.
func (m *Mesh) handleOffer(s *session, x *tags) {
	now := m.wall()
	var ask []tag
	m.mu.Lock()
	for b := x.Tags; len(b) > 0; b = b[tagSize:] {
		t := tag(binary.BigEndian.Uint64(b))
		if m.spread.has(t) {
			if g := m.spread.round[t]; g != nil {
				g.hold(s)
			}
			s.out.takeBack(t)
			continue
		}
		if m.spread.asks.offered(now, t, s, m.mostAsked()) {
			ask = append(ask, t)
		}
	}
	m.mu.Unlock()
	s.ask(ask)
	m.poke() // it may have to ask later
}

// ask sends tags of what to send.
func (s *session) ask(all []tag) {
	for part := range slices.Chunk(all, maxTags) {
		s.out.put(tagFrame(typeAsk, part))
	}
}

// askDue asks for what is due. Called with mu held.
func (m *Mesh) askDue(now time.Time) {
	lives := func(s *session) bool { return m.sessions[s.peer] == s }
	for s, list := range m.spread.asks.due(now, lives, m.mostAsked()) {
		s.ask(list)
	}
}
