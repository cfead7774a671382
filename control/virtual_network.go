package control

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// VirtualNetwork is the membership of a network of Virtuals: a founder and who it let in, in one moment.
type VirtualNetwork struct {
	network    networkFile
	statements []fact
	members    []*identity.Identity // the founder first
	admissions [][]fact             // of each; none of the founder
}

// NewVirtualNetwork makes one with a number of members, at least 1, whose keys come from a seed.
func NewVirtualNetwork(members int, seed uint64, now time.Time) (*VirtualNetwork, error) {
	n := &VirtualNetwork{admissions: make([][]fact, members)}
	for i := range members {
		var key identity.Secret
		binary.BigEndian.PutUint64(key[:], seed)
		binary.BigEndian.PutUint64(key[8:], uint64(i))
		n.members = append(n.members, identity.FromSeed(key))
	}
	store, err := OpenStore(nil, now)
	if err != nil {
		return nil, err
	}
	params := ledger.FoundParams{Name: "town", Prefix4: netip.MustParsePrefix("100.64.0.0/12")}
	if err := store.Found(n.members[0], params, now); err != nil {
		return nil, err
	}
	n.network = *store.network
	genesis, err := store.genesis()
	if err != nil {
		return nil, err
	}
	l, err := ledger.New(genesis.Signed)
	if err != nil {
		return nil, err
	}
	_, token, err := l.Invite(n.members[0], ledger.InviteParams{K: n.network.Keys[0]}, now)
	if err != nil {
		return nil, err
	}
	if err := n.admit(l, token, now); err != nil {
		return nil, err
	}
	if _, err := l.Keep(n.members[0], l.State(now).Unkept, now); err != nil {
		return nil, err
	}
	for s := range l.Statements(0) {
		n.statements = append(n.statements, statementFact(s))
	}
	return n, nil
}

// admit has the founder accept everybody.
func (n *VirtualNetwork) admit(l *ledger.Ledger, token *ledger.Token, now time.Time) error {
	founder, network := n.members[0], l.Genesis().ID
	var last *identity.Hash
	for i, id := range n.members[1:] {
		a := ledger.NewAdmit(id, network, token.InviteID(), token.Seed)
		body := dcbor.Marshal(&ledger.Acceptance{
			Admit: a.ID, Acceptor: founder.ID(), Prev: last, Heads: l.Heads(), Time: uint64(now.UnixMilli()),
		})
		accepted := ledger.Signed{Body: body, Sig: founder.Sign(identity.PurposeAcceptance, network, body)}
		made := identity.Sum(identity.PurposeAcceptance, body)
		last = &made
		n.admissions[i+1] = []fact{
			{kind: factAdmit, id: a.ID, raw: a.Raw}, {kind: factAcceptance, id: made, raw: accepted.Marshal()},
		}
		if _, err := l.AddAdmit(a.Raw); err != nil {
			return err
		}
		if _, err := l.AddAcceptance(accepted); err != nil {
			return err
		}
	}
	return nil
}

// Len is the number of members.
func (n *VirtualNetwork) Len() int { return len(n.members) }

// Member is one by its number; 0 is the founder.
func (n *VirtualNetwork) Member(i int) *identity.Identity { return n.members[i] }

// Store is the memory of a member that knows all that admins said, and by whom the given members were let in.
func (n *VirtualNetwork) Store(knows ...int) (*Store, error) {
	s, err := OpenStore(nil, time.Time{})
	if err != nil {
		return nil, err
	}
	all := append([]fact(nil), n.statements...)
	for _, i := range knows {
		all = append(all, n.admissions[i]...)
	}
	network := n.network
	s.network, s.facts = &network, all
	return s, nil
}

// Meet has a Virtual learn by whom a member was let in, as that one's Intro would tell. It reports whether that was new.
func (n *VirtualNetwork) Meet(v *Virtual, i int) bool {
	m := v.mesh
	if id := n.members[i].ID(); m.ledger.State(m.now()).IsMember(id) {
		return false
	}
	_ = m.update(func(u *update) error {
		for _, f := range pack(n.admissions[i]) {
			if err := m.mergeFacts(u, f); err != nil {
				return err
			}
		}
		return nil
	})
	return true
}

// Remembered is the memory that a Virtual would have after a restart.
func (v *Virtual) Remembered() (*Store, error) {
	m := v.mesh
	s, err := OpenStore(nil, time.Time{})
	if err != nil {
		return nil, err
	}
	network := *m.store.network
	s.network = &network
	for st := range m.ledger.Statements(0) {
		s.facts = append(s.facts, statementFact(st))
	}
	for r := range m.ledger.Records(0) {
		s.facts = append(s.facts, recordFact(r))
	}
	s.facts = append(s.facts, m.cardFacts()...)
	s.book = m.book.file().book()
	return s, nil
}

// Knowledge is how much a Virtual knows.
type Knowledge struct {
	Members, Cards int
	Digest         identity.Hash // the same for two that know the same
}

// Knows tells it.
func (v *Virtual) Knows() Knowledge {
	m := v.mesh
	d := m.currentDigest()
	d.Reaches = nil
	return Knowledge{
		Members: len(m.ledger.State(m.now()).Members), Cards: len(m.cards),
		Digest: identity.Sum("meshnet/knowledge/v1", dcbor.Marshal(d)),
	}
}

// CardSeq is the sequence of a member's card as known here; 0: there is none.
func (v *Virtual) CardSeq(id identity.PeerID) uint64 {
	if c := v.mesh.cards[id]; c != nil {
		return c.Seq
	}
	return 0
}
