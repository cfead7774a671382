package ledger

import (
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// Member is somebody who was admitted.
type Member struct {
	ID         identity.PeerID
	WG         identity.WGKey
	Disco      identity.DiscoKey
	Generation uint32
	Admitted   time.Time
	AdmitID    identity.Hash   // zero for the founder
	InviteID   identity.Hash   // zero for the founder
	Acceptor   identity.PeerID // who vouches: a member, or the admin that keeps it; zero for the founder
	Kept       bool            // an admin's keep fixes its place
	Tags       []string
	Admin      bool
	IP4        netip.Addr // the zero Addr when the prefix is full
	Rename     string     // the ledger's name for it, if any
	Revoked    time.Time  // zero: not revoked

	vouch identity.Hash // the acceptance or keep that counted
}

// Invite is an invite of an admin and what became of it.
type Invite struct {
	ID         identity.Hash
	Short      ShortID
	Key        identity.PeerID
	Author     identity.PeerID
	Created    time.Time
	Expires    time.Time // zero: never
	Allowed    uint64    // 0: unlimited
	Used       uint64
	Overused   uint64 // admissions beyond Allowed, which are void
	Revoked    bool
	Tags       []string
	KID        KID
	Generation uint32
}

// KeyConflict is an admission that is void because it names a key of an earlier one.
type KeyConflict struct {
	Admit           identity.Hash
	Claimant, Owner identity.PeerID
}

// State is what the ledger means at one moment. Immutable: nothing in it may be changed.
type State struct {
	Members      []Member // not revoked, in order of admission, the founder first
	History      []Member // all that were ever admitted, in the same order
	Revoked      map[identity.PeerID]time.Time
	Invites      []Invite        // in the order in which they were made
	Overused     []identity.Hash // invites with more admissions than they allow
	Unkept       []identity.Hash // admits that count and that no keep fixes yet, in order
	KeyConflicts []KeyConflict
	Forked       []identity.PeerID // authors with two histories
	UpdateNeeded bool              // an admin stated something that this release does not understand
	NextDue      time.Time         // when something deferred will count; zero: nothing is

	allowances map[identity.PeerID][]Allowance

	members   map[identity.PeerID]int32 // in History
	inviteIDs map[identity.Hash]int     // in Invites
	shortIDs  map[ShortID]int
	wg        map[identity.WGKey]int32 // in History
	disco     map[identity.DiscoKey]int32
}

// Member finds somebody who was ever admitted; see its Revoked.
func (s *State) Member(id identity.PeerID) (Member, bool) {
	i, ok := s.members[id]
	if !ok {
		return Member{}, false
	}
	return s.History[i], true
}

// IsMember tells whether id is admitted and not revoked.
func (s *State) IsMember(id identity.PeerID) bool {
	i, ok := s.members[id]
	return ok && s.History[i].Revoked.IsZero()
}

// Invite finds an invite by its id.
func (s *State) Invite(id identity.Hash) (Invite, bool) {
	i, ok := s.inviteIDs[id]
	if !ok {
		return Invite{}, false
	}
	return s.Invites[i], true
}

// InviteByShort finds an invite by what an Intro carries of its id.
func (s *State) InviteByShort(short ShortID) (Invite, bool) {
	i, ok := s.shortIDs[short]
	if !ok {
		return Invite{}, false
	}
	return s.Invites[i], true
}

// CheckAdmit decides whether a member may accept a joiner now, mesh time. Its errors are ErrUnsynced, ErrRevoked,
// ErrExpired, ErrUsed, ErrBadSignature and ErrKeyConflict. Who is a member already may always come again.
func (s *State) CheckAdmit(a *Admit, now time.Time) error {
	inv, ok := s.Invite(a.Invite)
	if !ok {
		return ErrUnsynced
	}
	if err := a.VerifyInvite(inv.Key); err != nil {
		return err
	}
	if _, revoked := s.Revoked[a.Node]; revoked {
		return ErrRevoked
	}
	if _, member := s.members[a.Node]; member {
		return nil
	}
	switch {
	case inv.Revoked:
		return ErrRevoked
	case !inv.Expires.IsZero() && now.After(inv.Expires):
		return ErrExpired
	case inv.Allowed != 0 && inv.Used >= inv.Allowed:
		return ErrUsed
	}
	if _, taken := s.keyOwner(a); taken {
		return ErrKeyConflict
	}
	return nil
}

// keyOwner is another node that a key of the admit belongs to.
func (s *State) keyOwner(a *Admit) (identity.PeerID, bool) {
	if i, ok := s.wg[a.WG]; ok && s.History[i].ID != a.Node {
		return s.History[i].ID, true
	}
	if i, ok := s.disco[a.Disco]; ok && s.History[i].ID != a.Node {
		return s.History[i].ID, true
	}
	return identity.PeerID{}, false
}

// stateCache is the last State with the span of time for which it holds.
type stateCache struct {
	state *State
	from  uint64 // unix milliseconds; nothing that counts was deferred from here on
	until uint64 // the next deferred one, 0: none
}

func (c *stateCache) drop() { c.state = nil }

func (c *stateCache) at(ms uint64) *State {
	if c.state == nil || ms < c.from || c.until != 0 && ms >= c.until {
		return nil
	}
	return c.state
}

// Knows reports whether a node was ever admitted, whatever became of it, or founded the network.
func (l *Ledger) Knows(id identity.PeerID) bool { return l.nodes[id] }

// State is what the ledger means at now, mesh time. It is a function of the statements and records alone: every node
// that has the same ones gets the same.
func (l *Ledger) State(now time.Time) *State { return l.stateAt(millis(now)) }

func (l *Ledger) stateAt(ms uint64) *State {
	if s := l.cache.at(ms); s != nil {
		return s
	}
	t := newTally(l, ms)
	t.facts()
	t.founder()
	t.keptFirst()
	t.others()
	t.finish()
	l.cache = stateCache{state: t.state, from: t.from, until: t.until}
	return t.state
}

// settled is the State once nothing is deferred any more.
func (l *Ledger) settled() *State {
	if c := &l.cache; c.state != nil && c.until == 0 {
		return c.state
	}
	return l.stateAt(maxTime)
}
