package disco

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/meshnet/meshnet/identity"
)

// Type is the first byte of a packet of ours.
type Type byte

// The types that this package reads. 0xC1 to 0xC3 belong to joining.
const (
	TypePing Type = 0xC4
	TypePong Type = 0xC5
)

const (
	tagSize    = 8
	headerSize = 1 + tagSize + chacha20poly1305.NonceSizeX
	fixedSize  = 12 + 8 + 4 + 8 + 8 + 1 + 8
	addrSize   = 18
	// Overhead is what a sealed message adds to its payload, in bytes.
	Overhead = headerSize + chacha20poly1305.Overhead
	// MinSize is the size of the smallest packet: a pong without padding.
	MinSize = Overhead + fixedSize + addrSize
	// MaxSize is the largest packet that is read.
	MaxSize = 9216
)

// Tag names a sender to members, for an hour.
type Tag [tagSize]byte

// TagOf is the tag of a member under a network key, for hours since 1970.
func TagOf(k identity.Secret, id identity.PeerID, hour int64) Tag {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte("meshnet/tag/v1\x00"))
	mac.Write(id[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(hour)))
	return Tag(mac.Sum(nil)[:tagSize])
}

// TxID names one ping.
type TxID [12]byte

// NewTxID draws a transaction id.
func NewTxID() TxID {
	var id TxID
	rand.Read(id[:])
	return id
}

// BootID is drawn anew at each start of a node.
type BootID [8]byte

// Flags of a message.
const (
	FlagWants    = 1 << iota // the sender looks for the receiver: it has packets for it and no session
	FlagReady                // the sender answers initiations; always set, as others may wait for it
	flagReserved             // without meaning: neither sent nor acted on
	flagsKnown   = FlagWants | FlagReady | flagReserved
)

// Message is a ping or a pong.
type Message struct {
	Type     Type
	TxID     TxID
	Boot     BootID
	KID      [4]byte // names the newest network key that the sender holds
	PSK      [8]byte // names the pre-shared key that the sender would use
	Ledger   [8]byte // digest of what the sender knows of the ledger
	Flags    byte
	Time     time.Time      // the sender's clock, to the millisecond
	Observed netip.AddrPort // pong only: where the ping came from; IPv4 unmapped
	Padding  int            // zeros behind the fields (of a ping: behind the least padding), in bytes
}

// Errors of Open and of parsing.
var (
	ErrMalformed = errors.New("malformed contact packet")
	ErrSeal      = errors.New("contact packet not sealed by that key")
)

// Key seals one direction between two members.
type Key struct{ aead cipher.AEAD }

// NewKey derives the key of sender → receiver from their shared X25519 secret and a network key.
func NewKey(shared, k identity.Secret, network identity.NetworkID, sender, receiver identity.PeerID) Key {
	secret := append(shared[:], k[:]...)
	derived := identity.Derive(secret, network, "meshnet/disco/v1", sender[:], receiver[:])
	aead, err := chacha20poly1305.NewX(derived[:])
	if err != nil {
		panic("disco: " + err.Error()) // only a wrong key length fails
	}
	return Key{aead}
}

// Seal makes the packet of m under tag.
func (k Key) Seal(tag Tag, m *Message) []byte {
	pkt := make([]byte, headerSize, MinSize+m.Padding)
	pkt[0] = byte(m.Type)
	copy(pkt[1:], tag[:])
	rand.Read(pkt[1+tagSize : headerSize])
	return k.aead.Seal(pkt, pkt[1+tagSize:headerSize], m.encode(), pkt[:headerSize])
}

// Open authenticates and parses a packet.
func (k Key) Open(pkt []byte) (*Message, error) {
	if _, err := PacketTag(pkt); err != nil {
		return nil, err
	}
	payload, err := k.aead.Open(nil, pkt[1+tagSize:headerSize], pkt[headerSize:], pkt[:headerSize])
	if err != nil {
		return nil, ErrSeal
	}
	return parse(Type(pkt[0]), payload)
}

// PacketTag reads the tag of something that looks like a contact packet.
func PacketTag(pkt []byte) (Tag, error) {
	if len(pkt) < MinSize || len(pkt) > MaxSize || (Type(pkt[0]) != TypePing && Type(pkt[0]) != TypePong) {
		return Tag{}, ErrMalformed
	}
	return Tag(pkt[1 : 1+tagSize]), nil
}

func (m *Message) encode() []byte {
	b := make([]byte, 0, fixedSize+addrSize+m.Padding)
	b = append(b, m.TxID[:]...)
	b = append(b, m.Boot[:]...)
	b = append(b, m.KID[:]...)
	b = append(b, m.PSK[:]...)
	b = append(b, m.Ledger[:]...)
	b = append(b, m.Flags)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Time.UnixMilli()))
	var addr [addrSize]byte
	if m.Type == TypePong {
		ip := m.Observed.Addr().As16()
		copy(addr[:], ip[:])
		binary.BigEndian.PutUint16(addr[16:], m.Observed.Port())
	}
	b = append(b, addr[:]...)
	return append(b, make([]byte, m.Padding)...)
}

func parse(t Type, b []byte) (*Message, error) {
	if len(b) < fixedSize+addrSize {
		return nil, ErrMalformed
	}
	m := &Message{Type: t, Padding: len(b) - fixedSize - addrSize}
	b = b[copy(m.TxID[:], b):]
	b = b[copy(m.Boot[:], b):]
	b = b[copy(m.KID[:], b):]
	b = b[copy(m.PSK[:], b):]
	b = b[copy(m.Ledger[:], b):]
	m.Flags, b = b[0], b[1:]
	ms := binary.BigEndian.Uint64(b)
	if m.Flags&^flagsKnown != 0 || ms >= 1<<53 {
		return nil, ErrMalformed
	}
	m.Time = time.UnixMilli(int64(ms))
	b = b[8:]
	if t == TypePong {
		ip := netip.AddrFrom16([16]byte(b)).Unmap()
		m.Observed = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[16:]))
		b = b[addrSize:]
	}
	for _, c := range b {
		if c != 0 {
			return nil, ErrMalformed
		}
	}
	return m, nil
}
