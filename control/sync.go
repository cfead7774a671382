package control

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
)

// currentDigest is what we know, in brief. Called with mu held.
func (m *Mesh) currentDigest() *digest {
	return &digest{Heads: m.ledger.Heads(), Records: m.ledger.AdmissionDigest(), Cards: m.cardsDigest()}
}

// cardsDigest is the same on two nodes exactly when they have the same cards and reaches. Called with mu held.
func (m *Mesh) cardsDigest() identity.Hash {
	if !m.digestStale {
		return m.digestCache
	}
	var all []byte
	for _, v := range m.versions() {
		all = append(all, v.Node[:]...)
		all = binary.BigEndian.AppendUint64(all, v.Card)
		all = binary.BigEndian.AppendUint64(all, v.Reach)
	}
	m.digestCache, m.digestStale = identity.Sum("meshnet/cards-digest/v1", all), false
	return m.digestCache
}

// versions lists what we have of every node, sorted. Called with mu held.
func (m *Mesh) versions() []version {
	all := make(map[identity.PeerID]version, len(m.cards))
	for id, c := range m.cards {
		all[id] = version{Node: id, Card: c.Seq}
	}
	for id, r := range m.reaches {
		v := all[id]
		v.Node, v.Reach = id, r.Seq
		all[id] = v
	}
	list := make([]version, 0, len(all))
	for _, v := range all {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b version) int { return a.Node.Compare(b.Node) })
	return list
}

// sendFirstFacts ends the five steps: it sends at least one Facts.
func (m *Mesh) sendFirstFacts(s *session) {
	m.mu.Lock()
	frames := m.answerDigest(s, s.digest)
	m.mu.Unlock()
	if len(frames) == 0 || frames[0].kind != typeFacts {
		frames = slices.Insert(frames, 0, encode(typeFacts, &facts{}))
	}
	s.out.put(frames...)
}

func (m *Mesh) handleDigest(s *session, d *digest) {
	m.mu.Lock()
	frames := m.answerDigest(s, d)
	m.mu.Unlock()
	s.out.put(frames...)
}

// answerDigest sends the statements that the other lacks at once, and lists what we have where something else
// differs, or where the other has statements that we lack. Called with mu held.
func (m *Mesh) answerDigest(s *session, d *digest) []frame {
	lacking, unknown := m.ledger.Missing(d.Heads)
	var all []fact
	for _, st := range lacking {
		all = append(all, statementFact(st))
	}
	frames := m.factFrames(s, all)
	mine := m.currentDigest()
	if d.Records != mine.Records || d.Cards != mine.Cards {
		frames = append(frames, encode(typeHave, m.haveAll()))
	} else if unknown {
		frames = append(frames, encode(typeHave, &have{Heads: mine.Heads}))
	}
	return frames
}

func (m *Mesh) haveAll() *have {
	h := &have{Heads: m.ledger.Heads(), Records: m.ledger.AdmissionIDs(), Cards: m.versions(), All: true}
	if len(h.Records) > maxListed || len(h.Cards) > maxListed {
		return &have{Heads: h.Heads}
	}
	return h
}

// factFrames packs facts for a session and remembers that it has them. Called with mu held.
func (m *Mesh) factFrames(s *session, all []fact) []frame {
	var frames []frame
	for _, f := range pack(all) {
		frames = append(frames, encode(typeFacts, f))
	}
	for _, f := range all {
		s.remember(f)
	}
	return frames
}

// remember notes that the peer has a fact. Called with Mesh.mu held.
func (s *session) remember(f fact) {
	switch f.kind {
	case factCard:
		k := s.cards[f.node]
		k.card = max(k.card, f.seq)
		s.cards[f.node] = k
	case factReach:
		k := s.cards[f.node]
		k.reach = max(k.reach, f.seq)
		s.cards[f.node] = k
	default:
		s.known[f.id] = struct{}{}
	}
}

// lacks reports whether the peer may not have a fact. Nobody is told about themselves. Called with Mesh.mu held.
func (s *session) lacks(f fact) bool {
	switch f.kind {
	case factCard:
		return f.node != s.peer && s.cards[f.node].card < f.seq
	case factReach:
		return f.node != s.peer && s.cards[f.node].reach < f.seq
	}
	_, has := s.known[f.id]
	return !has
}

// handleHave compares lists: sends what the other lacks and asks for what we lack.
func (m *Mesh) handleHave(s *session, h *have) {
	m.mu.Lock()
	lacking, unknown := m.ledger.Missing(h.Heads)
	var send []fact
	for _, st := range lacking {
		send = append(send, statementFact(st))
	}
	ask := want{Heads: m.ledger.Heads()}
	if h.All {
		send = append(send, m.compareRecords(h.Records, &ask)...)
		send = append(send, m.compareCards(s, h.Cards, &ask)...)
	}
	frames := m.factFrames(s, send)
	if unknown || len(ask.Records) > 0 || len(ask.Nodes) > 0 {
		frames = append(frames, encode(typeWant, &ask))
	}
	m.mu.Unlock()
	s.out.put(frames...)
}

