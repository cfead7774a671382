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
	// offerEvery is how long to wait after the offers before: when there is much, few frames tell it.
	offerEvery = 2500 * time.Millisecond
)

// tag names a fact in offers: the first bytes of SHA-256 over its kind, key and sequence. Two facts of one tag cost no
// more than waiting for the next comparison of digests.
type tag uint64

func tagOf(f fact) tag {
	switch f.kind {
	case factCard, factReach:
		return tagWith(f.kind, identity.Hash(f.node), f.seq)
	case factAdmit, factAcceptance:
		return recordTag(f.id)
	}
	return tagWith(f.kind, f.id, 0)
}

// recordTag is that of an admit or acceptance.
func recordTag(id identity.Hash) tag { return tagWith(factAdmit, id, 0) }

func tagWith(kind factKind, key identity.Hash, seq uint64) tag {
	b := append([]byte{byte(kind)}, key[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, seq))
	return tag(binary.BigEndian.Uint64(sum[:]))
}

// spread is what goes round. Guarded by Mesh.mu.
type spread struct {
	held  map[tag]fact // every fact that is held
	round map[tag]*going
	order []*going  // by time
	fresh time.Time // when the last one came
	asks  asks      // what others have
	serve serving   // what others ask for
}

// going is a fact that goes round.
type going struct {
	fact
	tag     tag
	until   time.Time
	holders []*session // that have it, as far as we know
}

func newSpread() spread {
	return spread{held: make(map[tag]fact), round: make(map[tag]*going), asks: newAsks()}
}

// hold notes that a fact is held, in place of an older card or reach.
func (x *spread) hold(f fact) { x.held[tagOf(f)] = f }

// replaced forgets a card or reach that a newer one follows.
func (x *spread) replaced(f fact) { delete(x.held, tagOf(f)) }

// has reports whether a tag names something that is held, or was while it went round.
func (x *spread) has(t tag) bool {
	if _, ok := x.held[t]; ok {
		return true
	}
	_, ok := x.round[t]
	return ok
}

// put lets a fact go round.
func (x *spread) put(now time.Time, f fact, from *session) *going {
	t := tagOf(f)
	x.asks.came(t)
	x.held[t] = f
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
	m.spread.fresh = now
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
	m.spread.asks.came(t)
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
