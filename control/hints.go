package control

import (
	"net/netip"
	"slices"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// sharedSpace is what carriers number their customers from (RFC 6598): no address that others reach.
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// public reports whether a host anywhere may reach the address.
func public(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}

// hintFor is a hint that leads to a node by an address.
func hintFor(id identity.PeerID, a netip.AddrPort) ledger.Hint {
	return ledger.Hint{Addr: a.String(), Node: id}
}

// relayHints are those that lead to a node by its relay servers.
func relayHints(id identity.PeerID, homes []netmap.Home) []ledger.Hint {
	var all []ledger.Hint
	for _, h := range homes {
		if h.Relay != "" {
			all = append(all, ledger.Hint{Addr: h.Relay, Node: id})
		}
	}
	return all
}

// hints are where the holder of a token may ask. One of each kind comes first: this node's best public address, its
// relay server, another member, which counts when this node is off, and an address for those on the same network. The
// rest follows in the same order, as far as there is room.
func (m *Mesh) hints() []ledger.Hint {
	m.mu.Lock()
	own := m.here
	m.mu.Unlock()
	self := m.self.ID()
	var outside, inside []ledger.Hint
	for _, a := range own.Endpoints {
		if public(a.Addr()) {
			outside = append(outside, hintFor(self, a))
		} else {
			inside = append(inside, hintFor(self, a))
		}
	}
	var first, rest []ledger.Hint
	for _, kind := range [][]ledger.Hint{outside, relayHints(self, own.Homes), m.otherHints(), inside} {
		first = append(first, kind[:min(1, len(kind))]...)
		rest = append(rest, kind[min(1, len(kind)):]...)
	}
	all := append(first, rest...)
	return all[:min(len(all), ledger.MaxHints)]
}

// otherHints lead to the members that are in session with us, one each: first those that a relay server leads to, then
// those that anybody reaches, then the others.
func (m *Mesh) otherHints() []ledger.Hint {
	var all [3][]ledger.Hint
	current := m.current.Load()
	for _, id := range m.Sessions() {
		p := current.Peer(id)
		if p == nil {
			continue
		}
		if relays := relayHints(id, p.Homes); len(relays) > 0 {
			all[0] = append(all[0], relays[0])
			continue
		}
		open := func(a netip.AddrPort) bool { return public(a.Addr()) }
		if i := slices.IndexFunc(p.Endpoints, open); i >= 0 && p.NAT == netmap.NATNone {
			all[1] = append(all[1], hintFor(id, p.Endpoints[i]))
			continue
		}
		m.mu.Lock()
		good := m.book.addrs(id)
		m.mu.Unlock()
		if len(good) > 0 {
			all[2] = append(all[2], hintFor(id, good[0]))
		}
	}
	return slices.Concat(all[:]...)
}

// Contactable reports whether somebody who reaches nobody here directly has a way to this node, and to some other
// member: a relay server that it is connected to or runs, or a public address that no NAT is known to hide. While both
// are false, two nodes behind two NATs cannot meet.
func (m *Mesh) Contactable() (self, others bool) {
	current := m.current.Load()
	m.mu.Lock()
	mine := netmap.Peer{
		Endpoints: m.here.Endpoints, Homes: m.here.Homes, NAT: m.here.NAT, RelayURL: current.Self.RelayURL,
	}
	m.mu.Unlock()
	for i := range current.Peers {
		if others = contactable(&current.Peers[i]); others {
			break
		}
	}
	return contactable(&mine), others
}

func contactable(p *netmap.Peer) bool {
	if p.RelayURL != "" || relayed(p) {
		return true
	}
	return p.NAT <= netmap.NATNone && slices.ContainsFunc(p.Endpoints, func(a netip.AddrPort) bool { return public(a.Addr()) })
}

// relayed reports whether a relay server leads to a member.
func relayed(p *netmap.Peer) bool {
	return slices.ContainsFunc(p.Homes, func(h netmap.Home) bool { return h.Relay != "" })
}

// relaysLead reports whether relay servers lead to anybody here.
func (m *Mesh) relaysLead() bool {
	current := m.current.Load()
	if relayed(&current.Self) {
		return true
	}
	for i := range current.Peers {
		if relayed(&current.Peers[i]) {
			return true
		}
	}
	return false
}
