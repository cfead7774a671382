package datagram

import (
	"net/netip"

	"github.com/meshnet/meshnet/identity"
)

// Place is where a datagram outside of any session comes from or goes to: an underlay address, or a node that relay
// servers lead to. Exactly one of the two is set.
type Place struct {
	Addr  netip.AddrPort
	Relay identity.PeerID // proved to the relay server; the zero id: Addr counts
}

// IsRelay reports whether relay servers lead there.
func (p Place) IsRelay() bool { return !p.Relay.IsZero() }

// String is the address, or "relay " and the node's id.
func (p Place) String() string {
	if p.IsRelay() {
		return "relay " + p.Relay.String()
	}
	return p.Addr.String()
}

// Relayed is a datagram that a relay server brought, and who proved to the server to be its sender.
type Relayed struct {
	From identity.PeerID
	Data []byte
}
