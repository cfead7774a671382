package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// Purpose says what a signature or an id is for. The list is closed.
type Purpose string

// The purposes of meshnet's signatures and ids.
const (
	PurposeGenesis     Purpose = "meshnet/genesis/v1"
	PurposeStatement   Purpose = "meshnet/statement/v1"
	PurposeAdmitInvite Purpose = "meshnet/admit-invite/v1" // an admit, signed by the invite's key
	PurposeAdmitNode   Purpose = "meshnet/admit-node/v1"   // an admit, signed by the joiner's node key
	PurposeAcceptance  Purpose = "meshnet/acceptance/v1"
	PurposeLeave       Purpose = "meshnet/leave/v1"
	PurposeCard        Purpose = "meshnet/card/v1"
	PurposeReach       Purpose = "meshnet/reach/v1"
	PurposeRing        Purpose = "meshnet/ring/v1"
	PurposeIntro       Purpose = "meshnet/intro/v1"
	PurposeRefusal     Purpose = "meshnet/refusal/v1"
	PurposeRelayTLS    Purpose = "meshnet/relay-tls/v1"
	PurposeRelayNonce  Purpose = "meshnet/relay-nonce/v1"
	PurposeRelayPass   Purpose = "meshnet/relay-pass/v1"
)

// NetworkID is the hash of a network's genesis. Genesis itself is signed under the zero value.
type NetworkID [32]byte

// String is hexadecimal.
func (n NetworkID) String() string { return hex.EncodeToString(n[:]) }

// MarshalText is String as bytes.
func (n NetworkID) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// ErrBadSignature is returned by Verify for every signature that does not hold.
var ErrBadSignature = errors.New("bad signature")

// Sign signs body for one purpose in one network: Ed25519 over purpose ‖ 0x00 ‖ network ‖ SHA-256(body).
func (i *Identity) Sign(purpose Purpose, network NetworkID, body []byte) []byte {
	return ed25519.Sign(i.node, signedBytes(purpose, network, body))
}

// Verify checks a signature that Sign made. It refuses keys that are not canonical or of small order.
func Verify(signer PeerID, purpose Purpose, network NetworkID, body, signature []byte) error {
	if len(signature) != ed25519.SignatureSize || !signer.valid() {
		return ErrBadSignature
	}
	if !ed25519.Verify(signer[:], signedBytes(purpose, network, body), signature) {
		return ErrBadSignature
	}
	return nil
}

func signedBytes(purpose Purpose, network NetworkID, body []byte) []byte {
	sum := sha256.Sum256(body)
	msg := make([]byte, 0, len(purpose)+1+len(network)+len(sum))
	msg = append(msg, purpose...)
	msg = append(msg, 0)
	msg = append(msg, network[:]...)
	return append(msg, sum[:]...)
}

// Hash is the id of a signed object: SHA-256(purpose ‖ 0x00 ‖ body without signatures).
type Hash [32]byte

// Sum is the id of body under purpose.
func Sum(purpose Purpose, body []byte) Hash {
	h := sha256.New()
	h.Write([]byte(purpose))
	h.Write([]byte{0})
	h.Write(body)
	return Hash(h.Sum(nil))
}

// String is hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is unset.
func (h Hash) IsZero() bool { return h == Hash{} }
