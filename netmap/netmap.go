package netmap

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// Network is what all members share.
type Network struct {
	ID      identity.NetworkID
	Name    string
	Suffix  string       // DNS suffix, "<name>.internal"
	Prefix4 netip.Prefix // IPv4 addresses of members
	Prefix6 netip.Prefix // the /48 of services, identity and control addresses
}

// Source tells where an endpoint was learnt.
type Source string

// The sources of endpoints, as `status` prints them.
const (
	SourceLocal   Source = "local"   // an interface address
	SourceSTUN    Source = "stun"    // a STUN server's answer
	SourcePortmap Source = "portmap" // a port mapping
	SourcePeer    Source = "peer"    // what a member saw
	SourceStatic  Source = "static"  // --advertise
)

// Endpoint is an underlay address where a node may be reached.
type Endpoint struct {
	Addr   netip.AddrPort
	Source Source
}

// Role is what a member is, beyond being a member.
type Role string

// The roles.
const (
	RoleAdmin Role = "admin"
	RoleRelay Role = "relay"
)

// NAT says how a node's NATs choose the outside address of its socket (mapping, RFC 5780 §4.3).
type NAT uint8

// The kinds of mapping.
const (
	NATUnknown NAT = iota
	NATNone        // no translation
	NATEasy        // the same mapping for every destination: others can be told of it
	NATHard        // a mapping per destination
	NATBlocked     // no UDP leaves or comes back
)

// Home is where a node can always be signalled: a relay server that it is connected to, or a member that it keeps a
// path to. Exactly one of the two is set.
type Home struct {
	Relay  string // URL of the server
	Member identity.PeerID
}

// Peer is one unrevoked member. The zero Name means that its card has not come yet.
type Peer struct {
	ID       identity.PeerID
	Name     string // unique within the network, a DNS label
	FQDN     string // Name, network and suffix, without the last dot
	IP4      netip.Addr
	IP6      netip.Addr
	Control  netip.Addr // its control address; never routed to the OS
	WG       identity.WGKey
	Disco    identity.DiscoKey
	FloorPSK identity.Secret // of this node and the peer; zero on Self
	Roles    []Role
	Tags     []string
	Admitted time.Time
	Version  string
	// Endpoints are where its reach says it may be found, ours by memory first. Bounded by control.
	Endpoints []netip.AddrPort
	Homes     []Home // at most 2
	NAT       NAT
	Relays    bool   // it relays between members that ask
	RelayURL  string // of the relay server that it runs, where an admin allows it; "": none
}

// IPs are the addresses that programs use.
func (p *Peer) IPs() []netip.Addr { return []netip.Addr{p.IP4, p.IP6} }

// HasRole reports whether the peer has the role.
func (p *Peer) HasRole(r Role) bool { return slices.Contains(p.Roles, r) }

func (p *Peer) equal(o *Peer) bool {
	return p.ID == o.ID && p.Name == o.Name && p.FQDN == o.FQDN && p.IP4 == o.IP4 && p.IP6 == o.IP6 &&
		p.Control == o.Control && p.WG == o.WG && p.Disco == o.Disco && p.FloorPSK == o.FloorPSK &&
		p.Admitted.Equal(o.Admitted) && p.Version == o.Version && slices.Equal(p.Roles, o.Roles) &&
		slices.Equal(p.Tags, o.Tags) && slices.Equal(p.Endpoints, o.Endpoints) && slices.Equal(p.Homes, o.Homes) &&
		p.NAT == o.NAT && p.Relays == o.Relays && p.RelayURL == o.RelayURL
}

// Map is everything at one moment. Immutable.
type Map struct {
	Network Network
	Self    Peer
	Peers   []Peer // ordered by ID, without Self
	// Keys are the generations of the network key, newest first; never empty on a member.
	Keys []identity.Secret
}

// Peer finds a peer by id, or nil. The result must not be changed.
func (m *Map) Peer(id identity.PeerID) *Peer {
	i, ok := slices.BinarySearchFunc(m.Peers, id, func(p Peer, id identity.PeerID) int { return p.ID.Compare(id) })
	if !ok {
		return nil
	}
	return &m.Peers[i]
}

// ByIP finds the peer (or Self) that owns one of its three addresses, or nil.
func (m *Map) ByIP(ip netip.Addr) *Peer {
	if m.Self.owns(ip) {
		return &m.Self
	}
	for i := range m.Peers {
		if m.Peers[i].owns(ip) {
			return &m.Peers[i]
		}
	}
	return nil
}

func (p *Peer) owns(ip netip.Addr) bool {
	return ip.IsValid() && (ip == p.IP4 || ip == p.IP6 || ip == p.Control)
}

// ByName finds the peers that name may mean: a name, an FQDN, a PeerID, or an address. Self is found too. nil when
// there is none.
func (m *Map) ByName(name string) *Peer {
	if ip, err := netip.ParseAddr(name); err == nil {
		return m.ByIP(ip)
	}
	if id, err := identity.ParsePeerID(name); err == nil {
		if id == m.Self.ID {
			return &m.Self
		}
		return m.Peer(id)
	}
	name = lower(name)
	if m.Self.named(name) {
		return &m.Self
	}
	for i := range m.Peers {
		if m.Peers[i].named(name) {
			return &m.Peers[i]
		}
	}
	return nil
}

// named takes a name in lower case.
func (p *Peer) named(name string) bool {
	return p.Name != "" && (name == p.Name || name == p.FQDN || len(name) == len(p.FQDN)+1 && strings.TrimSuffix(name, ".") == p.FQDN)
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Changes is what differs between two maps. Changed holds the new values.
type Changes struct {
	Added, Changed []*Peer
	Removed        []*Peer
	Self           bool // the node's own entry, the network or the keys differ
}

// Empty reports whether nothing differs.
func (c Changes) Empty() bool {
	return len(c.Added) == 0 && len(c.Changed) == 0 && len(c.Removed) == 0 && !c.Self
}

// Diff compares two maps; old may be nil. The peers point into the maps.
func Diff(old, new *Map) Changes {
	var c Changes
	if old == nil {
		old = &Map{}
	}
	c.Self = old.Network != new.Network || !old.Self.equal(&new.Self) || !slices.Equal(old.Keys, new.Keys)
	i := 0
	for j := range new.Peers {
		next := &new.Peers[j]
		for i < len(old.Peers) && old.Peers[i].ID.Compare(next.ID) < 0 {
			c.Removed = append(c.Removed, &old.Peers[i])
			i++
		}
		switch {
		case i == len(old.Peers) || old.Peers[i].ID != next.ID:
			c.Added = append(c.Added, next)
		default:
			if !old.Peers[i].equal(next) {
				c.Changed = append(c.Changed, next)
			}
			i++
		}
	}
	for ; i < len(old.Peers); i++ {
		c.Removed = append(c.Removed, &old.Peers[i])
	}
	return c
}
