package control

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
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
	offerEvery = time.Second
	// askAgainAfter is when what was asked for is asked of another partner that offered it, or once more.
	askAgainAfter = 5 * time.Second
	askTries      = 4
	maxAsked      = 65536
	maxOffering   = 4 // partners remembered for that
	// askRate and askBurst bound how many facts are asked for in a second: when everybody has news at once, nobody's line
	// is full of them.
	askRate, askBurst = 50, 256
	askLater          = 250 * time.Millisecond
	// serveRate and serveBurst bound how many bytes of facts a second are sent to whom asks, in a larger network. What is
	// beyond waits.
	serveRate, serveBurst = 16 << 10, 16 << 10
	maxServing            = 1 << 14
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
	order []*going // by time
	asked map[tag]*asking
	askAt time.Time // the first of asked is asked for again; zero: none is
	asks  bucket.Bucket
	fresh time.Time // when the last one came

	serving []serve // asked of us, and waiting
	served  float64 // bytes beyond what the rate has made up for
	serveAt time.Time
}

// going is a fact that goes round.
type going struct {
	fact
	tag     tag
	until   time.Time
	holders []*session // that have it, as far as we know
}

// asking is a fact that was offered, and is or will be asked for.
type asking struct {
	again time.Time
	of    []*session // who offered it, the next to be asked first
	tries int
}

func newSpread() spread {
	return spread{held: make(map[tag]fact), round: make(map[tag]*going), asked: make(map[tag]*asking)}
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
	delete(x.asked, t)
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
		if m.spread.want(now, t, s) {
			ask = binary.BigEndian.AppendUint64(ask, uint64(t))
		}
	}
	m.mu.Unlock()
	if len(ask) > 0 {
		s.out.put(encode(typeAsk, &tags{ask}))
	}
	m.poke() // it may have to ask later
}

// want notes that a partner has a fact that is not held. It reports whether it is to be asked for at once.
func (x *spread) want(now time.Time, t tag, s *session) bool {
	if a := x.asked[t]; a != nil {
		if len(a.of) < maxOffering && !slices.Contains(a.of, s) {
			a.of = append(a.of, s)
		}
		return false
	}
	if len(x.asked) >= maxAsked {
		return false
	}
	x.asked[t] = &asking{of: []*session{s}}
	if !x.asks.Take(now, askRate, askBurst) {
		x.plan(x.asked[t], now.Add(askLater))
		return false
	}
	x.ask(now, x.asked[t], s)
	return true
}

func (x *spread) plan(a *asking, at time.Time) {
	a.again = at
	if x.askAt.IsZero() || at.Before(x.askAt) {
		x.askAt = at
	}
}

// ask notes that a partner is asked for a fact.
func (x *spread) ask(now time.Time, a *asking, s *session) {
	a.tries++
	a.of = append(slices.DeleteFunc(a.of, func(o *session) bool { return o == s }), s)
	x.plan(a, now.Add(askAgainAfter))
}

// askAgain asks for what had to wait, and others for what did not come or was of no use yet. Called with mu held.
func (m *Mesh) askAgain(now time.Time) {
	x := &m.spread
	if x.askAt.IsZero() || now.Before(x.askAt) {
		return
	}
	x.askAt = time.Time{}
	lists := make(map[*session][]byte)
	for t, a := range x.asked {
		if now.Before(a.again) {
			x.plan(a, a.again)
			continue
		}
		a.of = slices.DeleteFunc(a.of, func(s *session) bool { return m.sessions[s.peer] != s })
		switch {
		case len(a.of) == 0 || a.tries == askTries:
			delete(x.asked, t)
		case !x.asks.Take(now, askRate, askBurst):
			x.plan(a, now.Add(askLater))
		default:
			s := a.of[0]
			x.ask(now, a, s)
			lists[s] = binary.BigEndian.AppendUint64(lists[s], uint64(t))
		}
	}
	for s, list := range lists {
		for part := range slices.Chunk(list, maxTags*tagSize) {
			s.out.put(encode(typeAsk, &tags{part}))
		}
	}
}

// serve is a fact for a partner who asked for it.
type serve struct {
	to *session
	fact
}

// handleAsk sends what is asked for.
func (m *Mesh) handleAsk(s *session, x *tags) {
	var send []fact
	m.mu.Lock()
	for b := x.Tags; len(b) > 0; b = b[tagSize:] {
		t := tag(binary.BigEndian.Uint64(b))
		if f, ok := m.spread.held[t]; ok {
			send = append(send, f)
		}
		if g := m.spread.round[t]; g != nil {
			g.hold(s)
		}
	}
	m.supply(s, send)
	m.mu.Unlock()
	m.poke() // some may wait
}

// supply sends facts to whom asked for them, within bounds. Called with mu held.
func (m *Mesh) supply(s *session, all []fact) {
	if m.mode == ring.Full {
		s.out.push(factFrames(all)...)
		return
	}
	x := &m.spread
	for _, f := range all {
		if len(x.serving) < maxServing {
			x.serving = append(x.serving, serve{s, f})
		}
	}
	m.goOnServing(m.wall())
}

// goOnServing sends what waits, as far as the rate allows it. Called with mu held.
func (m *Mesh) goOnServing(now time.Time) {
	x := &m.spread
	if passed := now.Sub(x.serveAt).Seconds(); passed > 0 {
		x.served = max(0, x.served-passed*serveRate)
		x.serveAt = now
	}
	lists := make(map[*session][]fact)
	for len(x.serving) > 0 && x.served < serveBurst {
		next := x.serving[0]
		x.serving[0] = serve{}
		x.serving = x.serving[1:]
		if m.sessions[next.to.peer] == next.to {
			x.served += float64(len(next.raw))
			lists[next.to] = append(lists[next.to], next.fact)
		}
	}
	for s, list := range lists {
		s.out.push(factFrames(list)...)
	}
}

// serveNext is when to go on; zero: nothing waits.
func (x *spread) serveNext() time.Time {
	if len(x.serving) == 0 {
		return time.Time{}
	}
	return x.serveAt.Add(100 * time.Millisecond)
}
