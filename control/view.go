package control

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control/join"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// publish makes a new map if there is reason to, and tells what happened. Called by Run only.
func (m *Mesh) publish() {
	m.rebuild()
	now := m.current.Load()
	m.mu.Lock()
	events := m.events
	m.events = nil
	m.mu.Unlock()
	if m.cfg.Changed != nil && m.announced != now {
		m.announced = now
		m.cfg.Changed(now)
	}
	if m.cfg.Events != nil {
		for _, e := range events {
			m.cfg.Events(e)
		}
	}
}

// Map is what is known now. Immutable.
func (m *Mesh) Map() *netmap.Map { return m.current.Load() }

// resolveNames gives every member the name it is known by. Called with mu held.
func (m *Mesh) resolveNames(st *ledger.State, now time.Time) map[identity.PeerID]string {
	claims := make([]ledger.NameClaim, 0, len(st.History))
	for i := range st.History {
		member := &st.History[i]
		claim := ledger.NameClaim{ID: member.ID, Rename: member.Rename, Revoked: member.Revoked}
		if c := m.cards[member.ID]; c != nil {
			claim.Card = c.Name
		}
		claims = append(claims, claim)
	}
	names := ledger.UniqueNames(claims, now)
	m.namesDue = time.Time{}
	for _, c := range claims {
		name := names[c.ID]
		wanted := c.Rename != "" || name == c.Card || c.Card == "" || name == ""
		if !wanted && name != ledger.SanitizeName(c.Card) && m.nameOf(c.ID) != name {
			m.events = append(m.events, Event{Type: EventNameConflict, Peer: c.ID, Name: name})
		}
		if free := c.Free(); !c.Revoked.IsZero() && now.Before(free) && (m.namesDue.IsZero() || free.Before(m.namesDue)) {
			m.namesDue = free
		}
	}
	for id := range st.Revoked {
		if name := cmp.Or(names[id], m.nameOf(id)); name != "" {
			m.former[id] = name
		}
	}
	return names
}

// nameOf is what somebody is called now or was called last. Called with mu held.
func (m *Mesh) nameOf(id identity.PeerID) string {
	current := m.current.Load()
	switch {
	case current == nil:
	case id == current.Self.ID:
		return current.Self.Name
	default:
		if p := current.Peer(id); p != nil {
			return p.Name
		}
	}
	return m.former[id]
}

// dropRevoked ends what the revoked still have with us, and tells of new ones. Called with mu held.
func (m *Mesh) dropRevoked(st *ledger.State) {
	for id := range st.Revoked {
		if m.revoked[id] {
			continue
		}
		m.revoked[id] = true
		m.events = append(m.events, Event{Type: EventRevoked, Peer: id})
		if s := m.sessions[id]; s != nil {
			m.end(s, reasonRevoked)
		}
		m.book.forget(id)
	}
	for _, id := range st.Overused {
		if !m.overused[id] {
			m.overused[id] = true
			m.events = append(m.events, Event{Type: EventInviteOverused, Name: id.String()[:16]})
		}
	}
}

// introView is what the answerer needs: K and the PSKs of all invites that are not revoked. Expired and used ones get
// their refusal.
func (m *Mesh) introView(s *sketch) *join.View {
	invites := make(map[ledger.ShortID]identity.Secret, len(s.state.Invites))
	for i := range s.state.Invites {
		inv := &s.state.Invites[i]
		for _, k := range s.keys {
			if ledger.KeyID(k) == inv.KID {
				invites[inv.Short] = ledger.InvitePSK(k, m.network.ID, inv.Short)
			}
		}
	}
	return join.NewView(m.network.ID, s.keys, invites)
}

// Member is a member as the ledger knows it.
type Member struct {
	ledger.Member
	Name    string
	IP6     netip.Addr
	Invited string // the id of its invite; "" for the founder
	Offers  []Offer
}

// Offer is something that a member offers, that admins approved, or both: only then does it count.
type Offer struct {
	What              ledger.Offer
	Value             string // as ledger.Offer says
	Offered, Approved bool
}

// offersOf lists what a member offers, then what else was approved of it. Called with mu held.
func (m *Mesh) offersOf(st *ledger.State, id identity.PeerID) []Offer {
	var all []Offer
	if c := m.cards[id]; c != nil && c.Relay != "" {
		all = append(all, Offer{ledger.OfferRelay, c.Relay, true, st.Allows(id, ledger.OfferRelay, c.Relay)})
	}
	offered := all
	for _, a := range st.Allowances(id) {
		covered := func(o Offer) bool { return o.What == a.What && (a.Value == "" || a.Value == o.Value) }
		if a.Allow && !slices.ContainsFunc(offered, covered) {
			all = append(all, Offer{a.What, a.Value, false, true})
		}
	}
	return all
}

// Members are all that were ever admitted, in order.
func (m *Mesh) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.ledger.State(m.now())
	all := make([]Member, 0, len(st.History))
	for _, h := range st.History {
		one := Member{
			Member: h, Name: m.nameOf(h.ID), IP6: netmap.IdentityAddr(m.network.ID, h.ID), Offers: m.offersOf(st, h.ID),
		}
		if !h.InviteID.IsZero() {
			one.Invited = inviteName(h.InviteID)
		}
		all = append(all, one)
	}
	return all
}

// inviteName is how people call an invite: the part of its id that travels in the clear, in hexadecimal.
func inviteName(id identity.Hash) string { return id.String()[:32] }

// Invite is an invite as the ledger knows it.
type Invite struct {
	ledger.Invite
	Name string
	Open bool
}

// Invites are all invites, in the order in which they were made.
func (m *Mesh) Invites() []Invite {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	var all []Invite
	for _, inv := range m.ledger.State(now).Invites {
		open := !inv.Revoked && (inv.Expires.IsZero() || now.Before(inv.Expires)) &&
			(inv.Allowed == 0 || inv.Used < inv.Allowed)
		all = append(all, Invite{Invite: inv, Name: inviteName(inv.ID), Open: open})
	}
	return all
}

// RelayKey is the relay pass key of the network.
func (m *Mesh) RelayKey() identity.Secret { return m.store.network.RelayKey }

// MeshTime is the mesh's time.
func (m *Mesh) MeshTime() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now()
}
