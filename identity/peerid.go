package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"

	"filippo.io/edwards25519"
	"github.com/mr-tron/base58"
)

// ErrBadPeerID is returned for text or bytes that are no PeerID: not base58btc, not 32 bytes, a non-canonical
// encoding, or a point of small order.
var ErrBadPeerID = errors.New("not a peer id")

// PeerID names a node: its Ed25519 public key. Its text form is base58btc of the 32 bytes; its order is that of
// the bytes.
type PeerID [ed25519.PublicKeySize]byte

// ParsePeerID reads the text form. It accepts only what String prints.
func ParsePeerID(s string) (PeerID, error) {
	if len(s) < 32 || len(s) > 44 {
		return PeerID{}, ErrBadPeerID
	}
	b, err := base58.Decode(s)
	if err != nil {
		return PeerID{}, ErrBadPeerID
	}
	return PeerIDFromBytes(b)
}

// PeerIDFromBytes checks b and returns it as a PeerID. Keys that are not canonical or of small order are refused,
// since signatures under them would not be unique.
func PeerIDFromBytes(b []byte) (PeerID, error) {
	var id PeerID
	if len(b) != len(id) {
		return PeerID{}, ErrBadPeerID
	}
	copy(id[:], b)
	if !id.valid() {
		return PeerID{}, ErrBadPeerID
	}
	return id, nil
}

// valid tells whether id is the canonical encoding of a point outside the small-order subgroup.
func (id PeerID) valid() bool {
	p, err := new(edwards25519.Point).SetBytes(id[:])
	if err != nil || !bytes.Equal(p.Bytes(), id[:]) {
		return false
	}
	return new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 0
}

// String is the whole id in base58btc.
func (id PeerID) String() string { return base58.Encode(id[:]) }

// Short is the first eight characters of the text form, for people to tell nodes apart. It is not unique.
func (id PeerID) Short() string { return id.String()[:8] }

// IsZero reports whether id is the zero value, which names nobody.
func (id PeerID) IsZero() bool { return id == PeerID{} }

// Compare orders ids by their bytes: -1, 0 or +1.
func (id PeerID) Compare(other PeerID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText is String as bytes.
func (id PeerID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParsePeerID.
func (id *PeerID) UnmarshalText(text []byte) error {
	parsed, err := ParsePeerID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
