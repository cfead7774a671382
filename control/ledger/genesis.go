package ledger

import (
	"net/netip"
	"strings"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/netmap"
)

// GenesisVersion is the version of genesis that this release writes and reads.
const GenesisVersion = 1

// Genesis is how a network began, signed by its founder. Its hash is the network's id. Immutable.
type Genesis struct {
	Version    uint64             `cbor:"0,keyasint"`
	Name       string             `cbor:"1,keyasint"`
	Created    uint64             `cbor:"2,keyasint"` // unix seconds
	Founder    identity.PeerID    `cbor:"3,keyasint"`
	WG         identity.WGKey     `cbor:"4,keyasint"` // the founder has no admit: its keys are here
	Disco      identity.DiscoKey  `cbor:"5,keyasint"`
	Generation uint32             `cbor:"6,keyasint"`
	Addr4      [4]byte            `cbor:"7,keyasint"`
	Bits4      uint8              `cbor:"8,keyasint"`
	Suffix     string             `cbor:"9,keyasint"`
	Recovery   *identity.PeerID   `cbor:"10,keyasint,omitempty"` // an offline key above the founder
	Commit     identity.Secret    `cbor:"11,keyasint"`           // Commit of the first network key; public
	ID         identity.NetworkID `cbor:"-"`
	Signed     Signed             `cbor:"-"`
}

// FoundParams are the founder's choices.
type FoundParams struct {
	Name     string           // an LDH label in lower case
	Prefix4  netip.Prefix     // /8 to /20
	Suffix   string           // default "<Name>.internal"
	Recovery *identity.PeerID // default none
}

// Found makes the genesis of a new network with network key k. Its errors are ErrName and ErrPrefix4.
func Found(founder *identity.Identity, params FoundParams, k identity.Secret, now time.Time) (*Genesis, error) {
	if params.Suffix == "" {
		params.Suffix = params.Name + ".internal"
	}
	if !params.Prefix4.IsValid() || !params.Prefix4.Addr().Is4() {
		return nil, ErrPrefix4
	}
	g := &Genesis{
		Version: GenesisVersion, Name: params.Name, Created: uint64(max(0, now.Unix())),
		Founder: founder.ID(), WG: founder.WG(), Disco: founder.Disco(), Generation: founder.Generation(),
		Addr4: params.Prefix4.Masked().Addr().As4(), Bits4: uint8(params.Prefix4.Bits()),
		Suffix: params.Suffix, Recovery: params.Recovery, Commit: Commit(k),
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	body := dcbor.Marshal(g)
	return ParseGenesis(Signed{body, founder.Sign(identity.PurposeGenesis, identity.NetworkID{}, body)})
}

// ParseGenesis reads a genesis and checks its signature.
func ParseGenesis(s Signed) (*Genesis, error) {
	if len(s.Body) > maxRecord {
		return nil, ErrTooLarge
	}
	g := new(Genesis)
	if err := decode(s.Body, g, 11); err != nil {
		return nil, err
	}
	if g.Version != GenesisVersion {
		return nil, ErrNewer
	}
	if g.check() != nil || g.Created > maxTime/1000 {
		return nil, ErrMalformed
	}
	if identity.Verify(g.Founder, identity.PurposeGenesis, identity.NetworkID{}, s.Body, s.Sig) != nil {
		return nil, ErrBadSignature
	}
	g.ID = identity.NetworkID(identity.Sum(identity.PurposeGenesis, s.Body))
	g.Signed = s
	return g, nil
}

func (g *Genesis) check() error {
	if !validLabel(g.Name) || !validSuffix(g.Suffix) {
		return ErrName
	}
	p := g.Prefix4()
	if g.Bits4 < 8 || g.Bits4 > 20 || p.Masked() != p {
		return ErrPrefix4
	}
	return nil
}

// Prefix4 holds the members' IPv4 addresses.
func (g *Genesis) Prefix4() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4(g.Addr4), int(g.Bits4))
}

// Network is what all members share.
func (g *Genesis) Network() netmap.Network {
	return netmap.Network{
		ID: g.ID, Name: g.Name, Suffix: g.Suffix, Prefix4: g.Prefix4(), Prefix6: netmap.Prefix6(g.ID),
	}
}

// validSuffix leaves room below it for a member's name and a service's: 253 bytes are all that DNS has.
func validSuffix(s string) bool {
	if len(s) > 120 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}
