package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// WGKey is an X25519 public key that WireGuard knows a peer by.
type WGKey [32]byte

// Hex is the form of the WireGuard configuration protocol.
func (k WGKey) Hex() string { return hex.EncodeToString(k[:]) }

// DiscoKey is an X25519 public key that seals contact packets.
type DiscoKey [32]byte

// Identity is a node's seed with all keys derived from it. Immutable.
type Identity struct {
	seed       Secret
	node       ed25519.PrivateKey
	id         PeerID
	generation uint32
	wg         *ecdh.PrivateKey
	disco      *ecdh.PrivateKey
}

// New makes a fresh identity.
func New() *Identity { return FromSeed(NewSecret()) }

// FromSeed derives the identity of seed, with generation 0 of its rotating keys.
func FromSeed(seed Secret) *Identity { return FromSeedGeneration(seed, 0) }

// FromSeedGeneration derives the identity of seed whose WireGuard and disco keys are of the given generation. The
// PeerID is the same for all of them.
func FromSeedGeneration(seed Secret, generation uint32) *Identity {
	node := ed25519.NewKeyFromSeed(seed[:])
	return &Identity{
		seed:       seed,
		node:       node,
		id:         PeerID(node.Public().(ed25519.PublicKey)),
		generation: generation,
		wg:         rotatingKey(seed, "meshnet/wireguard-key/v1", generation),
		disco:      rotatingKey(seed, "meshnet/disco-key/v1", generation),
	}
}

func rotatingKey(seed Secret, purpose string, generation uint32) *ecdh.PrivateKey {
	raw := Derive(seed[:], NetworkID{}, purpose, binary.BigEndian.AppendUint32(nil, generation))
	raw[0] &= 248 // clamped as WireGuard stores it (RFC 7748 §5)
	raw[31] = raw[31]&127 | 64
	key, err := ecdh.X25519().NewPrivateKey(raw[:])
	if err != nil {
		panic("identity: x25519: " + err.Error()) // only a wrong length fails
	}
	return key
}

// Format prints the node's id under every verb, and no key. The receiver is a value so that copies hide theirs too.
func (i Identity) Format(f fmt.State, _ rune) { io.WriteString(f, "[identity of "+i.id.String()+"]") }

// LogValue is the node's id.
func (i Identity) LogValue() slog.Value { return slog.StringValue(i.id.String()) }

// ID is the node's public name.
func (i *Identity) ID() PeerID { return i.id }

// Seed is the secret everything comes from. Whoever has it is this node.
func (i *Identity) Seed() Secret { return i.seed }

// Generation is that of the WireGuard and disco keys.
func (i *Identity) Generation() uint32 { return i.generation }

// WG is the public WireGuard key.
func (i *Identity) WG() WGKey { return WGKey(i.wg.PublicKey().Bytes()) }

// WGPrivate is the private WireGuard key, clamped.
func (i *Identity) WGPrivate() Secret { return Secret(i.wg.Bytes()) }

// Disco is the public disco key.
func (i *Identity) Disco() DiscoKey { return DiscoKey(i.disco.PublicKey().Bytes()) }

// DiscoShared is X25519 of the disco key with another node's. An all-zero result (RFC 7748 §6.1) is an error.
func (i *Identity) DiscoShared(peer DiscoKey) (Secret, error) { return x25519(i.disco, peer[:]) }

// ErrBadKey is returned for a public key that yields no shared secret.
var ErrBadKey = errors.New("bad public key")

func x25519(private *ecdh.PrivateKey, public []byte) (Secret, error) {
	pub, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return Secret{}, ErrBadKey
	}
	shared, err := private.ECDH(pub)
	if err != nil {
		return Secret{}, ErrBadKey
	}
	return Secret(shared), nil
}

// Ephemeral is a one-time X25519 key pair.
type Ephemeral struct{ key *ecdh.PrivateKey }

// NewEphemeral draws a key pair.
func NewEphemeral() Ephemeral {
	s := NewSecret()
	key, err := ecdh.X25519().NewPrivateKey(s[:])
	if err != nil {
		panic("identity: x25519: " + err.Error()) // only a wrong length fails
	}
	return Ephemeral{key}
}

// Public is the public half.
func (e Ephemeral) Public() [32]byte { return [32]byte(e.key.PublicKey().Bytes()) }

// Shared is X25519 with another public key. An all-zero result is an error.
func (e Ephemeral) Shared(public [32]byte) (Secret, error) { return x25519(e.key, public[:]) }
