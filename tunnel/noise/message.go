package noise

import (
	"encoding/binary"
	"errors"
)

// Message types (whitepaper §5.4): the first byte of every datagram. The three bytes after it are zero.
const (
	TypeInitiation  = 1
	TypeResponse    = 2
	TypeCookieReply = 3
	TypeData        = 4
)

// Sizes in bytes. Handshake messages have exactly theirs; a data message is header, payload and tag.
const (
	InitiationSize  = 148
	ResponseSize    = 92
	CookieReplySize = 64
	DataHeaderSize  = 16
	TagSize         = 16
)

// What a message can be refused for, beside identity.ErrBadKey for a public key of small order.
var (
	ErrMalformed = errors.New("malformed handshake message")     // length, type, reserved bytes, receiver
	ErrMAC       = errors.New("wrong mac of handshake message")  // made by someone who does not know our public key
	ErrUnknown   = errors.New("handshake from unknown key")      // the initiator's key is no peer's
	ErrAuth      = errors.New("handshake message not authentic") // wrong keys, wrong pre-shared key or changed bytes
	ErrSpent     = errors.New("handshake already over")          // completed or wiped
)

// TypeOf classifies a datagram: one of the four types when length and reserved bytes are right for it, otherwise 0.
func TypeOf(msg []byte) byte {
	if len(msg) < DataHeaderSize+TagSize || msg[1]|msg[2]|msg[3] != 0 {
		return 0
	}
	size := len(msg)
	switch msg[0] {
	case TypeInitiation:
		size = InitiationSize
	case TypeResponse:
		size = ResponseSize
	case TypeCookieReply:
		size = CookieReplySize
	case TypeData:
	default:
		return 0
	}
	if len(msg) != size {
		return 0
	}
	return msg[0]
}

// SenderIndex is the index its sender wants to be answered under: of initiations and responses.
func SenderIndex(msg []byte) (index uint32, ok bool) {
	switch TypeOf(msg) {
	case TypeInitiation, TypeResponse:
		return binary.LittleEndian.Uint32(msg[senderAt:]), true
	}
	return 0, false
}

// ReceiverIndex is the index, given out by the receiver before, that a message is for: of all but initiations.
func ReceiverIndex(msg []byte) (index uint32, ok bool) {
	switch TypeOf(msg) {
	case TypeResponse:
		return binary.LittleEndian.Uint32(msg[responseReceiverAt:]), true
	case TypeCookieReply, TypeData:
		return binary.LittleEndian.Uint32(msg[receiverAt:]), true
	}
	return 0, false
}

// PutDataHeader writes the header of a data message into the first DataHeaderSize bytes of dst.
func PutDataHeader(dst []byte, receiver uint32, counter uint64) {
	_ = dst[DataHeaderSize-1]
	putHead(dst, TypeData, receiver)
	binary.LittleEndian.PutUint64(dst[counterAt:], counter)
}

// Counter is that of a data message; msg is at least DataHeaderSize long.
func Counter(msg []byte) uint64 { return binary.LittleEndian.Uint64(msg[counterAt:DataHeaderSize]) }

// Nonce is what a data message with that counter is sealed under: four zero bytes, then the counter, little endian.
func Nonce(counter uint64) (nonce [12]byte) {
	binary.LittleEndian.PutUint64(nonce[4:], counter)
	return nonce
}

// MAC1 is the first mac of an initiation or a response, which a cookie in reply is bound to; zero for anything else.
// Who sends such a message keeps it for OpenCookie.
func MAC1(msg []byte) (mac1 [16]byte) {
	if hasMACs(msg) {
		copy(mac1[:], msg[len(msg)-macsSize:])
	}
	return mac1
}

// Where things are. The macs are at the end of initiation and response.
const (
	senderAt   = 4 // initiation, response
	receiverAt = 4 // cookie reply, data
	counterAt  = 8 // data

	initiationEphemeralAt = 8
	initiationStaticAt    = 40
	initiationTimeAt      = 88
	initiationMACsAt      = 116

	responseReceiverAt  = 8
	responseEphemeralAt = 12
	responseEmptyAt     = 44
	responseMACsAt      = 60

	cookieNonceAt = 8
	cookieBoxAt   = 32

	macSize  = 16
	macsSize = 2 * macSize
)

// putHead writes type, reserved bytes and the index that every message has next.
func putHead(msg []byte, kind byte, index uint32) {
	binary.LittleEndian.PutUint32(msg, uint32(kind))
	binary.LittleEndian.PutUint32(msg[4:], index)
}

func hasMACs(msg []byte) bool {
	kind := TypeOf(msg)
	return kind == TypeInitiation || kind == TypeResponse
}
