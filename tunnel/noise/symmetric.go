package noise

import (
	"crypto/cipher"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/meshnet/meshnet/identity"
)

// symmetric is what both sides of a handshake compute in step: the paper's chaining key C and hash H.
type symmetric struct {
	chain, hash [hashSize]byte
	key         [hashSize]byte                   // of the next box
	nonce       [chacha20poly1305.NonceSize]byte // stays zero: a key of the handshake seals one box
}

// begin is the state before the first message to the owner of public.
func begin(public *[32]byte) symmetric {
	chain := blake2s.Sum256([]byte(construction))
	s := symmetric{chain: chain, hash: chain}
	s.mixHash([]byte(identifier))
	s.mixHash(public[:])
	return s
}

// mixHash takes data into the hash; at most 64 bytes.
func (s *symmetric) mixHash(data []byte) {
	var buf [hashSize + 64]byte
	n := copy(buf[:], s.hash[:])
	n += copy(buf[n:], data)
	s.hash = blake2s.Sum256(buf[:n])
}

// mixPublic takes an ephemeral public key into both.
func (s *symmetric) mixPublic(ephemeral []byte) {
	s.mixHash(ephemeral)
	kdf(&s.chain, ephemeral, &s.chain)
}

// mixSecret takes a shared secret into the chaining key and makes the key of the next box.
func (s *symmetric) mixSecret(secret []byte) { kdf(&s.chain, secret, &s.chain, &s.key) }

// mixShared is mixSecret of the product of k and a public key; false when there is none.
func (s *symmetric) mixShared(k scalar, public *[32]byte) bool {
	var shared [32]byte
	ok := k.shared(&shared, public)
	s.mixSecret(shared[:])
	wipe(shared[:])
	return ok
}

// mixPSK takes the pre-shared key into everything.
func (s *symmetric) mixPSK(psk *identity.Secret) {
	var tau [hashSize]byte
	kdf(&s.chain, psk[:], &s.chain, &tau, &s.key)
	s.mixHash(tau[:])
	wipe(tau[:])
}

// seal writes the box of plain to dst, which is TagSize longer.
func (s *symmetric) seal(dst, plain []byte) {
	s.aead().Seal(dst[:0], s.nonce[:], plain, s.hash[:])
	s.mixHash(dst)
}

// open writes what is in box to dst, which is TagSize shorter.
func (s *symmetric) open(dst, box []byte) bool {
	if _, err := s.aead().Open(dst[:0], s.nonce[:], box, s.hash[:]); err != nil {
		return false
	}
	s.mixHash(box)
	return true
}

func (s *symmetric) aead() cipher.AEAD {
	aead, err := chacha20poly1305.New(s.key[:])
	if err != nil {
		panic("noise: aead: " + err.Error()) // only a wrong length of key fails
	}
	return aead
}

// split writes the keys for the data of initiator and responder.
func (s *symmetric) split(initiator, responder *identity.Secret) {
	kdf(&s.chain, nil, (*[hashSize]byte)(initiator), (*[hashSize]byte)(responder))
}

func (s *symmetric) wipe() {
	wipe(s.chain[:])
	wipe(s.hash[:])
	wipe(s.key[:])
}
