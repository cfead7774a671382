package ledger

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// InviteParams are what an admin allows with a new invite.
type InviteParams struct {
	Tags       []string      // LDH labels
	Expires    time.Duration // from now; 0: never
	Uses       uint64        // 0: unlimited
	K          identity.Secret
	Generation uint32 // K's place among the network's keys
}

// Invite makes an invite under network key K, adds it, and returns it with a token that still lacks hints and relay
// pass.
func (l *Ledger) Invite(author *identity.Identity, p InviteParams, now time.Time) (Signed, *Token, error) {
	key := identity.New()
	return l.inviteWith(author, key, p, now)
}

func (l *Ledger) inviteWith(
	author, key *identity.Identity, p InviteParams, now time.Time,
) (Signed, *Token, error) {
	terms := &InviteTerms{
		Key: key.ID(), Tags: p.Tags, Uses: p.Uses, KID: KeyID(p.K), Generation: p.Generation,
	}
	if p.Expires != 0 {
		terms.Expires = uint64(max(1, now.Add(p.Expires).Unix()))
	}
	if !terms.fits() {
		return Signed{}, nil, ErrName
	}
	s, err := l.publish(author, TypeInvite, terms, now)
	if err != nil {
		return Signed{}, nil, err
	}
	short := Short(identity.Sum(identity.PurposeStatement, s.Body))
	return s, &Token{
		Network: l.genesis.ID, Invite: s, Seed: key.Seed(), PSK: InvitePSK(p.K, l.genesis.ID, short),
	}, nil
}

// RevokeMember revokes a member for good. Whom it let in stays, unless purge. The statements before the last are the
// keeps that fix everybody else's place first.
func (l *Ledger) RevokeMember(
	author *identity.Identity, id identity.PeerID, purge bool, now time.Time,
) ([]Signed, error) {
	st := l.State(now)
	switch _, known := st.Member(id); {
	case l.admin(id):
		return nil, ErrFounder
	case !known:
		return nil, ErrUnknownMember
	case !st.IsMember(id):
		return nil, ErrRevoked
	}
	r := &revocation{Kind: subjectMember, Subject: identity.Hash(id), Purge: purge}
	if !purge {
		r.Accepts = l.chainHeads(id)
	}
	return l.revoke(author, r, now)
}

// RevokeInvite ends an invite. Whom it admitted stays, unless purge. The statements before the last are keeps.
func (l *Ledger) RevokeInvite(
	author *identity.Identity, id identity.Hash, purge bool, now time.Time,
) ([]Signed, error) {
	st := l.State(now)
	switch inv, known := st.Invite(id); {
	case !known:
		return nil, ErrUnknownInvite
	case inv.Revoked:
		return nil, ErrRevoked
	}
	r := &revocation{Kind: subjectInvite, Subject: id, Purge: purge}
	for _, m := range st.History {
		if !purge && m.InviteID == id && len(r.Accepts) < maxHonours {
			r.Accepts = append(r.Accepts, m.AdmitID) // the rest stays by the keeps
		}
	}
	slices.SortFunc(r.Accepts, compareHash)
	return l.revoke(author, r, now)
}

func (l *Ledger) revoke(author *identity.Identity, r *revocation, now time.Time) ([]Signed, error) {
	made, err := l.Keep(author, l.State(now).Unkept, now)
	if err != nil {
		return nil, err
	}
	s, err := l.publish(author, TypeRevoke, r, now)
	if err != nil {
		return made, err
	}
	return append(made, s), nil
}

// chainHeads are the last acceptances of a member, one unless its chain forked.
func (l *Ledger) chainHeads(id identity.PeerID) []identity.Hash {
	tips := l.chainTips(id)
	heads := make([]identity.Hash, 0, maxHeads)
	for _, x := range tips[:min(len(tips), maxHeads)] {
		heads = append(heads, x.ID)
	}
	slices.SortFunc(heads, compareHash)
	return heads
}

// chainTips are the acceptances of a member that none of its others names, the newest first.
func (l *Ledger) chainTips(id identity.PeerID) []*Acceptance {
	tips := map[identity.Hash]*Acceptance{}
	for _, x := range l.acceptedBy[id] {
		tips[x.ID] = x
	}
	for _, x := range l.acceptedBy[id] {
		if x.Prev != nil {
			delete(tips, *x.Prev)
		}
	}
	return slices.SortedFunc(maps.Values(tips), func(a, b *Acceptance) int {
		return cmp.Or(cmp.Compare(b.Time, a.Time), compareHash(b.ID, a.ID))
	})
}

