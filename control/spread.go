package control

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/identity"
)

// A new fact goes round like this, so that everybody gets it soon and mostly once:
//
//	author ── the fact ──▶ its partners ── offer: 8 bytes ──▶ their partners ── ask, whoever lacks it ──▶ the fact
//
// What is lost on the way comes with the next comparison of digests (sync.go).

const (
	tagSize = 8
	// roundFor is how long a fact can be asked for by its tag.
	roundFor = 2 * time.Minute
	// maxRound is how many facts are kept for that.
	maxRound = 16384
	// offerAfter is how long offers are gathered, at most twice as long.
	offerAfter = 50 * time.Millisecond
	// askAgainAfter is when what was asked for is asked of another partner that offered it, or once more.
	askAgainAfter = 2 * time.Second
	askTries      = 4
	maxAsked      = 65536
	maxOffering   = 4 // partners remembered for that
)

// tag names a fact in offers: the first bytes of SHA-256 over its kind, key and sequence. Two facts of one tag cost no
// more than waiting for the next comparison of digests.
type tag uint64

func tagOf(f fact) tag {
	key := f.id
	if f.kind == factCard || f.kind == factReach {
		key = identity.Hash(f.node)
	}
	b := append([]byte{byte(f.kind)}, key[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, f.seq))
	return tag(binary.BigEndian.Uint64(sum[:]))
}

// spread is what goes round. Guarded by Mesh.mu.
type spread struct {
	known map[tag]struct{} // every fact that is held
	round map[tag]*going
	order []*going // by time
	asked map[tag]*asking
	askAt time.Time // the first of asked is asked for again; zero: none is
}

// going is a fact that can be asked for.
type going struct {
	fact
	tag     tag
	until   time.Time
	holders []*session // that have it, as far as we know
}

// asking is a fact that was offered, and asked for.
type asking struct {
	again time.Time
	of    []*session // who offered it, the next to be asked first
	tries int
}

func newSpread() spread {
	return spread{known: make(map[tag]struct{}), round: make(map[tag]*going), asked: make(map[tag]*asking)}
}

// hold notes that a fact is held, in place of an older card or reach.
func (x *spread) hold(f fact) { x.known[tagOf(f)] = struct{}{} }

// replaced forgets a card or reach that a newer one follows.
func (x *spread) replaced(f fact) { delete(x.known, tagOf(f)) }

// has reports whether a tag names something that is held, or was while it went round.
func (x *spread) has(t tag) bool {
	if _, ok := x.known[t]; ok {
		return true
	}
	_, ok := x.round[t]
	return ok
}

// put lets a fact go round.
func (x *spread) put(now time.Time, f fact, from *session) *going {
	t := tagOf(f)
	delete(x.asked, t)
	x.known[t] = struct{}{}
	g := x.round[t]
	if g == nil {
		g = &going{fact: f, tag: t, until: now.Add(roundFor)}
		x.round[t] = g
		x.order = append(x.order, g)
	}
	if from != nil {
		g.hold(from)
	}
	for len(x.order) > maxRound || len(x.order) > 0 && !now.Before(x.order[0].until) {
		delete(x.round, x.order[0].tag)
		x.order[0] = nil
		x.order = x.order[1:]
	}
	return g
}

func (g *going) hold(s *session) {
	if !slices.Contains(g.holders, s) {
		g.holders = append(g.holders, s)
	}
}

// holdAll notes all facts that are held, as a Mesh begins.
func (m *Mesh) holdAll() {
	for s := range m.ledger.Statements(0) {
		m.spread.hold(statementFact(s))
	}
	for r := range m.ledger.Records(0) {
		m.spread.hold(recordFact(r))
	}
	for _, f := range m.cardFacts() {
		m.spread.hold(f)
	}
}

// passAll lets fresh facts go round. from brought them; nil: they are ours. Called without mu.
func (m *Mesh) passAll(fresh []fact, from *session) {
	now := m.wall()
	direct := make(map[*session][]fact)
	m.mu.Lock()
	for _, f := range fresh {
		m.pass(now, m.spread.put(now, f, from), from == nil, direct)
	}
	m.mu.Unlock()
	for s, list := range direct {
		s.out.push(factFrames(list)...)
	}
}

