package control

import (
	"errors"
	"net/netip"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// Bounds of what a node says about itself, in bytes and entries.
const (
	maxCard      = 2 << 10
	maxReach     = 512
	maxEndpoints = 12
	maxText      = 64
)

// Errors of cards and reaches.
var (
	ErrCard  = errors.New("malformed card")
	ErrReach = errors.New("malformed reach")
)

// Card is what a node says about itself and everybody keeps. It changes rarely. Immutable once signed.
type Card struct {
	Node       identity.PeerID   `cbor:"0,keyasint"`
	Seq        uint64            `cbor:"1,keyasint"` // above that of every card before
	Name       string            `cbor:"2,keyasint"` // what it would like to be called
	Boot       [8]byte           `cbor:"3,keyasint"` // of the run that made it
	Version    string            `cbor:"4,keyasint"`
	Roles      []string          `cbor:"5,keyasint,omitempty"`
	WG         identity.WGKey    `cbor:"6,keyasint"`
	Disco      identity.DiscoKey `cbor:"7,keyasint"`
	Generation uint32            `cbor:"8,keyasint"`
	Relay      string            `cbor:"9,keyasint,omitempty"` // URL of the relay server that it offers
	signed     []byte
}

// Reach is where a node may be found. It changes often. Immutable once signed.
type Reach struct {
	Node      identity.PeerID `cbor:"0,keyasint"`
	Seq       uint64          `cbor:"1,keyasint"`
	Endpoints [][]byte        `cbor:"2,keyasint,omitempty"` // address 4 or 16 ‖ port 2
	Host      [8]byte         `cbor:"3,keyasint"`           // the same for nodes of one host
	Port      uint16          `cbor:"4,keyasint"`           // its socket's
	Homes     []reachHome     `cbor:"5,keyasint,omitempty"` // at most maxHomes
	NAT       uint64          `cbor:"6,keyasint,omitempty"` // netmap.NAT, or what a newer version knows
	Relays    bool            `cbor:"7,keyasint,omitempty"` // between members that ask
	signed    []byte
}

func (c *Card) sign(id *identity.Identity, network identity.NetworkID) *Card {
	body := dcbor.Marshal(c)
	c.signed = ledger.Signed{Body: body, Sig: id.Sign(identity.PurposeCard, network, body)}.Marshal()
	return c
}

// parseCard reads a card and checks its signature.
func parseCard(raw []byte, network identity.NetworkID) (*Card, error) {
	c, err := decodeCard(raw)
	if err != nil {
		return nil, err
	}
	return c, c.verify(network)
}

// decodeCard reads a card that nobody has vouched for yet. It keeps raw, which must not be changed any more.
func decodeCard(raw []byte) (*Card, error) {
	c := new(Card)
	if err := openSigned(raw, maxCard, c); err != nil {
		return nil, ErrCard
	}
	if len(c.Name) > maxText || len(c.Version) > maxText || len(c.Roles) > 8 || c.Seq > 1<<53 ||
		c.Relay != "" && !ledger.ValidRelayURL(c.Relay) {
		return nil, ErrCard
	}
	for _, r := range c.Roles {
		if len(r) > maxText {
			return nil, ErrCard
		}
	}
	c.signed = raw
	return c, nil
}

func (c *Card) verify(network identity.NetworkID) error {
	s, err := ledger.ParseSigned(c.signed)
	if err != nil {
		return err
	}
	return identity.Verify(c.Node, identity.PurposeCard, network, s.Body, s.Sig)
}

func (r *Reach) sign(id *identity.Identity, network identity.NetworkID) *Reach {
	body := dcbor.Marshal(r)
	r.signed = ledger.Signed{Body: body, Sig: id.Sign(identity.PurposeReach, network, body)}.Marshal()
	return r
}

// parseReach reads a reach and checks its signature.
func parseReach(raw []byte, network identity.NetworkID) (*Reach, error) {
	r, err := decodeReach(raw)
	if err != nil {
		return nil, err
	}
	return r, r.verify(network)
}

// decodeReach reads a reach that nobody has vouched for yet. It keeps raw, which must not be changed any more.
func decodeReach(raw []byte) (*Reach, error) {
	r := new(Reach)
	if err := openSigned(raw, maxReach, r); err != nil || len(r.Endpoints) > maxEndpoints || len(r.Homes) > maxHomes ||
		r.Seq > 1<<53 {
		return nil, ErrReach
	}
	for _, e := range r.Endpoints {
		if _, err := parseEndpoint(e); err != nil {
			return nil, err
		}
	}
	for i := range r.Homes {
		if !r.Homes[i].valid() {
			return nil, ErrReach
		}
	}
	r.signed = raw
	return r, nil
}

func (r *Reach) verify(network identity.NetworkID) error {
	s, err := ledger.ParseSigned(r.signed)
	if err != nil {
		return err
	}
	return identity.Verify(r.Node, identity.PurposeReach, network, s.Body, s.Sig)
}

// openSigned parses a signed CBOR value into v. The caller verifies the signature. What a newer version added is
// passed on and ignored.
func openSigned(raw []byte, limit int, v any) error {
	if len(raw) > limit+128 {
		return ErrCard
	}
	s, err := ledger.ParseSigned(raw)
	if err != nil {
		return err
	}
	if len(s.Body) > limit {
		return ErrCard
	}
	if err := dcbor.Unmarshal(s.Body, v); err != nil && !errors.Is(err, dcbor.ErrUnknownCritical) {
		return err
	}
	return nil
}

func encodeEndpoint(a netip.AddrPort) []byte {
	b := a.Addr().Unmap().WithZone("").AsSlice()
	return append(b, byte(a.Port()>>8), byte(a.Port()))
}

func parseEndpoint(b []byte) (netip.AddrPort, error) {
	if len(b) != 6 && len(b) != 18 {
		return netip.AddrPort{}, ErrReach
	}
	ip, _ := netip.AddrFromSlice(b[:len(b)-2])
	port := uint16(b[len(b)-2])<<8 | uint16(b[len(b)-1])
	if ip != ip.Unmap() || ip.IsUnspecified() || ip.IsMulticast() || port == 0 {
		return netip.AddrPort{}, ErrReach
	}
	return netip.AddrPortFrom(ip, port), nil
}

// addrs are the endpoints of a reach that parsed.
func (r *Reach) addrs() []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range r.Endpoints {
		if a, err := parseEndpoint(e); err == nil {
			all = append(all, a)
		}
	}
	return all
}
