package ring

import (
	"bytes"
	"errors"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

const (
	// MaxPayload is the largest payload of a signal, in bytes.
	MaxPayload = 1280
	maxBody    = MaxPayload + 192 // leaves room for what newer versions add
	maxTime    = 1 << 53
	lastKey    = 5 // of the fields of a body
)

// Errors of Originate, and of parsing.
var (
	errMalformed = errors.New("malformed frame of the ring")
	ErrSignal    = errors.New("a signal that cannot be sent: to no other member, or too large")
	ErrNoWay     = errors.New("no session to send a signal over")
)

// ID tells a signal from the others of its origin. 16 random bytes.
type ID [16]byte

// Type says what a signal's payload is. Signals of other types than these are carried for others and not delivered.
type Type uint64

// The types of signals.
const (
	Call    Type = 1 // a packet that origin sealed for target: opaque here
	WhereIs Type = 2 // a question for target's reach: empty, or origin's own signed reach
	HereIs  Type = 3 // the answer: origin's own signed reach
)

func (t Type) known() bool { return t >= Call && t <= HereIs }

// Signal is what one member tells another by way of others.
type Signal struct {
	ID      ID
	Origin  identity.PeerID
	Target  identity.PeerID
	Type    Type
	Time    time.Time // origin's mesh time, to the millisecond
	Payload []byte    // at most MaxPayload bytes
}

// AAD is what a payload that origin seals for target is bound to: network ‖ id ‖ origin ‖ target ‖ type, 113 bytes.
//
// A Call needs no second seal. Its packet has one already, under a key that only origin and target have and for this
// direction only, and the signature binds it to the rest.
func (s *Signal) AAD(network identity.NetworkID) []byte {
	b := append(make([]byte, 0, 113), network[:]...)
	b = append(b, s.ID[:]...)
	b = append(b, s.Origin[:]...)
	b = append(b, s.Target[:]...)
	return append(b, byte(s.Type))
}

// body is a signal as it is signed.
type body struct {
	ID      ID              `cbor:"0,keyasint"`
	Origin  identity.PeerID `cbor:"1,keyasint"`
	Target  identity.PeerID `cbor:"2,keyasint"`
	Type    uint64          `cbor:"3,keyasint"`
	Time    uint64          `cbor:"4,keyasint"` // unix milliseconds
	Payload []byte          `cbor:"5,keyasint,omitempty"`
}

func (s *Signal) encode() []byte {
	return dcbor.Marshal(&body{s.ID, s.Origin, s.Target, uint64(s.Type), uint64(max(0, s.Time.UnixMilli())), s.Payload})
}

// parseBody reads a body. newer: it holds what this version must not act on, and is only carried.
func parseBody(data []byte) (s *Signal, newer bool, err error) {
	if len(data) > maxBody {
		return nil, false, errMalformed
	}
	var b body
	err = dcbor.Unmarshal(data, &b)
	newer = errors.Is(err, dcbor.ErrUnknownCritical)
	if err != nil && !newer {
		return nil, false, errMalformed
	}
	// The decoder takes an empty payload for none, which would be a second form. What follows are keys of others.
	rest, ok := bytes.CutPrefix(data[1:], dcbor.Marshal(&b)[1:])
	if !ok || len(rest) > 0 && rest[0] <= lastKey {
		return nil, false, errMalformed
	}
	if len(b.Payload) > MaxPayload || b.Time >= maxTime || b.Origin == b.Target || b.Type == 0 {
		return nil, false, errMalformed
	}
	s = &Signal{b.ID, b.Origin, b.Target, Type(b.Type), time.UnixMilli(int64(b.Time)).UTC(), b.Payload}
	return s, newer || !s.Type.known(), nil
}
