package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// drawPause is how long what a path taught is gathered before a map has it.
const drawPause = time.Second

// A map is drawn from what sketch takes, with mu held for as long as that takes and no longer:
//
//	ledger's state, keys, names differ ─▶ all members anew, with what is known of them from the map before
//	somebody's card, reach, endpoints  ─▶ the map before, with those members' entries replaced
//	nothing                            ─▶ nothing, at no cost

// drawn is what the current map was made of.
type drawn struct {
	state *ledger.State
	keys  []identity.Secret
}

// sketch is what the next map is made of, beyond the one before.
type sketch struct {
	state  *ledger.State
	keys   []identity.Secret
	whole  bool                       // more differs than what single members say
	rekey  bool                       // the keys do
	names  map[identity.PeerID]string // of a whole map
	said   map[identity.PeerID]said   // by those of whom something is new
	joined []identity.PeerID          // members that the map before does not have
}

// said is what a member's card, its reach and the address book tell.
type said struct {
	version   string
	endpoints []netip.AddrPort
	homes     []netmap.Home
	nat       netmap.NAT
	relays    bool
	relayURL  string // as far as admins allow it
}

// of reports whether a member's entry says the same.
func (x *said) of(p *netmap.Peer) bool {
	return p.Version == x.version && slices.Equal(p.Endpoints, x.endpoints) && slices.Equal(p.Homes, x.homes) &&
		p.NAT == x.nat && p.Relays == x.relays && p.RelayURL == x.relayURL
}

func (x *said) put(p *netmap.Peer) {
	p.Version, p.Endpoints, p.Homes, p.NAT, p.Relays, p.RelayURL = x.version, x.endpoints, x.homes, x.nat, x.relays, x.relayURL
	if (p.RelayURL != "") != p.HasRole(netmap.RoleRelay) {
		p.Roles = rolesOf(p.HasRole(netmap.RoleAdmin), p.RelayURL != "")
	}
}

// touch has the map made anew at a time, for what is new of a member. Called with mu held.
func (m *Mesh) touch(id identity.PeerID, at time.Time) {
	m.touched[id] = struct{}{}
	if m.drawAt.IsZero() || at.Before(m.drawAt) {
		m.drawAt = at
	}
}

// rebuild makes the map and the answerer's view what is known now. An unchanged map stays the same value.
func (m *Mesh) rebuild() {
	m.drawing.Lock()
	defer m.drawing.Unlock()
	s := m.sketch()
	if s == nil {
		return
	}
	old := m.current.Load()
	next := old
	if s.whole {
		if next = m.drawAll(old, s); old != nil && netmap.Diff(old, next).Empty() {
			next = old
		}
	} else {
		next = m.drawSome(old, s)
	}
	if s.state != m.drawn.state || s.rekey {
		m.view.Store(m.introView(s))
	}
	m.current.Store(next)
	m.drawn = drawn{s.state, s.keys}
}

// sketch takes what the next map is made of; nil: the current one is right. Called with drawing held.
func (m *Mesh) sketch() *sketch {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	s := &sketch{state: m.ledger.State(now), keys: m.drawn.keys}
	if s.rekey = !slices.Equal(s.keys, m.store.network.Keys); s.rekey {
		s.keys = slices.Clone(m.store.network.Keys)
	}
	s.whole = s.state != m.drawn.state || s.rekey || m.renamed || !m.namesDue.IsZero() && !now.Before(m.namesDue)
	if !s.whole && (m.drawAt.IsZero() || m.wall().Before(m.drawAt)) {
		return nil
	}
	if s.state != m.drawn.state {
		m.dropRevoked(s.state)
		s.joined = m.joined(s.state)
	}
	s.said = make(map[identity.PeerID]said, len(m.touched)+len(s.joined))
	for _, id := range s.joined {
		s.said[id] = m.saidBy(s.state, id)
	}
	for id := range m.touched {
		s.said[id] = m.saidBy(s.state, id)
	}
	if s.whole {
		m.weighOffers(s)
		s.names = m.resolveNames(s.state, now)
	}
	m.touched, m.drawAt, m.renamed = make(map[identity.PeerID]struct{}), time.Time{}, false
	return s
}

// joined are the members, this node among them, that the last map was made without. Called with drawing held.
func (m *Mesh) joined(st *ledger.State) []identity.PeerID {
	var all []identity.PeerID
	if m.drawn.state == nil {
		all = make([]identity.PeerID, 0, len(st.Members))
	}
	for i := range st.Members {
		if id := st.Members[i].ID; m.drawn.state == nil || !m.drawn.state.IsMember(id) {
			all = append(all, id)
		}
	}
	return all
}

