package ledger

import (
	"container/heap"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// tolerance is how far ahead of mesh time an acceptance may be. Beyond it waits.
const tolerance = 10 * time.Minute

// tally computes one State. The order of admission is decided once and never gone back on:
//
//	founder ─► keeps by (clock, hash, index) ─► a heap of acceptances by those already in, least
//	           (effective time, hops, admit id) first; each one let in pushes the acceptances it gave
//
// effective = max(time, invite's time, acceptor's effective), so a child never stands before its parent and nobody
// gains by an early date.
type tally struct {
	l       *Ledger
	now     uint64
	state   *State
	invites map[identity.Hash]*Statement
	keeps   []*Statement
	cuts    map[identity.Hash][]*cut // revocations by subject
	names   map[identity.PeerID]string
	leases  map[identity.PeerID]lease
	hops    map[identity.PeerID]int
	decided map[identity.Hash]bool
	queue   candidates
	from    uint64 // see stateCache
	until   uint64
}

// cut is a revocation with the acceptances or admits it lets stand.
type cut struct {
	*revocation
	st      *Statement
	accepts map[identity.Hash]bool
}

func newTally(l *Ledger, now uint64) *tally {
	most := len(l.admissions) + 1
	return &tally{
		l: l, now: now,
		state: &State{
			History: make([]Member, 0, most), Revoked: map[identity.PeerID]time.Time{},
			members: make(map[identity.PeerID]int32, most), inviteIDs: map[identity.Hash]int{}, shortIDs: map[ShortID]int{},
			wg: make(map[identity.WGKey]int32, most), disco: make(map[identity.DiscoKey]int32, most),
		},
		invites: map[identity.Hash]*Statement{},
		cuts:    map[identity.Hash][]*cut{},
		names:   map[identity.PeerID]string{},
		leases:  map[identity.PeerID]lease{},
		hops:    make(map[identity.PeerID]int, most),
		decided: make(map[identity.Hash]bool, most),
	}
}

// facts reads the admins' statements in the order in which the last one counts.
func (t *tally) facts() {
	var acts []*Statement
	for _, st := range t.l.log {
		if t.l.admin(st.Author) {
			acts = append(acts, st)
		}
	}
	slices.SortFunc(acts, compareStatements)
	for rank, st := range acts {
		switch c := st.content.(type) {
		case *InviteTerms:
			t.addInvite(st, c)
		case *revocation:
			t.addCut(st, c)
		case *keeping:
			t.keeps = append(t.keeps, st)
		case *renaming:
			t.names[c.Member] = c.Name
		case *leasing:
			t.leases[c.Member] = lease{c.addr(), rank}
		case *allowing:
			t.allow(c)
		default:
			t.state.UpdateNeeded = true
		}
	}
}

func (t *tally) addInvite(st *Statement, terms *InviteTerms) {
	s := t.state
	t.invites[st.ID] = st
	s.inviteIDs[st.ID] = len(s.Invites)
	s.shortIDs[Short(st.ID)] = len(s.Invites)
	s.Invites = append(s.Invites, Invite{
		ID: st.ID, Short: Short(st.ID), Key: terms.Key, Author: st.Author, Created: fromMillis(st.Time),
		Expires: terms.expires(), Allowed: terms.Uses, Tags: terms.Tags, KID: terms.KID, Generation: terms.Generation,
	})
}

func (t *tally) addCut(st *Statement, r *revocation) {
	c := &cut{revocation: r, st: st, accepts: map[identity.Hash]bool{}}
	if r.Kind == subjectInvite {
		for _, id := range r.Accepts {
			c.accepts[id] = true
		}
	} else {
		subject := identity.PeerID(r.Subject)
		if t.l.admin(subject) {
			return // an admin is revoked in another way
		}
		if _, known := t.state.Revoked[subject]; !known {
			t.state.Revoked[subject] = fromMillis(st.Time)
		}
		t.l.chain(subject, r.Accepts, c.accepts)
	}
	t.cuts[r.Subject] = append(t.cuts[r.Subject], c)
}

// chain collects the acceptances of one member from heads back to its first.
func (l *Ledger) chain(acceptor identity.PeerID, heads []identity.Hash, found map[identity.Hash]bool) {
	if len(heads) == 0 {
		return
	}
	byID := make(map[identity.Hash]*Acceptance, len(l.acceptedBy[acceptor]))
	for _, x := range l.acceptedBy[acceptor] {
		byID[x.ID] = x
	}
	for _, h := range heads {
		for x := byID[h]; x != nil && !found[x.ID]; {
			found[x.ID] = true
			if x.Prev == nil {
				break
			}
			x = byID[*x.Prev]
		}
	}
}

func (t *tally) founder() {
	g := t.l.genesis
	t.enter(Member{
		ID: g.Founder, WG: g.WG, Disco: g.Disco, Generation: g.Generation, Admin: true,
		Admitted: fromSeconds(g.Created),
	})
}

// enter puts a member into the order and offers whom it accepted.
func (t *tally) enter(m Member) {
	s := t.state
	at := int32(len(s.History))
	m.Rename = t.names[m.ID]
	m.Revoked = s.Revoked[m.ID]
	s.History = append(s.History, m)
	s.members[m.ID], s.wg[m.WG], s.disco[m.Disco] = at, at, at
	for _, x := range t.l.acceptedBy[m.ID] {
		t.offer(x, millis(m.Admitted))
	}
}

// offer queues an acceptance by a member unless it is void or deferred. The heads of one made after the revocation of
// its acceptor or of the invite contain it; such a one cannot be among what the revocation lists, so that looking
// there covers both.
func (t *tally) offer(x *Acceptance, acceptorEffective uint64) {
	a := t.l.admissions[x.Admit]
	inv := t.invites[a.Invite]
	if inv == nil || t.deferred(x) || t.cutOff(x) || t.inviteCut(a) {
		return
	}
	terms, _ := inv.Invite()
	effective := max(x.Time, inv.Time, acceptorEffective)
	if terms.expired(effective) {
		return
	}
	heap.Push(&t.queue, candidate{effective, t.hops[x.Acceptor] + 1, a, x})
}

func (t *tally) deferred(x *Acceptance) bool {
	due := x.Time - min(x.Time, uint64(tolerance.Milliseconds()))
	if due <= t.now {
		t.from = max(t.from, due)
		return false
	}
	if t.until == 0 || due < t.until {
		t.until = due
	}
	return true
}

func (t *tally) cutOff(x *Acceptance) bool {
	return slices.ContainsFunc(t.cuts[identity.Hash(x.Acceptor)], func(c *cut) bool {
		return c.Kind == subjectMember && !c.accepts[x.ID]
	})
}

func (t *tally) inviteCut(a *admission) bool {
	return slices.ContainsFunc(t.cuts[a.Invite], func(c *cut) bool {
		return c.Kind == subjectInvite && !c.accepts[a.ID]
	})
}

// keptFirst lets in whom admins keep. A keep is an admin's own word: it needs no acceptance and outlasts expiry and
// every revocation but a later purge.
func (t *tally) keptFirst() {
	for _, st := range t.keeps {
		for _, e := range st.content.(*keeping).Entries {
			a := t.l.admissions[e.Admit]
			if a == nil || t.invites[a.Invite] == nil || t.decided[a.ID] || t.purged(a, st) {
				continue
			}
			t.admit(a, 1, Member{Admitted: fromMillis(e.Time), Acceptor: st.Author, Kept: true, vouch: st.ID})
		}
	}
}

// purged tells whether a purge later than the keep cuts off the invite, or all acceptances.
func (t *tally) purged(a *admission, keep *Statement) bool {
	later := func(c *cut) bool { return c.Purge && keep.before(c.st) }
	for _, c := range t.cuts[a.Invite] {
		if c.Kind == subjectInvite && later(c) && !c.accepts[a.ID] {
			return true
		}
	}
	for _, x := range a.acceptances {
		if !slices.ContainsFunc(t.cuts[identity.Hash(x.Acceptor)], func(c *cut) bool {
			return c.Kind == subjectMember && later(c) && !c.accepts[x.ID]
		}) {
			return false
		}
	}
	return len(a.acceptances) > 0
}

// others lets in the rest, the least candidate first.
func (t *tally) others() {
	for t.queue.Len() > 0 {
		c := heap.Pop(&t.queue).(candidate)
		if t.decided[c.admit.ID] {
			continue
		}
		t.admit(c.admit, c.hops, Member{
			Admitted: fromMillis(c.effective), Acceptor: c.acceptance.Acceptor, vouch: c.acceptance.ID,
		})
	}
}

// admit decides about one admit for good: the earliest of a node counts, within the invite's uses and with keys of
// its own.
func (t *tally) admit(a *admission, hops int, m Member) {
	s := t.state
	t.decided[a.ID] = true
	if _, again := s.members[a.Node]; again {
		return
	}
	if owner, taken := s.keyOwner(a.Admit); taken {
		s.KeyConflicts = append(s.KeyConflicts, KeyConflict{Admit: a.ID, Claimant: a.Node, Owner: owner})
		return
	}
	inv := &s.Invites[s.inviteIDs[a.Invite]]
	if inv.Allowed != 0 && inv.Used >= inv.Allowed {
		inv.Overused++
		return
	}
	inv.Used++
	t.hops[a.Node] = hops
	if !m.Kept {
		s.Unkept = append(s.Unkept, a.ID)
	}
	m.ID, m.WG, m.Disco, m.Generation = a.Node, a.WG, a.Disco, a.Generation
	m.AdmitID, m.InviteID, m.Tags = a.ID, a.Invite, inv.Tags
	t.enter(m)
}

// finish fills in what follows from the order.
func (t *tally) finish() {
	s := t.state
	assign4(t.l.genesis.Prefix4(), s.History, t.leases)
	s.Members = unrevoked(s.History)
	for i := range s.Invites {
		inv := &s.Invites[i]
		inv.Revoked = slices.ContainsFunc(t.cuts[inv.ID], func(c *cut) bool { return c.Kind == subjectInvite })
		if inv.Overused > 0 {
			s.Overused = append(s.Overused, inv.ID)
		}
	}
	for id := range t.l.forked {
		s.Forked = append(s.Forked, id)
	}
	slices.SortFunc(s.Forked, identity.PeerID.Compare)
	if t.until != 0 {
		s.NextDue = fromMillis(t.until)
	}
}

// unrevoked are those who are members now: all of history itself while nobody was revoked.
func unrevoked(history []Member) []Member {
	revoked := func(m Member) bool { return !m.Revoked.IsZero() }
	if !slices.ContainsFunc(history, revoked) {
		return slices.Clip(history)
	}
	members := make([]Member, 0, len(history))
	for i := range history {
		if !revoked(history[i]) {
			members = append(members, history[i])
		}
	}
	return members
}

// candidate is an acceptance by a member, of an admit that is not decided yet.
type candidate struct {
	effective  uint64
	hops       int
	admit      *admission
	acceptance *Acceptance
}

func (c candidate) compare(o candidate) int {
	switch {
	case c.effective != o.effective:
		return order(c.effective < o.effective)
	case c.hops != o.hops:
		return order(c.hops < o.hops)
	case c.admit.ID != o.admit.ID:
		return compareHash(c.admit.ID, o.admit.ID)
	}
	return compareHash(c.acceptance.ID, o.acceptance.ID) // which one vouches; the order is the same
}

func order(less bool) int {
	if less {
		return -1
	}
	return 1
}

// candidates is a heap, the least on top.
type candidates []candidate

func (c candidates) Len() int           { return len(c) }
func (c candidates) Less(i, j int) bool { return c[i].compare(c[j]) < 0 }
func (c candidates) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(v any)        { *c = append(*c, v.(candidate)) }
func (c *candidates) Pop() any {
	last := len(*c) - 1
	v := (*c)[last]
	*c = (*c)[:last]
	return v
}