// seen notes that whoever brought a fact has it, and that it need not be asked for.
func (m *Mesh) seen(u *update, f fact) {
	t := tagOf(f)
	delete(m.spread.asked, t)
	if g := m.spread.round[t]; g != nil && u.from != nil {
		g.hold(u.from)
	}
}

// pass sends a fresh fact to the partners that lack it, or offers it to them. Called with mu held.
func (m *Mesh) pass(now time.Time, g *going, ours bool, direct map[*session][]fact) {
	if g.kind == factReach && m.mode == ring.Ringed && g.node != m.self.ID() {
		return // kept by its partners
	}
	for _, s := range m.sessions {
		switch {
		case !s.done || slices.Contains(g.holders, s):
		case (g.kind == factCard || g.kind == factReach) && g.node == s.peer:
		case ours:
			g.hold(s)
			direct[s] = append(direct[s], g.fact)
		default:
			s.out.offer(now.Add(offerAfter+time.Duration(m.rng.Int64N(int64(offerAfter)))), g.tag)
		}
	}
}

// handleOffer asks for what is offered and not held.
func (m *Mesh) handleOffer(s *session, x *tags) {
	now := m.wall()
	var ask []byte
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
		a := m.spread.asked[t]
		switch {
		case a != nil:
			if len(a.of) < maxOffering && !slices.Contains(a.of, s) {
				a.of = append(a.of, s)
			}
		case len(m.spread.asked) < maxAsked:
			m.spread.ask(now, t, s)
			ask = binary.BigEndian.AppendUint64(ask, uint64(t))
		}
	}
	m.mu.Unlock()
	if len(ask) > 0 {
		s.out.put(encode(typeAsk, &tags{ask}))
		m.poke() // it may have to ask again
	}
}

// ask notes that a partner was asked for a fact.
func (x *spread) ask(now time.Time, t tag, s *session) {
	a := x.asked[t]
	if a == nil {
		a = new(asking)
		x.asked[t] = a
	}
	a.tries++
	a.again = now.Add(askAgainAfter)
	a.of = append(slices.DeleteFunc(a.of, func(o *session) bool { return o == s }), s)
	if x.askAt.IsZero() || a.again.Before(x.askAt) {
		x.askAt = a.again
	}
}

// askAgain asks others for what did not come, or was of no use yet. Called with mu held.
func (m *Mesh) askAgain(now time.Time) {
	x := &m.spread
	if x.askAt.IsZero() || now.Before(x.askAt) {
		return
	}
	x.askAt = time.Time{}
	lists := make(map[*session][]byte)
	for t, a := range x.asked {
		if now.Before(a.again) {
			if x.askAt.IsZero() || a.again.Before(x.askAt) {
				x.askAt = a.again
			}
			continue
		}
		a.of = slices.DeleteFunc(a.of, func(s *session) bool { return m.sessions[s.peer] != s })
		if len(a.of) == 0 || a.tries == askTries {
			delete(x.asked, t)
			continue
		}
		s := a.of[0]
		x.ask(now, t, s)
		lists[s] = binary.BigEndian.AppendUint64(lists[s], uint64(t))
	}
	for s, list := range lists {
		for part := range slices.Chunk(list, maxTags*tagSize) {
			s.out.put(encode(typeAsk, &tags{part}))
		}
	}
}

// handleAsk sends what is asked for, as long as it goes round.
func (m *Mesh) handleAsk(s *session, x *tags) {
	var send []fact
	m.mu.Lock()
	for b := x.Tags; len(b) > 0; b = b[tagSize:] {
		if g := m.spread.round[tag(binary.BigEndian.Uint64(b))]; g != nil {
			g.hold(s)
			send = append(send, g.fact)
		}
	}
	m.mu.Unlock()
	s.out.push(factFrames(send)...)
}
