package noise

import (
	"crypto/ecdh"
	"crypto/rand"
)

// scalar is an X25519 private key (RFC 7748 §5); wiped, or zero, every product with it is refused. crypto/ecdh computes
// the public half of each as it is made, so keys are made once and kept for all their products. Its memory cannot be
// erased, only let go.
type scalar struct{ key *ecdh.PrivateKey }

// newScalar draws a key.
func newScalar() scalar {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic("noise: generate key: " + err.Error()) // crypto/rand does not fail
	}
	return scalar{key}
}

// scalarOf takes the bytes of a key, clamped or not.
func scalarOf(b [32]byte) scalar {
	key, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		panic("noise: private key: " + err.Error()) // only a wrong length fails
	}
	return scalar{key}
}

// public writes the public key of k.
func (k scalar) public(out *[32]byte) { copy(out[:], k.key.PublicKey().Bytes()) }

// shared writes the secret of k and another's public key. It reports whether there is one: a point of small order
// gives zero with every key, which crypto/ecdh refuses.
func (k scalar) shared(out, public *[32]byte) bool {
	clear(out[:])
	if k.key == nil {
		return false
	}
	other, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		panic("noise: public key: " + err.Error()) // only a wrong length fails
	}
	secret, err := k.key.ECDH(other)
	if err != nil {
		return false
	}
	copy(out[:], secret)
	clear(secret)
	return true
}

// wipe lets go of the key.
func (k *scalar) wipe() { k.key = nil }
