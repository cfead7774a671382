package control

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/control/shelf"
	"github.com/meshnet/meshnet/identity"
)

// What two members know is compared by digests, and then only where it differs:
//
//	digest ─▶ heads differ    ─▶ statements at once
//	          roots differ    ─▶ sums of the buckets (package shelf), or lists at once when they are short
//	sums   ─▶ buckets differ  ─▶ have: what stands in them
//	have   ─▶ facts that its sender lacks, and want: what its reader lacks
//	want   ─▶ facts

// shortList is how many entries are listed without asking for sums first.
const shortList = 64

// currentDigest is what we know, in brief. Called with mu held.
func (m *Mesh) currentDigest() *digest {
	d := &digest{Heads: m.ledger.Heads(), Records: m.ledger.Admitted().Root(), Cards: m.shelf.Root()}
	if m.mode == ring.Full {
		sum := m.reachesDigest()
		d.Reaches = &sum
	}
	return d
}

// reachesDigest is the same on two nodes exactly when they have the same reaches. Called with mu held.
func (m *Mesh) reachesDigest() identity.Hash {
	var all []byte
	for _, id := range slices.SortedFunc(maps.Keys(m.reaches), identity.PeerID.Compare) {
		all = append(all, id[:]...)
		all = binary.BigEndian.AppendUint64(all, m.reaches[id].Seq)
	}
	return identity.Sum("meshnet/reaches-digest/v1", all)
}

// sendFirstFacts ends the five steps: it sends at least one Facts.
func (m *Mesh) sendFirstFacts(s *session) {
	m.mu.Lock()
	frames := m.answerDigest(s.digest)
	m.mu.Unlock()
	if len(frames) == 0 || frames[0].kind != typeFacts {
		frames = slices.Insert(frames, 0, encode(typeFacts, &facts{}))
	}
	s.out.put(frames...)
}

func (m *Mesh) handleDigest(s *session, d *digest) {
	m.mu.Lock()
	frames := m.answerDigest(d)
	m.mu.Unlock()
	s.out.put(frames...)
}

// answerDigest sends the statements that the other lacks at once, and says more of what else differs, or where the
// other has statements that we lack. Called with mu held.
func (m *Mesh) answerDigest(d *digest) []frame {
	lacking, unknown := m.ledger.Missing(d.Heads)
	frames := factFrames(statementFacts(lacking))
	mine := m.currentDigest()
	list := &have{Heads: mine.Heads}
	var more sums
	if d.Records != mine.Records {
		if m.ledger.Admitted().Len() <= shortList {
			list.RecordsOf, list.Records = whole(), m.recordsOf(shelf.Whole())
		} else {
			more.Records = m.ledger.Admitted().Sums()
		}
	}
	if d.Cards != mine.Cards {
		if m.shelf.Len() <= shortList {
			list.CardsOf, list.Cards = whole(), m.cardsOf(shelf.Whole())
		} else {
			more.Cards = m.shelf.Sums()
		}
	}
	if d.Reaches != nil && mine.Reaches != nil && *d.Reaches != *mine.Reaches {
		list.AllReaches, list.Reaches = true, m.allReaches()
	}
	if more.Records != nil || more.Cards != nil {
		frames = append(frames, encode(typeSums, &more))
	}
	if list.RecordsOf != nil || list.CardsOf != nil || list.AllReaches || unknown {
		frames = append(frames, encode(typeHave, list))
	}
	return frames
}

func whole() []byte {
	all := shelf.Whole()
	return all[:]
}

func statementFacts(all []ledger.Signed) []fact {
	var list []fact
	for _, st := range all {
		list = append(list, statementFact(st))
	}
	return list
}

// recordsOf lists the records of some buckets, up to maxListed. Called with mu held.
func (m *Mesh) recordsOf(part shelf.Part) []identity.Hash {
	var all []identity.Hash
	for e := range m.ledger.Admitted().Of(part) {
		if all = append(all, e.Key); len(all) == maxListed {
			break
		}
	}
	return all
}

// cardsOf lists the cards of some buckets, up to maxListed. Called with mu held.
func (m *Mesh) cardsOf(part shelf.Part) []version {
	var all []version
	for e := range m.shelf.Of(part) {
		if all = append(all, version{e.Key, e.Version}); len(all) == maxListed {
			break
		}
	}
	return all
}

// allReaches lists them. Called with mu held.
func (m *Mesh) allReaches() []version {
	all := make([]version, 0, len(m.reaches))
	for id, r := range m.reaches {
		all = append(all, version{id, r.Seq})
	}
	slices.SortFunc(all, func(a, b version) int { return a.Node.Compare(b.Node) })
	return all
}

