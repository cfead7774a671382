package relay

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// PassLen is the length of a pass, in bytes:
//
//	version 1 | relay key 32 | subject 32 | expires 8, unix s, big endian | signature 64
//
// The signature is the relay key's, for identity.PurposeRelayPass without a network, over all before it.
const PassLen = passBody + signatureLen

const (
	passVersion = 1
	passBody    = 1 + 32 + 32 + 8
)

// PassGrace is how long a connection outlives the pass it was admitted with.
const PassGrace = 10 * time.Minute

// Errors of passes.
var (
	ErrPassFormat    = errors.New("not a relay pass")
	ErrPassKey       = errors.New("relay pass of a network that is not served here")
	ErrPassSignature = errors.New("relay pass with a bad signature")
	ErrPassSubject   = errors.New("relay pass of another node")
	ErrPassExpired   = errors.New("relay pass expired")
)

// Pass lets a node, or whoever bears it, use the relays that serve a network. Immutable.
type Pass struct {
	RelayKey identity.PeerID // public half of the network's relay pass key
	Subject  identity.PeerID // zero: whoever bears it
	Expires  time.Time       // whole seconds
	body     [passBody]byte
	sig      [signatureLen]byte
}

// NewPass makes a pass with the seed of a network's relay pass key. The zero subject is everybody.
func NewPass(seed identity.Secret, subject identity.PeerID, expires time.Time) []byte {
	key := identity.FromSeed(seed)
	issuer := key.ID()
	p := make([]byte, 0, PassLen)
	p = append(p, passVersion)
	p = append(p, issuer[:]...)
	p = append(p, subject[:]...)
	p = binary.BigEndian.AppendUint64(p, uint64(max(0, expires.Unix())))
	return append(p, key.Sign(identity.PurposeRelayPass, identity.NetworkID{}, p)...)
}

// maxExpiry is the last second a pass can name: far enough, and every duration up to it can be counted.
const maxExpiry = 1<<33 - 1

// ParsePass reads a pass without judging it. Errors: ErrPassFormat.
func ParsePass(b []byte) (*Pass, error) {
	if len(b) != PassLen || b[0] != passVersion {
		return nil, ErrPassFormat
	}
	expires := binary.BigEndian.Uint64(b[65:])
	if expires > maxExpiry {
		return nil, ErrPassFormat
	}
	return &Pass{
		RelayKey: identity.PeerID(b[1:33]),
		Subject:  identity.PeerID(b[33:65]),
		Expires:  time.Unix(int64(expires), 0),
		body:     [passBody]byte(b),
		sig:      [signatureLen]byte(b[passBody:]),
	}, nil
}

// Append appends the pass as it is sent.
func (p *Pass) Append(b []byte) []byte {
	return append(append(b, p.body[:]...), p.sig[:]...)
}

// Verify tells whether node may use a relay that serves the networks of these relay pass keys, at this time. Errors:
// ErrPassKey, ErrPassSubject, ErrPassExpired, ErrPassSignature.
func (p *Pass) Verify(allowed []identity.PeerID, node identity.PeerID, now time.Time) error {
	switch {
	case !slices.Contains(allowed, p.RelayKey):
		return ErrPassKey
	case !p.Subject.IsZero() && p.Subject != node:
		return ErrPassSubject
	case !now.Before(p.Expires):
		return ErrPassExpired
	}
	if identity.Verify(p.RelayKey, identity.PurposeRelayPass, identity.NetworkID{}, p.body[:], p.sig[:]) != nil {
		return ErrPassSignature
	}
	return nil
}
