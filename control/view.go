package control

import (
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

// rebuild computes the map and the answerer's view. An unchanged map stays the same value.
func (m *Mesh) rebuild() {
	m.mu.Lock()
	st := m.ledger.State(m.now())
	next := &netmap.Map{Network: m.network, Keys: slices.Clone(m.store.network.Keys)}
	names := m.resolveNames(st)
	for i := range st.Members {
		p := m.peer(&st.Members[i], names)
		if p.ID == m.self.ID() {
			p.FloorPSK = identity.Secret{}
			next.Self = p
			continue
		}
		next.Peers = append(next.Peers, p)
	}
	slices.SortFunc(next.Peers, func(a, b netmap.Peer) int { return a.ID.Compare(b.ID) })
	m.dropRevoked(st)
	m.view.Store(m.introView(st))
	if old := m.current.Load(); old == nil || !netmap.Diff(old, next).Empty() {
		m.current.Store(next)
	}
	m.mu.Unlock()
}

// peer joins what the ledger, the card, the reach and the address book say of a member. Called with mu held.
func (m *Mesh) peer(member *ledger.Member, names map[identity.PeerID]string) netmap.Peer {
	id := member.ID
	p := netmap.Peer{
		ID: id, Name: names[id], IP4: member.IP4,
		IP6: netmap.IdentityAddr(m.network.ID, id), Control: netmap.ControlAddr(m.network.ID, id),
		WG: member.WG, Disco: member.Disco, Tags: slices.Clone(member.Tags), Admitted: member.Admitted,
	}
	if p.Name != "" {
		p.FQDN = p.Name + "." + m.network.Suffix
	}
	if member.Admin {
		p.Roles = append(p.Roles, netmap.RoleAdmin)
	}
	if card := m.cards[id]; card != nil {
		p.Version = card.Version
	}
	if id != m.self.ID() {
		p.FloorPSK = m.floorPSK(member.WG)
		p.Endpoints = m.endpointsOf(id)
	}
	return p
}

// endpointsOf lists where to try a member: what once answered, then what it says, then this host's loopback if it
// runs here. Called with mu held.
func (m *Mesh) endpointsOf(id identity.PeerID) []netip.AddrPort {
	all := m.book.addrs(id)
	add := func(a netip.AddrPort) {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	r := m.reaches[id]
	if r == nil {
		return all
	}
	for _, a := range r.addrs() {
		if !a.Addr().IsLoopback() {
			add(a)
		}
	}
	if r.Host == m.cfg.Host && r.Host != [8]byte{} && r.Port != 0 {
		add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), r.Port))
	}
	slices.SortFunc(all, netip.AddrPort.Compare) // order carries no meaning; a stable one makes maps comparable
	return all
}

// floorPSK is the pair's PSK under the newest network key. Called with mu held.
func (m *Mesh) floorPSK(peer identity.WGKey) identity.Secret {
	k := m.store.network.Keys[0]
	if f, ok := m.floors[peer]; ok && f.k == k {
		return f.psk
	}
	f := floor{k, ledger.FloorPSK(k, m.network.ID, m.self.WG(), peer)}
	m.floors[peer] = f
	return f.psk
}

// resolveNames gives every member the name it is known by. Called with mu held.
func (m *Mesh) resolveNames(st *ledger.State) map[identity.PeerID]string {
	claims := make([]ledger.NameClaim, 0, len(st.History))
	for i := range st.History {
		member := &st.History[i]
		claim := ledger.NameClaim{ID: member.ID, Rename: member.Rename, Revoked: member.Revoked}
		if c := m.cards[member.ID]; c != nil {
			claim.Card = c.Name
		}
		claims = append(claims, claim)
	}
	names := ledger.UniqueNames(claims, m.now())
	for _, c := range claims {
		name, wanted := names[c.ID], ledger.SanitizeName(c.Card)
		if c.Card != "" && c.Rename == "" && name != wanted && name != "" && m.names[c.ID] != name {
			m.events = append(m.events, Event{Type: EventNameConflict, Peer: c.ID, Name: name})
		}
	}
	for id, name := range names {
		m.names[id] = name
	}
	return names
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
// their refusal. Called with mu held.
func (m *Mesh) introView(st *ledger.State) *join.View {
	keys := m.store.network.Keys
	invites := make(map[ledger.ShortID]identity.Secret, len(st.Invites))
	for i := range st.Invites {
		inv := &st.Invites[i]
		for _, k := range keys {
			if ledger.KeyID(k) == inv.KID {
				invites[inv.Short] = ledger.InvitePSK(k, m.network.ID, inv.Short)
			}
		}
	}
	return join.NewView(m.network.ID, keys, invites)
}

// Member is a member as the ledger knows it.
type Member struct {
	ledger.Member
	Name    string
	IP6     netip.Addr
	Invited string // the id of its invite; "" for the founder
}

// Members are all that were ever admitted, in order.
func (m *Mesh) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.ledger.State(m.now())
	all := make([]Member, 0, len(st.History))
	for _, h := range st.History {
		one := Member{Member: h, Name: m.names[h.ID], IP6: netmap.IdentityAddr(m.network.ID, h.ID)}
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