// Keep fixes the places of admissions, senior first: State.Unkept is what there is to keep. It makes as many
// statements as that takes.
func (l *Ledger) Keep(author *identity.Identity, admits []identity.Hash, now time.Time) ([]Signed, error) {
	var made []Signed
	at := map[identity.Hash]time.Time{}
	if len(admits) > 0 {
		for _, m := range l.State(now).History {
			at[m.AdmitID] = m.Admitted
		}
	}
	for part := range slices.Chunk(admits, maxKeeps) {
		k := &keeping{}
		for _, id := range part {
			if l.admissions[id] == nil {
				return made, ErrUnknownAdmit
			}
			t, in := at[id]
			if !in {
				t = now
			}
			k.Entries = append(k.Entries, keepEntry{Admit: id, Time: millis(t)})
		}
		s, err := l.publish(author, TypeKeep, k, now)
		if err != nil {
			return made, err
		}
		made = append(made, s)
	}
	return made, nil
}

// Rename gives a member a name that wins over its own; an empty one takes that back.
func (l *Ledger) Rename(
	author *identity.Identity, id identity.PeerID, name string, now time.Time,
) (Signed, error) {
	r := &renaming{Member: id, Name: name}
	if !r.fits() {
		return Signed{}, ErrName
	}
	if _, known := l.State(now).Member(id); !known {
		return Signed{}, ErrUnknownMember
	}
	return l.publish(author, TypeRename, r, now)
}

// Lease gives a member, now or in future, a fixed IPv4 address; the zero Addr takes that back.
func (l *Ledger) Lease(
	author *identity.Identity, id identity.PeerID, addr netip.Addr, now time.Time,
) (Signed, error) {
	if addr.IsValid() && !usable4(l.genesis.Prefix4(), addr) {
		return Signed{}, ErrAddress
	}
	lease := &leasing{Member: id, Addr: append([]byte{}, addr.AsSlice()...)}
	return l.publish(author, TypeLease, lease, now)
}

// publish makes one statement behind everything known here, and adds it.
func (l *Ledger) publish(author *identity.Identity, t Type, content any, now time.Time) (Signed, error) {
	if !l.admin(author.ID()) {
		return Signed{}, ErrNotAdmin
	}
	st := &Statement{Type: t, Time: millis(now)}
	for _, p := range newest(slices.Collect(maps.Values(l.tips[author.ID()])), maxHeads) {
		st.Prev = append(st.Prev, p.ID)
		st.Clock = max(st.Clock, p.Clock)
	}
	for _, p := range newest(l.citable(author.ID()), maxSeen(t)) {
		st.Seen = append(st.Seen, p.ID)
		st.Clock = max(st.Clock, p.Clock)
	}
	st.Clock++
	slices.SortFunc(st.Prev, compareHash)
	slices.SortFunc(st.Seen, compareHash)
	s := signStatement(author, l.genesis.ID, st, content)
	if _, err := l.AddStatement(s); err != nil {
		return Signed{}, err
	}
	return s, nil
}

// citable are the heads of others that a statement may build on: those of nodes that were admitted. A stranger's
// would make everybody fetch them.
func (l *Ledger) citable(except identity.PeerID) []*Statement {
	var heads []*Statement
	for _, st := range l.heads {
		if st.Author != except && l.nodes[st.Author] {
			heads = append(heads, st)
		}
	}
	return heads
}

// newest are the statements with the highest clocks.
func newest(sts []*Statement, limit int) []*Statement {
	slices.SortFunc(sts, func(a, b *Statement) int { return compareStatements(b, a) })
	return sts[:min(len(sts), limit)]
}

// Accept lets a joiner in whose admit was added before, if CheckAdmit allows it, and adds the acceptance. Asked again
// for the same admit it returns the same acceptance.
func (l *Ledger) Accept(acceptor *identity.Identity, admit identity.Hash, now time.Time) (Signed, error) {
	for _, x := range l.acceptedBy[acceptor.ID()] {
		if x.Admit == admit {
			return x.Signed, nil
		}
	}
	a, ok := l.findAdmit(admit)
	if !ok {
		return Signed{}, ErrUnknownAdmit
	}
	st := l.State(now)
	if !st.IsMember(acceptor.ID()) {
		return Signed{}, ErrUnknownMember
	}
	if err := st.CheckAdmit(a, now); err != nil {
		return Signed{}, err
	}
	x := &Acceptance{Admit: admit, Time: millis(now)}
	if tips := l.chainTips(acceptor.ID()); len(tips) > 0 {
		x.Prev = &tips[0].ID
		x.Time = max(x.Time, tips[0].Time+1) // so that who came first stays first
	}
	for _, h := range newest(l.citable(identity.PeerID{}), maxHeads) {
		x.Heads = append(x.Heads, h.ID)
	}
	slices.SortFunc(x.Heads, compareHash)
	s := signAcceptance(acceptor, l.genesis.ID, x)
	if _, err := l.AddAcceptance(s); err != nil {
		return Signed{}, err
	}
	return s, nil
}

// findAdmit looks also among those that wait.
func (l *Ledger) findAdmit(id identity.Hash) (*Admit, bool) {
	if a := l.admissions[id]; a != nil {
		return a.Admit, true
	}
	if r, ok := l.open.get(id); ok && r.admit != nil {
		return r.admit.Admit, true
	}
	return nil, false
}
