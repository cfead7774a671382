package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// aheadLimit is how far beyond mesh time a card's sequence may be.
const aheadLimit = 10 * time.Minute

// makeCard signs our card of this run, behind the last one we know of. Without one the sequence is the mesh's time,
// so that a node that lost its state is above its old cards. Called with mu held, or before Run.
func (m *Mesh) makeCard(last *Card) {
	seq := uint64(max(1, m.now().UnixMilli()))
	if last != nil {
		seq = last.Seq + 1
	}
	c := &Card{
		Node: m.self.ID(), Seq: seq, Name: m.cfg.Name, Boot: m.cfg.Boot, Version: m.cfg.Version,
		WG: m.self.WG(), Disco: m.self.Disco(), Generation: m.self.Generation(),
	}
	m.myCard = c.sign(m.self, m.network.ID)
	m.cards[c.Node] = m.myCard
	m.unsaved = append(m.unsaved, cardFact(m.myCard))
	m.digestStale = true
}

// makeReach signs where we may be found now. Called with mu held, or before Run.
func (m *Mesh) makeReach() {
	seq := uint64(max(1, m.now().UnixMilli()))
	if last := m.reaches[m.self.ID()]; last != nil {
		seq = last.Seq + 1
	}
	r := &Reach{Node: m.self.ID(), Seq: seq, Host: m.cfg.Host, Port: m.cfg.Port}
	for _, a := range m.endpoints {
		if len(r.Endpoints) == maxEndpoints {
			break
		}
		r.Endpoints = append(r.Endpoints, encodeEndpoint(a))
	}
	m.myReach = r.sign(m.self, m.network.ID)
	m.reaches[r.Node] = m.myReach
	m.unsaved = append(m.unsaved, reachFact(m.myReach))
	m.digestStale = true
}

// SetEndpoints tells where this node may be found. Others hear of it when it differs from before.
func (m *Mesh) SetEndpoints(addrs []netip.AddrPort) {
	_ = m.update(func(u *update) error { // f has no failure
		if slices.Equal(m.endpoints, addrs) {
			return nil
		}
		m.endpoints = slices.Clone(addrs)
		m.unsaved = slices.DeleteFunc(m.unsaved, func(f fact) bool { return f.kind == factReach && f.node == m.self.ID() })
		m.makeReach()
		m.unsaved = m.unsaved[:len(m.unsaved)-1] // collect adds it
		u.facts = append(u.facts, reachFact(m.myReach))
		return nil
	})
}

// mergeCard takes a card that somebody passed on. Called with mu held.
func (m *Mesh) mergeCard(u *update, raw []byte) error {
	c, err := parseCard(raw, m.network.ID)
	if err != nil {
		return err
	}
	f := cardFact(c)
	u.seen(f)
	if c.Node == m.self.ID() {
		m.meetSelf(u, c)
		return nil
	}
	if old := m.cards[c.Node]; old != nil && old.Seq >= c.Seq || m.tooFarAhead(c.Seq) || !m.knows(c.Node) {
		return nil
	}
	m.cards[c.Node] = c
	u.facts = append(u.facts, f)
	return nil
}

// mergeReach takes a reach that somebody passed on. Called with mu held.
func (m *Mesh) mergeReach(u *update, raw []byte) error {
	r, err := parseReach(raw, m.network.ID)
	if err != nil {
		return err
	}
	f := reachFact(r)
	u.seen(f)
	if r.Node == m.self.ID() {
		if m.myReach != nil && r.Seq > m.myReach.Seq {
			m.reaches[r.Node] = r
			m.makeReach()
			m.unsaved = m.unsaved[:len(m.unsaved)-1] // collect adds it
			u.facts = append(u.facts, reachFact(m.myReach))
		}
		return nil
	}
	if old := m.reaches[r.Node]; old != nil && old.Seq >= r.Seq || m.tooFarAhead(r.Seq) || !m.knows(r.Node) {
		return nil
	}
	m.reaches[r.Node] = r
	u.facts = append(u.facts, f)
	return nil
}

// knows reports whether a node was ever admitted: nobody fills our memory with strangers. Called with mu held.
func (m *Mesh) knows(id identity.PeerID) bool {
	_, ok := m.ledger.State(m.now()).Member(id)
	return ok
}

// tooFarAhead reports a sequence that no clock near the mesh's has made. It comes again by anti-entropy.
func (m *Mesh) tooFarAhead(seq uint64) bool {
	return seq > uint64(max(0, m.now().Add(aheadLimit).UnixMilli()))
}

// meetSelf takes a card of our own that comes from elsewhere: an old one of a life before is left behind by going on
// above it; one that another running node with our key makes is told. Called with mu held.
func (m *Mesh) meetSelf(u *update, c *Card) {
	if c.Seq <= m.myCard.Seq {
		return
	}
	if c.Boot != m.cfg.Boot {
		m.ownForeign++
		if m.ownForeign == 2 { // after we went on above it, somebody did the same
			u.tell(Event{Type: EventIdentityCloned, Peer: c.Node})
		}
	}
	if m.ownForeign > 1 && time.Since(m.lastOwnCard) < time.Minute {
		return
	}
	m.lastOwnCard = time.Now()
	m.makeCard(c)
	m.unsaved = m.unsaved[:len(m.unsaved)-1] // collect adds it
	u.facts = append(u.facts, cardFact(m.myCard))
}
