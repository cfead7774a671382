package main

import (
	"net/netip"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/internal/safefile"
)

const rosterName = "roster.cbor"

// roster is what a swarm has to know: whom it plays, and to whom it talks. It holds the members' private keys.
type roster struct {
	Node    identity.WGKey `cbor:"0,keyasint"`
	Outer   string         `cbor:"1,keyasint"` // address and port of the node
	Inner   string         `cbor:"2,keyasint"` // its IPv4 address in the network
	Members []rosterMember `cbor:"3,keyasint"`
}

type rosterMember struct {
	Private identity.Secret `cbor:"0,keyasint"` // of WireGuard
	PSK     identity.Secret `cbor:"1,keyasint"`
	Outer   string          `cbor:"2,keyasint"` // address and port
	Inner   string          `cbor:"3,keyasint"`
}

// roster lists the first members of a crowd for a node at an address.
func (c *crowd) roster(node netip.AddrPort, active int) *roster {
	r := &roster{Node: c.founder.WG(), Outer: node.String(), Inner: c.inner.String()}
	for _, o := range c.others[:active] {
		r.Members = append(r.Members, rosterMember{
			Private: o.id.WGPrivate(), PSK: c.psk(o.id), Outer: o.outer.String(), Inner: o.inner.String(),
		})
	}
	return r
}

// write puts the roster into a folder.
func (r *roster) write(path string) error {
	dir, err := safefile.Open(path)
	if err != nil {
		return err
	}
	return dir.Write(rosterName, dcbor.Marshal(r))
}

// readRoster reads what write wrote.
func readRoster(path string) (*roster, error) {
	dir, err := safefile.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := dir.Read(rosterName)
	if err != nil {
		return nil, err
	}
	r := new(roster)
	return r, dcbor.Unmarshal(data, r)
}