// weighOffers looks anew at whoever offers something: the ledger may have come to allow it, or to forbid it. Called with
// mu held.
func (m *Mesh) weighOffers(s *sketch) {
	for id, card := range m.cards {
		if card.Relay != "" {
			s.said[id] = m.saidBy(s.state, id)
		}
	}
}

// saidBy joins what the card, the reach and the address book say of a member. Called with mu held.
func (m *Mesh) saidBy(st *ledger.State, id identity.PeerID) (x said) {
	if card := m.cards[id]; card != nil {
		x.version = card.Version
		if card.Relay != "" && st.Allows(id, ledger.OfferRelay, card.Relay) {
			x.relayURL = card.Relay
		}
	}
	if reach := m.reaches[id]; reach != nil {
		x.homes, x.nat, x.relays = reach.homes(), reach.nat(), reach.Relays
	}
	if id != m.self.ID() {
		x.endpoints = m.endpointsOf(id)
	}
	return x
}

// endpointsOf lists where to try a member: what once answered, in an order that is the same until there are others; then
// what it says, as it says it; then this host's loopback if it runs here. Called with mu held.
func (m *Mesh) endpointsOf(id identity.PeerID) []netip.AddrPort {
	all := m.book.addrs(id)
	slices.SortFunc(all, netip.AddrPort.Compare)
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
	return all
}

// drawAll draws every member. What stays of one is taken from the map before; old may be nil.
func (m *Mesh) drawAll(old *netmap.Map, s *sketch) *netmap.Map {
	if old == nil {
		old = new(netmap.Map)
	}
	members := s.state.Members
	order := make([]int32, len(members))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return members[a].ID.Compare(members[b].ID) })
	next := &netmap.Map{Network: m.network, Keys: s.keys, Peers: make([]netmap.Peer, 0, len(members))}
	rest := old.Peers
	for _, i := range order {
		member := &members[i]
		if member.ID == m.self.ID() {
			next.Self = m.draw(&old.Self, member, s)
			continue
		}
		for len(rest) > 0 && rest[0].ID.Compare(member.ID) < 0 {
			rest = rest[1:]
		}
		var before *netmap.Peer
		if len(rest) > 0 {
			before = &rest[0]
		}
		next.Peers = append(next.Peers, m.draw(before, member, s))
	}
	return next
}

// draw draws a member, from its entry before unless that is nil or somebody else's.
func (m *Mesh) draw(before *netmap.Peer, member *ledger.Member, s *sketch) netmap.Peer {
	id := member.ID
	var p netmap.Peer
	if before != nil && before.ID == id {
		p = *before
	} else {
		p.ID, p.IP6, p.Control = id, netmap.IdentityAddr(m.network.ID, id), netmap.ControlAddr(m.network.ID, id)
	}
	if id != m.self.ID() && (p.WG != member.WG || s.rekey) {
		p.FloorPSK = ledger.FloorPSK(s.keys[0], m.network.ID, m.self.WG(), member.WG)
	}
	p.IP4, p.WG, p.Disco, p.Tags, p.Admitted = member.IP4, member.WG, member.Disco, member.Tags, member.Admitted
	if member.Admin != p.HasRole(netmap.RoleAdmin) {
		p.Roles = rolesOf(member.Admin, p.HasRole(netmap.RoleRelay))
	}
	if name := s.names[id]; name != p.Name {
		p.Name, p.FQDN = name, fqdn(name, m.network.Suffix)
	}
	if x, ok := s.said[id]; ok {
		x.put(&p)
	}
	return p
}

func rolesOf(admin, relay bool) []netmap.Role {
	var all []netmap.Role
	if admin {
		all = append(all, netmap.RoleAdmin)
	}
	if relay {
		all = append(all, netmap.RoleRelay)
	}
	return all
}

func fqdn(name, suffix string) string {
	if name == "" {
		return ""
	}
	return name + "." + suffix
}

// drawSome draws the members of whom something is new; old itself when that makes no difference.
func (m *Mesh) drawSome(old *netmap.Map, s *sketch) *netmap.Map {
	next := old
	for id, x := range s.said {
		p := next.Peer(id)
		if id == m.self.ID() {
			p = &next.Self
		}
		if p == nil || x.of(p) {
			continue
		}
		if next == old {
			next = &netmap.Map{Network: old.Network, Self: old.Self, Keys: old.Keys, Peers: slices.Clone(old.Peers)}
			if p = &next.Self; id != m.self.ID() {
				p = next.Peer(id)
			}
		}
		x.put(p)
	}
	return next
}
