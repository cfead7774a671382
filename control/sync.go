package control

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

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
//	have   ─▶ offer: what its sender lacks, and want: what its reader lacks
//	want   ─▶ facts
//	offer  ─▶ ask ─▶ facts (spread.go)

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

// In a larger network a new session compares only what admins and members' admissions say, and that with the first few
// partners: the rest goes round, and is compared once it has.
const (
	compareRate, compareBurst = 0.2, 2
	// settledAfter is how long nothing new came, when it has; nobody waits for that longer than maxUnsettled.
	settledAfter = 3 * time.Second
	maxUnsettled = time.Minute
)

// mayCompare reports whether to compare with a new partner at once. Called with mu held.
func (m *Mesh) mayCompare() bool {
	return m.mode == ring.Full || m.compared.Take(m.wall(), compareRate, compareBurst)
}

// unsettled reports whether news go round still.
func (m *Mesh) unsettled(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mode == ring.Ringed && (len(m.spread.asks.all) > 0 || now.Sub(m.spread.fresh) < settledAfter)
}

// sendFirstFacts ends the five steps: it sends at least one Facts.
func (m *Mesh) sendFirstFacts(s *session) {
	var frames []frame
	m.mu.Lock()
	if m.mayCompare() {
		d := *s.digest
		if m.mode == ring.Ringed {
			d.Cards = m.shelf.Root()
		}
		frames = m.answerDigest(&d)
	}
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

// handleHave compares lists: offers what the other lacks and asks for what we lack.
func (m *Mesh) handleHave(s *session, h *have) {
	m.mu.Lock()
	lacking, unknown := m.ledger.Missing(h.Heads)
	c := comparison{mesh: m, with: s, now: m.wall(), want: want{Heads: m.ledger.Heads()}}
	if h.RecordsOf != nil {
		c.records(shelf.Part(h.RecordsOf), h.Records)
	}
	if h.CardsOf != nil {
		c.cards(shelf.Part(h.CardsOf), h.Cards)
	}
	if h.AllReaches {
		c.reaches(h.Reaches)
	}
	frames := factFrames(statementFacts(lacking))
	if unknown || len(c.want.Records) > 0 || len(c.want.Nodes) > 0 {
		frames = append(frames, encode(typeWant, &c.want))
	}
	m.mu.Unlock()
	s.out.put(frames...)
	m.poke() // it may have to ask later
}

// comparison of what is held with a list. What the other has newer goes to want, unless somebody was asked for it; what
// it has not is offered. Its methods are called with Mesh.mu held.
type comparison struct {
	mesh *Mesh
	with *session
	now  time.Time
	want want
}

func (c *comparison) offer(t tag) { c.with.out.offer(c.now, t) }

func (c *comparison) lacks(t tag) bool {
	return c.mesh.spread.asks.offered(c.now, t, c.with, c.mesh.mostAsked())
}

func (c *comparison) records(part shelf.Part, theirs []identity.Hash) {
	m := c.mesh
	has := make(map[identity.Hash]bool, len(theirs))
	for _, id := range theirs {
		has[id] = true
		if _, known := m.ledger.Admitted().Version(id); !known && c.lacks(recordTag(id)) {
			c.want.Records = append(c.want.Records, id)
		}
	}
	for e := range m.ledger.Admitted().Of(part) {
		if !has[e.Key] {
			c.offer(recordTag(e.Key))
		}
	}
}

// cards compares those of some buckets. Nobody is told about themselves.
func (c *comparison) cards(part shelf.Part, theirs []version) {
	m := c.mesh
	has := make(map[identity.PeerID]uint64, len(theirs))
	for _, v := range theirs {
		has[v.Node] = v.Seq
		mine := m.cards[v.Node]
		if (mine == nil || mine.Seq < v.Seq) && c.lacks(tagWith(factCard, identity.Hash(v.Node), v.Seq)) {
			c.want.Nodes = append(c.want.Nodes, v.Node)
		}
	}
	for e := range m.shelf.Of(part) {
		if id := identity.PeerID(e.Key); id != c.with.peer && has[id] < e.Version {
			c.offer(tagOf(cardFact(m.cards[id])))
		}
	}
}

func (c *comparison) reaches(theirs []version) {
	m := c.mesh
	has := make(map[identity.PeerID]uint64, len(theirs))
	for _, v := range theirs {
		has[v.Node] = v.Seq
		mine := m.reaches[v.Node]
		if (mine == nil || mine.Seq < v.Seq) && c.lacks(tagWith(factReach, identity.Hash(v.Node), v.Seq)) {
			c.want.Nodes = append(c.want.Nodes, v.Node)
		}
	}
	for id, r := range m.reaches {
		if id != c.with.peer && has[id] < r.Seq {
			c.offer(tagOf(reachFact(r)))
		}
	}
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
	m.supply(s, send)
	m.mu.Unlock()
	m.poke() // some may wait
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
