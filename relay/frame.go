package relay

import (
	"encoding/binary"
	"errors"

	"github.com/meshnet/meshnet/identity"
)

// Version of the protocol: the first byte of both hellos.
const Version = 1

// Sizes of a frame, in bytes.
const (
	HeaderLen       = 5       // type and length
	AddrLen         = 32      // destination or source of a datagram
	TrainLen        = 2       // size of a train's datagrams
	MaxDatagram     = 65535   // of a datagram, and of a train's size
	DefaultMaxFrame = 65600   // greatest payload unless the server says otherwise
	MinMaxFrame     = 2048    // least value of the greatest payload
	MaxMaxFrame     = 8 << 20 // greatest one
)

// Type is the first byte of a frame.
type Type uint8

// The types of frames.
const (
	TypeServerHello Type = 0x01
	TypeClientHello Type = 0x02
	TypeWelcome     Type = 0x03
	TypeRefused     Type = 0x04
	TypeSend        Type = 0x10
	TypeSendUrgent  Type = 0x11
	TypeRecv        Type = 0x12
	TypeRecvUrgent  Type = 0x13
	TypeSendTrain   Type = 0x14
	TypeRecvTrain   Type = 0x15
	TypeKeepAlive   Type = 0x20
	TypePing        Type = 0x21
	TypePong        Type = 0x22
	TypeGone        Type = 0x30
	TypeRestarting  Type = 0x31
	TypeHealth      Type = 0x32
)

// Errors of the parsers. None is wrapped, so that foreign bytes cost no allocation.
var (
	ErrTooLong   = errors.New("relay frame too long")
	ErrMalformed = errors.New("malformed relay frame")
)

// AppendHeader appends the header of a frame whose payload has n bytes.
func AppendHeader(b []byte, t Type, n int) []byte {
	b = append(b, byte(t))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// AppendFrame appends a whole frame.
func AppendFrame(b []byte, t Type, payload []byte) []byte {
	return append(AppendHeader(b, t, len(payload)), payload...)
}

// Frame is one frame where it lies in a reader's buffer. borrowed: valid until the next call of the reader's Fill.
type Frame struct {
	Type Type
	Raw  []byte // with the header
}

// Payload is what follows the header.
func (f Frame) Payload() []byte { return f.Raw[HeaderLen:] }

// AppendDatagram appends a frame of type t (Send, SendUrgent, Recv or RecvUrgent) with one datagram.
func AppendDatagram(b []byte, t Type, node identity.PeerID, datagram []byte) []byte {
	b = AppendHeader(b, t, AddrLen+len(datagram))
	b = append(b, node[:]...)
	return append(b, datagram...)
}

// AppendTrainHeader appends a frame of type t (SendTrain or RecvTrain) up to its datagrams, whose n bytes follow: each
// has size bytes, 1 to MaxDatagram, and only the last may be shorter.
func AppendTrainHeader(b []byte, t Type, node identity.PeerID, size, n int) []byte {
	b = AppendHeader(b, t, AddrLen+TrainLen+n)
	b = append(b, node[:]...)
	return binary.BigEndian.AppendUint16(b, uint16(size))
}

// Address is the destination or source of the payload of a Send or Recv frame of any kind.
func Address(payload []byte) (identity.PeerID, bool) {
	if len(payload) < AddrLen {
		return identity.PeerID{}, false
	}
	return identity.PeerID(payload[:AddrLen]), true
}

// Datagrams is what the payload of a Send or Recv frame carries: data, of datagrams of size bytes each, the last of which
// may be shorter. A frame without a datagram, an empty one, and a train of size zero are ErrMalformed.
func Datagrams(t Type, payload []byte) (data []byte, size int, err error) {
	from := AddrLen
	if t == TypeSendTrain || t == TypeRecvTrain {
		from += TrainLen
	}
	if len(payload) <= from {
		return nil, 0, ErrMalformed
	}
	data, size = payload[from:], len(payload)-from
	if from > AddrLen {
		size = int(binary.BigEndian.Uint16(payload[AddrLen:]))
	}
	if size == 0 || from == AddrLen && size > MaxDatagram {
		return nil, 0, ErrMalformed
	}
	return data, size, nil
}
