package join

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// First bytes of the packets.
const (
	TypeIntro   = 0xC1
	TypeCookie  = 0xC2
	TypeWelcome = 0xC3
)

// Version of the rendezvous.
const Version = 1

// Sizes of packets, in bytes.
const (
	IntroSize   = 1232
	CookieSize  = 32
	introHeader = 2 + 16 + 16 + 32
	room        = IntroSize - introHeader - chacha20poly1305.Overhead
)

// Errors of parsing packets.
var (
	ErrMalformed = errors.New("malformed rendezvous packet")
	ErrVersion   = errors.New("rendezvous packet of another version")
	ErrSeal      = errors.New("rendezvous packet not sealed by that key")
	ErrTooLong   = errors.New("proof does not fit into an intro")
)

type cookie [16]byte

// header is the clear part of an Intro.
type header struct {
	id     ledger.ShortID
	cookie cookie
	e      [32]byte
}

func parseIntro(pkt []byte) (header, error) {
	var h header
	if len(pkt) != IntroSize || pkt[0] != TypeIntro {
		return h, ErrMalformed
	}
	if pkt[1] != Version {
		return h, ErrVersion
	}
	copy(h.id[:], pkt[2:])
	copy(h.cookie[:], pkt[18:])
	copy(h.e[:], pkt[34:])
	return h, nil
}

// withCookie returns a copy of an Intro with its cookie replaced. The seal does not cover the cookie.
func withCookie(pkt []byte, c cookie) []byte {
	out := append([]byte(nil), pkt...)
	copy(out[18:34], c[:])
	return out
}

// introHash names an Intro whatever its cookie.
func introHash(pkt []byte) identity.Hash {
	return identity.Sum("meshnet/intro-hash/v1", withCookie(pkt, cookie{}))
}

// Content is what an Intro proves. A joiner sends Admit, Invite and, while they fit, Grants; a member sends Node with
// the Admit and Acceptance that made it one and, while it fits, its Invite (the founder none of them).
type Content struct {
	Time       uint64           `cbor:"0,keyasint"` // unix milliseconds, the sender's clock
	Signature  []byte           `cbor:"1,keyasint"` // by the node key over id ‖ e_j
	Admit      []byte           `cbor:"2,keyasint,omitempty"`
	Invite     []byte           `cbor:"3,keyasint,omitempty"`
	Grants     [][]byte         `cbor:"4,keyasint,omitempty"`
	Node       *identity.PeerID `cbor:"5,keyasint,omitempty"` // set by a member
	Acceptance []byte           `cbor:"6,keyasint,omitempty"`
}

// introKey is made without public-key work: opening under it is the first check of an Intro.
func introKey(psk identity.Secret, network identity.NetworkID, id ledger.ShortID, e [32]byte) cipher.AEAD {
	return aead(identity.Derive(psk[:], network, "meshnet/intro/v1", id[:], e[:]))
}

func aead(key identity.Secret) cipher.AEAD {
	a, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic("join: " + err.Error()) // only a wrong key length fails
	}
	return a
}

var zeroNonce [chacha20poly1305.NonceSize]byte // every key here seals once

// sealIntro makes an Intro with a zero cookie. The content is signed here.
func sealIntro(
	node *identity.Identity, network identity.NetworkID, psk identity.Secret, id ledger.ShortID, e [32]byte,
	now time.Time, c Content,
) ([]byte, error) {
	c.Time = uint64(max(0, now.UnixMilli()))
	c.Signature = node.Sign(identity.PurposeIntro, network, append(id[:], e[:]...))
	body := dcbor.Marshal(&c)
	if len(body)+2 > room && (len(c.Grants) > 0 || c.Node != nil) {
		c.Grants = nil
		if c.Node != nil {
			c.Invite = nil
		}
		body = dcbor.Marshal(&c)
	}
	if len(body)+2 > room {
		return nil, ErrTooLong
	}
	plain := make([]byte, room)
	binary.BigEndian.PutUint16(plain, uint16(len(body)))
	copy(plain[2:], body)
	pkt := make([]byte, introHeader, IntroSize)
	pkt[0], pkt[1] = TypeIntro, Version
	copy(pkt[2:], id[:])
	copy(pkt[34:], e[:])
	return introKey(psk, network, id, e).Seal(pkt, zeroNonce[:], plain, pkt[:introHeader]), nil
}

// openIntro opens an Intro under psk and parses its content. The signature is not checked yet.
func openIntro(pkt []byte, h header, network identity.NetworkID, psk identity.Secret) (*Content, error) {
	bare := withCookie(pkt[:introHeader], cookie{})
	plain, err := introKey(psk, network, h.id, h.e).Open(nil, zeroNonce[:], pkt[introHeader:], bare)
	if err != nil {
		return nil, ErrSeal
	}
	return parseContent(plain)
}

func parseContent(plain []byte) (*Content, error) {
	if len(plain) < 2 {
		return nil, ErrMalformed
	}
	size := int(binary.BigEndian.Uint16(plain))
	if size > len(plain)-2 {
		return nil, ErrMalformed
	}
	for _, b := range plain[2+size:] {
		if b != 0 {
			return nil, ErrMalformed
		}
	}
	c := new(Content)
	if err := dcbor.Unmarshal(plain[2:2+size], c); err != nil {
		return nil, ErrMalformed
	}
	if c.Time >= 1<<53 || c.Node == nil && (c.Invite == nil || c.Admit == nil) {
		return nil, ErrMalformed
	}
	return c, nil
}

// verify checks the node's signature over the packet's header.
func (c *Content) verify(node identity.PeerID, network identity.NetworkID, h header) error {
	return identity.Verify(node, identity.PurposeIntro, network, append(h.id[:], h.e[:]...), c.Signature)
}