// handleSums lists what stands in the buckets that differ.
func (m *Mesh) handleSums(s *session, x *sums) {
	m.mu.Lock()
	list := &have{Heads: m.ledger.Heads()}
	if x.Records != nil {
		part := m.ledger.Admitted().Differing(x.Records)
		list.RecordsOf, list.Records = part[:], m.recordsOf(part)
	}
	if x.Cards != nil {
		part := m.shelf.Differing(x.Cards)
		list.CardsOf, list.Cards = part[:], m.cardsOf(part)
	}
	m.mu.Unlock()
	s.out.put(encode(typeHave, list))
}

// factFrames packs facts for a session.
func factFrames(all []fact) []frame {
	var frames []frame
	for _, f := range pack(all) {
		frames = append(frames, encode(typeFacts, f))
	}
	return frames
}

// handleHave compares lists: sends what the other lacks and asks for what we lack.
func (m *Mesh) handleHave(s *session, h *have) {
	m.mu.Lock()
	lacking, unknown := m.ledger.Missing(h.Heads)
	send := statementFacts(lacking)
	ask := want{Heads: m.ledger.Heads()}
	if h.RecordsOf != nil {
		send = append(send, m.compareRecords(shelf.Part(h.RecordsOf), h.Records, &ask)...)
	}
	if h.CardsOf != nil {
		send = append(send, m.compareCards(s, shelf.Part(h.CardsOf), h.Cards, &ask)...)
	}
	if h.AllReaches {
		send = append(send, m.compareReaches(s, h.Reaches, &ask)...)
	}
	frames := factFrames(send)
	if unknown || len(ask.Records) > 0 || len(ask.Nodes) > 0 {
		frames = append(frames, encode(typeWant, &ask))
	}
	m.mu.Unlock()
	s.out.put(frames...)
}

// compareRecords returns the records of some buckets that are not in a list, in the order in which they can be added.
// Called with mu held.
func (m *Mesh) compareRecords(part shelf.Part, theirs []identity.Hash, ask *want) []fact {
	has := make(map[identity.Hash]bool, len(theirs))
	for _, id := range theirs {
		has[id] = true
		if _, known := m.ledger.Admitted().Version(id); !known {
			ask.Records = append(ask.Records, id)
		}
	}
	lacking := make(map[identity.Hash]bool)
	for e := range m.ledger.Admitted().Of(part) {
		if !has[e.Key] {
			lacking[e.Key] = true
		}
	}
	return m.recordFacts(lacking)
}

// recordFacts are the records with the given ids, in the order in which they can be added. Called with mu held.
func (m *Mesh) recordFacts(ids map[identity.Hash]bool) []fact {
	var all []fact
	if len(ids) == 0 {
		return nil
	}
	for r := range m.ledger.Records(0) {
		if ids[r.ID] {
			all = append(all, recordFact(r))
		}
	}
	return all
}

// compareCards returns the cards of some buckets that a list lacks. Nobody is told about themselves. Called with mu held.
func (m *Mesh) compareCards(s *session, part shelf.Part, theirs []version, ask *want) (send []fact) {
	has := make(map[identity.PeerID]uint64, len(theirs))
	for _, v := range theirs {
		has[v.Node] = v.Seq
		if mine := m.cards[v.Node]; mine == nil || mine.Seq < v.Seq {
			ask.Nodes = append(ask.Nodes, v.Node)
		}
	}
	for e := range m.shelf.Of(part) {
		if id := identity.PeerID(e.Key); id != s.peer && has[id] < e.Version {
			send = append(send, cardFact(m.cards[id]))
		}
	}
	return send
}

// compareReaches returns the reaches that a list of all lacks. Called with mu held.
func (m *Mesh) compareReaches(s *session, theirs []version, ask *want) (send []fact) {
	has := make(map[identity.PeerID]uint64, len(theirs))
	for _, v := range theirs {
		has[v.Node] = v.Seq
		if mine := m.reaches[v.Node]; mine == nil || mine.Seq < v.Seq {
			ask.Nodes = append(ask.Nodes, v.Node)
		}
	}
	for id, r := range m.reaches {
		if id != s.peer && has[id] < r.Seq {
			send = append(send, reachFact(r))
		}
	}
	return send
}

// handleWant sends what was asked for.
func (m *Mesh) handleWant(s *session, w *want) {
	m.mu.Lock()
	lacking, _ := m.ledger.Missing(w.Heads)
	send := statementFacts(lacking)
	asked := make(map[identity.Hash]bool, len(w.Records))
	for _, id := range w.Records {
		asked[id] = true
	}
	send = append(send, m.recordFacts(asked)...)
	for _, id := range w.Nodes {
		if c := m.cards[id]; c != nil {
			send = append(send, cardFact(c))
		}
		if r := m.reaches[id]; r != nil {
			send = append(send, reachFact(r))
		}
	}
	frames := factFrames(send)
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
