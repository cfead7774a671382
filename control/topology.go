package control

import (
	"maps"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/identity"
)

// A small network is a full mesh of sessions; in a larger one everybody keeps those that the ring asks for (package
// ring). Data is a full mesh always.

const (
	// shunAfter failed dials in a row make the ring look for somebody else, for shunFor beyond the backoff, by half more or
	// less. Then the member is tried again: two halves of a network would not find each other otherwise.
	shunAfter = 2
	shunFor   = 2 * time.Minute
	// fullFor is how long somebody is left alone who has no room for a session.
	fullFor = 10 * time.Minute
	// anyBefore is how many of those who were reached last are dialled too, by a node without any session.
	anyBefore = 8
	// lookEvery is how often at most members are looked at in a larger network.
	lookEvery = 250 * time.Millisecond
	// surplusAfter is how old a session is before it may be one too many, and surplusEvery how often one of those ends.
	surplusAfter = 30 * time.Second
	surplusEvery = 2 * time.Second
)

// topology is with whom to keep sessions. Guarded by Mesh.mu.
type topology struct {
	ring   *ring.Ring               // of the unrevoked members, this node among them; nil before the first look
	wanted map[identity.PeerID]bool // nil: everybody
	state  *ledger.State            // whose members the ring has
	// statements and records are how many the ledger had then.
	statements, records int
	stale               bool              // somebody came, left or failed since
	next                time.Time         // to look again; zero: when something changed
	looked              time.Time         // at the members
	later               []identity.PeerID // to be lined up at the next look: the map did not have them yet
	dialAt              time.Time         // no dial before, in a larger network
	endAt               time.Time         // the next surplus session may end; zero: there is none
}

// wants reports whether this node keeps a session with a member. Called with mu held.
func (m *Mesh) wants(id identity.PeerID) bool {
	return m.topology.wanted == nil || m.topology.wanted[id]
}

// arrange looks anew for whom to dial, if there is reason to. Called with mu held.
func (m *Mesh) arrange(now time.Time) {
	t := &m.topology
	if m.memberChange(now) {
		if st := m.ledger.State(m.now()); st != t.state {
			m.setRing(st)
			t.stale = true
		}
	}
	if !t.stale && (t.next.IsZero() || now.Before(t.next)) {
		return
	}
	t.stale, t.next, t.endAt = false, time.Time{}, time.Time{}
	if m.mode == ring.Full {
		t.wanted = nil
		return
	}
	self := m.self.ID()
	reachable := func(id identity.PeerID) bool { return m.mayReach(now, id) }
	if t.wanted == nil {
		t.wanted = make(map[identity.PeerID]bool)
	}
	clear(t.wanted)
	for _, id := range t.ring.Wanted(m.mode, self, reachable) {
		t.wanted[id] = true
		m.lineUp(id)
	}
	if !m.anySession() {
		for _, id := range m.book.lately(anyBefore) {
			t.wanted[id] = true
			m.lineUp(id)
		}
	}
	if len(m.surplus(now)) > 0 {
		t.endAt = now.Add(surplusEvery)
	}
}

// anySession reports whether a session is established. Called with mu held.
func (m *Mesh) anySession() bool {
	for _, s := range m.sessions {
		if s.done {
			return true
		}
	}
	return false
}

// memberChange reports whether to look at who is a member: the ledger has something new, or a time came. Where many
// members come at once, they are gathered. Called with mu held.
func (m *Mesh) memberChange(now time.Time) bool {
	t := &m.topology
	statements, records := m.ledger.Len()
	if t.state != nil && t.statements == statements && t.records == records &&
		(t.state.NextDue.IsZero() || m.now().Before(t.state.NextDue)) {
		return false
	}
	if at := t.looked.Add(lookEvery); m.mode == ring.Ringed && now.Before(at) {
		m.lookAgainBy(at)
		return false
	}
	t.statements, t.records, t.looked = statements, records, now
	return true
}

// setRing makes the ring that of a state's members, by the difference. Called with mu held.
func (m *Mesh) setRing(st *ledger.State) {
	t := &m.topology
	if t.ring == nil {
		t.ring = ring.New(m.network.ID, nil)
	}
	var added, removed []identity.PeerID
	for i := range st.Members {
		if id := st.Members[i].ID; !t.ring.Has(id) {
			added = append(added, id)
		}
	}
	if t.ring.Len()+len(added) > len(st.Members) {
		for id := range t.ring.All() {
			if !st.IsMember(id) {
				removed = append(removed, id)
			}
		}
	}
	t.ring, t.state = t.ring.With(added, removed), st
	was := m.mode
	if m.mode = m.mode.Next(t.ring.Len()); m.mode == ring.Ringed {
		return
	}
	t.wanted = nil
	if was == ring.Ringed {
		added = slices.Collect(t.ring.All())
	}
	for _, id := range added {
		if id != m.self.ID() {
			m.lineUp(id)
		}
	}
}

// mayReach reports whether there is a session with a member, or one is worth a try. Called with mu held.
func (m *Mesh) mayReach(now time.Time, id identity.PeerID) bool {
	if s := m.sessions[id]; s != nil && s.done {
		return true
	}
	e := m.book.entries[id]
	switch {
	case e == nil:
		return true
	case now.Before(e.full):
		m.lookAgainBy(e.full)
		return false
	case now.Before(e.shun):
		m.lookAgainBy(e.shun)
		return false
	}
	return true
}

func (m *Mesh) lookAgainBy(at time.Time) {
	if t := &m.topology; t.next.IsZero() || at.Before(t.next) {
		t.next = at
	}
}

// surplus are the sessions that this node dialled and that neither end wants. Called with mu held.
func (m *Mesh) surplus(now time.Time) []identity.PeerID {
	t := &m.topology
	if m.mode == ring.Full || len(m.sessions) == 0 {
		return nil
	}
	var ours []identity.PeerID
	for _, id := range slices.SortedFunc(maps.Keys(m.sessions), identity.PeerID.Compare) {
		if s := m.sessions[id]; s.done && s.role == dialer && !t.wanted[id] {
			ours = append(ours, id)
		}
	}
	return t.ring.Surplus(m.mode, m.self.ID(), ours, func(id identity.PeerID) bool { return m.mayReach(now, id) })
}

// shed ends a surplus session when its time has come: they go one by one. Called with mu held.
func (m *Mesh) shed(now time.Time) {
	t := &m.topology
	if t.endAt.IsZero() || now.Before(t.endAt) {
		return
	}
	t.endAt = time.Time{}
	more := m.surplus(now)
	for _, id := range more {
		if s := m.sessions[id]; now.Sub(s.pulse.begun) >= surplusAfter {
			m.end(s, reasonSurplus)
			break
		}
	}
	if len(more) > 0 {
		t.endAt = now.Add(surplusEvery)
	}
}