func (m *Mesh) compareRecords(theirs []identity.Hash, ask *want) (send []fact) {
	has := make(map[identity.Hash]bool, len(theirs))
	for _, id := range theirs {
		has[id] = true
		if _, known := m.ledger.Record(id); !known {
			ask.Records = append(ask.Records, id)
		}
	}
	for r := range m.ledger.Records(0) {
		if !has[r.ID] {
			send = append(send, recordFact(r))
		}
	}
	return send
}

func (m *Mesh) compareCards(s *session, theirs []version, ask *want) (send []fact) {
	has := make(map[identity.PeerID]version, len(theirs))
	for _, v := range theirs {
		has[v.Node] = v
		if m.wantsNode(v) {
			ask.Nodes = append(ask.Nodes, v.Node)
		}
	}
	for id, c := range m.cards {
		if id != s.peer && has[id].Card < c.Seq {
			send = append(send, cardFact(c))
		}
	}
	for id, r := range m.reaches {
		if id != s.peer && has[id].Reach < r.Seq {
			send = append(send, reachFact(r))
		}
	}
	return send
}

// wantsNode reports whether a newer card or reach of somebody else is on offer.
func (m *Mesh) wantsNode(v version) bool {
	if v.Node == m.self.ID() {
		return m.myCard != nil && v.Card > m.myCard.Seq || m.myReach != nil && v.Reach > m.myReach.Seq
	}
	var card, reach uint64
	if c := m.cards[v.Node]; c != nil {
		card = c.Seq
	}
	if r := m.reaches[v.Node]; r != nil {
		reach = r.Seq
	}
	return v.Card > card || v.Reach > reach
}

// handleWant sends what was asked for.
func (m *Mesh) handleWant(s *session, w *want) {
	m.mu.Lock()
	var send []fact
	lacking, _ := m.ledger.Missing(w.Heads)
	for _, st := range lacking {
		send = append(send, statementFact(st))
	}
	asked := make(map[identity.Hash]bool, len(w.Records))
	for _, id := range w.Records {
		asked[id] = true
	}
	if len(asked) > 0 {
		for r := range m.ledger.Records(0) { // in the order in which they can be added
			if asked[r.ID] {
				send = append(send, recordFact(r))
			}
		}
	}
	for _, id := range w.Nodes {
		if c := m.cards[id]; c != nil {
			send = append(send, cardFact(c))
		}
		if r := m.reaches[id]; r != nil {
			send = append(send, reachFact(r))
		}
	}
	frames := m.factFrames(s, send)
	m.mu.Unlock()
	s.out.put(frames...)
}

func (m *Mesh) queueDigest(s *session) {
	m.mu.Lock()
	d := m.currentDigest()
	m.mu.Unlock()
	s.out.put(encode(typeDigest, d))
}

// handleFacts merges what a peer sent. What is forged costs it the session; what does not fit here (a limit, an
// unknown kind of invite) costs nobody anything.
func (m *Mesh) handleFacts(s *session, f *facts) error {
	return m.update(func(u *update) error {
		u.from = s
		return m.mergeFacts(u, f)
	})
}

func (m *Mesh) mergeFacts(u *update, f *facts) error {
	for _, raw := range f.Statements {
		st, err := ledger.ParseSigned(raw)
		if err == nil {
			_, err = m.ledger.AddStatement(st)
		}
		if err == nil {
			u.seen(statementFact(st))
		}
		if blame(err) {
			return err
		}
	}
	for _, raw := range f.Admits {
		if _, err := m.ledger.AddAdmit(raw); blame(err) {
			return err
		}
	}
	for _, raw := range f.Acceptances {
		x, err := ledger.ParseSigned(raw)
		if err == nil {
			_, err = m.ledger.AddAcceptance(x)
		}
		if blame(err) {
			return err
		}
	}
	for _, raw := range f.Cards {
		if err := m.mergeCard(u, raw); err != nil {
			return err
		}
	}
	for _, raw := range f.Reaches {
		if err := m.mergeReach(u, raw); err != nil {
			return err
		}
	}
	return nil
}

// blame reports whether an error means that a peer passed something on that it should have refused itself.
func blame(err error) bool {
	for _, fault := range []error{
		ledger.ErrMalformed, ledger.ErrTooLarge, ledger.ErrBadSignature, ledger.ErrForeignNetwork,
		ledger.ErrClockTooHigh, ledger.ErrVoid,
	} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}
