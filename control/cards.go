package control

import (
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/netmap"
)

// aheadLimit is how far beyond mesh time a card's sequence may be.
const aheadLimit = 10 * time.Minute

// makeCard signs our card of this run, behind the last one we know of. Without one the sequence is the mesh's time,
// so that a node that lost its state is above its old cards. Called with mu held, or before Run.
func (m *Mesh) makeCard(last *Card) fact {
	seq := uint64(max(1, m.now().UnixMilli()))
	if last != nil {
		seq = last.Seq + 1
	}
	c := &Card{
		Node: m.self.ID(), Seq: seq, Name: m.cfg.Name, Boot: m.cfg.Boot, Version: m.cfg.Version,
		WG: m.self.WG(), Disco: m.self.Disco(), Generation: m.self.Generation(),
	}
	if c.Relay = m.relayURL; c.Relay != "" {
		c.Roles = []string{string(netmap.RoleRelay)}
	}
	m.myCard = c.sign(m.self, m.network.ID)
	m.setCard(m.myCard)
	m.renamed = m.renamed || last == nil || last.Name != c.Name
	m.touch(c.Node, m.wall())
	return cardFact(m.myCard)
}

// setCard puts a card in the place of an older one. Called with mu held, or before Run.
func (m *Mesh) setCard(c *Card) {
	if old := m.cards[c.Node]; old != nil {
		m.spread.replaced(cardFact(old))
	}
	m.cards[c.Node] = c
	m.shelf.Put(c.Node, c.Seq)
	m.spread.hold(cardFact(c))
}

// setReach puts a reach in the place of an older one. Called with mu held, or before Run.
func (m *Mesh) setReach(r *Reach) {
	if old := m.reaches[r.Node]; old != nil {
		m.spread.replaced(reachFact(old))
	}
	m.reaches[r.Node] = r
	m.spread.hold(reachFact(r))
}

// readCard reads a card that somebody vouched for.
func (m *Mesh) readCard(raw []byte) (*Card, error) {
	c, err := ledger.Share(m.cfg.Shared, "card", raw, func() (*Card, error) { return decodeCard(raw) })
	if err != nil {
		return nil, err
	}
	return c, m.verifyCard(c)
}

func (m *Mesh) verifyCard(c *Card) error {
	_, err := ledger.Share(m.cfg.Shared, "card signature", c.signed, func() (struct{}, error) {
		return struct{}{}, c.verify(m.network.ID)
	})
	return err
}

// readReach reads a reach that somebody vouched for.
func (m *Mesh) readReach(raw []byte) (*Reach, error) {
	r, err := ledger.Share(m.cfg.Shared, "reach", raw, func() (*Reach, error) { return decodeReach(raw) })
	if err != nil {
		return nil, err
	}
	return r, m.verifyReach(r)
}

func (m *Mesh) verifyReach(r *Reach) error {
	_, err := ledger.Share(m.cfg.Shared, "reach signature", r.signed, func() (struct{}, error) {
		return struct{}{}, r.verify(m.network.ID)
	})
	return err
}

// mergeCard takes a card that somebody passed on. Called with mu held.
func (m *Mesh) mergeCard(u *update, raw []byte) error {
	c, err := ledger.Share(m.cfg.Shared, "card", raw, func() (*Card, error) { return decodeCard(raw) })
	if err != nil {
		return err
	}
	if !m.knows(c.Node) {
		return nil // before any work is done for a stranger
	}
	old, f := m.cards[c.Node], cardFact(c)
	if old != nil && old.Seq >= c.Seq {
		m.seen(u, f)
		return nil
	}
	if err := m.verifyCard(c); err != nil {
		return err
	}
	switch {
	case c.Node == m.self.ID():
		m.seen(u, f)
		m.meetSelf(u, c)
	case !m.tooFarAhead(c.Seq) && m.mayChange(c.Node):
		m.setCard(c)
		m.renamed = m.renamed || old == nil || old.Name != c.Name
		m.touch(c.Node, m.wall())
		u.facts = append(u.facts, f)
	}
	return nil
}

// mergeReach takes a reach that somebody passed on. Called with mu held.
func (m *Mesh) mergeReach(u *update, raw []byte) error {
	r, err := ledger.Share(m.cfg.Shared, "reach", raw, func() (*Reach, error) { return decodeReach(raw) })
	if err != nil {
		return err
	}
	if !m.knows(r.Node) {
		return nil
	}
	old, f := m.reaches[r.Node], reachFact(r)
	if old != nil && old.Seq >= r.Seq {
		m.seen(u, f)
		return nil
	}
	if err := m.verifyReach(r); err != nil {
		return err
	}
	switch {
	case r.Node == m.self.ID():
		m.setReach(r)
		u.facts = append(u.facts, m.makeReach())
	case !m.tooFarAhead(r.Seq) && m.mayChange(r.Node):
		m.setReach(r)
		m.touch(r.Node, m.wall())
		u.facts = append(u.facts, f)
	}
	return nil
}

// What one member may change about itself per second, and at once. The rest waits for the next comparison of digests:
// nobody fills everybody's disks and streams by talking about itself.
const (
	changeRate  = 1
	changeBurst = 8
)

// mayChange reports whether a member may say something new about itself. Called with mu held.
func (m *Mesh) mayChange(id identity.PeerID) bool {
	b := m.changes[id]
	if b == nil {
		b = new(bucket.Bucket)
		m.changes[id] = b
	}
	return b.Take(m.wall(), changeRate, changeBurst)
}

// knows reports whether a node was ever admitted: nobody fills our memory with strangers. Called with mu held.
func (m *Mesh) knows(id identity.PeerID) bool { return m.ledger.Knows(id) }

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
	if m.ownForeign > 1 && m.wall().Sub(m.lastOwnCard) < time.Minute {
		return
	}
	m.lastOwnCard = m.wall()
	u.facts = append(u.facts, m.makeCard(c))
}
