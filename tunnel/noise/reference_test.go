package noise

import (
	"crypto/ecdh"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"hash"
	"slices"
	"strings"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// The reference: a plain interpreter of Noise message patterns (noiseprotocol.org, revision 34), told the pattern IK
// with psk2, and WireGuard's framing around it. It shares no code with the package; HMAC and HKDF are written out
// over the standard library, X25519 is crypto/ecdh.

var (
	wordsOfInitiation = strings.Fields("e es s ss payload")
	wordsOfResponse   = strings.Fields("e ee se psk payload")
)

type noiseStep struct {
	Word  string
	Chain hexBytes
	Hash  hexBytes
}

type naive struct {
	initiator bool
	s, e      *ecdh.PrivateKey
	rs, re    []byte
	psk       []byte

	chain, hash, key []byte
	steps            []noiseStep
}

var errNaive = errors.New("reference: refused")

func newNaive(initiator bool, s *ecdh.PrivateKey, responder []byte) *naive {
	n := &naive{initiator: initiator, s: s}
	n.hash = naiveHash([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")) // the name is longer than a hash
	n.chain = n.hash
	n.step("name")
	n.mixHash([]byte("WireGuard v1 zx2c4 Jason@zx2c4.com"))
	n.step("prologue")
	n.mixHash(responder)
	n.step("responder")
	if initiator {
		n.rs = responder
	}
	return n
}

func (n *naive) step(word string) {
	n.steps = append(n.steps, noiseStep{word, slices.Clone(n.chain), slices.Clone(n.hash)})
}

func naiveHash(parts ...[]byte) []byte {
	h, _ := blake2s.New256(nil)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func naiveHMAC(key []byte, parts ...[]byte) []byte {
	m := hmac.New(func() hash.Hash {
		h, _ := blake2s.New256(nil)
		return h
	}, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

func naiveMAC(key []byte, parts ...[]byte) []byte {
	m, _ := blake2s.New128(key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// naiveHKDF is HKDF of Noise: always three outputs, of which the caller takes what it needs.
func naiveHKDF(chain, input []byte) (o1, o2, o3 []byte) {
	temp := naiveHMAC(chain, input)
	o1 = naiveHMAC(temp, []byte{1})
	o2 = naiveHMAC(temp, o1, []byte{2})
	o3 = naiveHMAC(temp, o2, []byte{3})
	return o1, o2, o3
}

func (n *naive) mixHash(data []byte) { n.hash = naiveHash(n.hash, data) }

func (n *naive) mixKey(data []byte) { n.chain, n.key, _ = naiveHKDF(n.chain, data) }

func (n *naive) mixDH(private *ecdh.PrivateKey, public []byte) error {
	p, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return err
	}
	shared, err := private.ECDH(p)
	if err != nil {
		return err
	}
	n.mixKey(shared)
	return nil
}

// mixPair does "es", "se" and the like: the first letter is the initiator's key, the second the responder's.
func (n *naive) mixPair(word string) error {
	mine, theirs := word[0], word[1]
	if !n.initiator {
		mine, theirs = theirs, mine
	}
	private, public := n.s, n.rs
	if mine == 'e' {
		private = n.e
	}
	if theirs == 'e' {
		public = n.re
	}
	return n.mixDH(private, public)
}

func (n *naive) encrypt(plain []byte) []byte {
	a, _ := chacha20poly1305.New(n.key)
	box := a.Seal(nil, make([]byte, 12), plain, n.hash)
	n.mixHash(box)
	return box
}

func (n *naive) decrypt(box []byte) ([]byte, error) {
	a, _ := chacha20poly1305.New(n.key)
	plain, err := a.Open(nil, make([]byte, 12), box, n.hash)
	n.mixHash(box)
	return plain, err
}

func (n *naive) write(words []string, payload []byte) (out []byte, err error) {
	for _, word := range words {
		switch word {
		case "e":
			public := n.e.PublicKey().Bytes()
			out = append(out, public...)
			n.mixHash(public)
			n.mixKey(public) // as every pattern with a psk does
		case "s":
			out = append(out, n.encrypt(n.s.PublicKey().Bytes())...)
		case "payload":
			out = append(out, n.encrypt(payload)...)
		default:
			err = errors.Join(err, n.mix(word))
		}
		n.step(word)
	}
	return out, err
}

func (n *naive) read(words []string, in []byte) (payload []byte, err error) {
	for _, word := range words {
		switch word {
		case "e":
			n.re, in = in[:32], in[32:]
			n.mixHash(n.re)
			n.mixKey(n.re)
		case "s":
			n.rs, err = n.decrypt(in[:48])
			in = in[48:]
		case "payload":
			payload, err = n.decrypt(in)
		default:
			err = n.mix(word)
		}
		if err != nil {
			return nil, err
		}
		n.step(word)
	}
	return payload, nil
}

func (n *naive) mix(word string) error {
	if word != "psk" {
		return n.mixPair(word)
	}
	var temp []byte
	n.chain, temp, n.key = naiveHKDF(n.chain, n.psk)
	n.mixHash(temp)
	return nil
}

// keys are those of initiator and responder to send with.
func (n *naive) keys() (initiator, responder []byte) {
	initiator, responder, _ = naiveHKDF(n.chain, nil)
	return initiator, responder
}

// naiveFrame puts head and macs around a Noise message to the owner of public.
func naiveFrame(kind byte, indices []uint32, body, public, cookie []byte) []byte {
	msg := []byte{kind, 0, 0, 0}
	for _, i := range indices {
		msg = binary.LittleEndian.AppendUint32(msg, i)
	}
	msg = append(msg, body...)
	msg = append(msg, naiveMAC(naiveHash([]byte("mac1----"), public), msg)...)
	if cookie == nil {
		return append(msg, make([]byte, 16)...)
	}
	return append(msg, naiveMAC(cookie, msg)...)
}

// naiveOpen reads an initiation; its macs were looked at before.
func naiveOpen(s *ecdh.PrivateKey, msg []byte) (n *naive, timestamp []byte, err error) {
	if len(msg) != 148 || string(msg[:4]) != "\x01\x00\x00\x00" {
		return nil, nil, errNaive
	}
	n = newNaive(false, s, s.PublicKey().Bytes())
	timestamp, err = n.read(wordsOfInitiation, msg[8:116])
	return n, timestamp, err
}
