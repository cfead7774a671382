package relay

import (
	"encoding/binary"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/meshnet/meshnet/identity"
)

// maxText is the most of a foreign text that is kept, in bytes.
const maxText = 256

// Reason says why a node is gone from a relay.
type Reason uint8

// The reasons.
const (
	GoneUnknown  Reason = 0 // not connected to this relay
	GoneLeft     Reason = 1 // it was, and disconnected
	GoneReplaced Reason = 2 // told to a client about itself: another connection has its key
)

// String is the reason in words.
func (r Reason) String() string {
	switch r {
	case GoneUnknown:
		return "unknown"
	case GoneLeft:
		return "left"
	case GoneReplaced:
		return "replaced"
	}
	return "other"
}

// AppendGone appends a whole Gone frame.
func AppendGone(b []byte, node identity.PeerID, r Reason) []byte {
	b = AppendHeader(b, TypeGone, AddrLen+1)
	b = append(b, node[:]...)
	return append(b, byte(r))
}

// ParseGone reads a payload.
func ParseGone(p []byte) (identity.PeerID, Reason, error) {
	if len(p) < AddrLen+1 {
		return identity.PeerID{}, 0, ErrMalformed
	}
	return identity.PeerID(p[:AddrLen]), Reason(p[AddrLen]), nil
}

// AppendRestarting appends a whole Restarting frame: come back after in, and try for that long before anything else.
// Both are whole milliseconds.
func AppendRestarting(b []byte, in, try time.Duration) []byte {
	b = AppendHeader(b, TypeRestarting, 8)
	b = binary.BigEndian.AppendUint32(b, uint32(in.Milliseconds()))
	return binary.BigEndian.AppendUint32(b, uint32(try.Milliseconds()))
}

// ParseRestarting reads a payload.
func ParseRestarting(p []byte) (in, try time.Duration, err error) {
	if len(p) < 8 {
		return 0, 0, ErrMalformed
	}
	in = time.Duration(binary.BigEndian.Uint32(p)) * time.Millisecond
	try = time.Duration(binary.BigEndian.Uint32(p[4:])) * time.Millisecond
	return in, try, nil
}

// Code says why a server refuses a client.
type Code uint8

// The codes of Refused.
const (
	RefusedVersion  Code = 1 // no common version
	RefusedProof    Code = 2 // the proof is not of this TLS session: a proxy ends TLS, or somebody lies
	RefusedPass     Code = 3 // no pass, or not one that counts here
	RefusedExpired  Code = 4 // the pass expired
	RefusedFull     Code = 5 // no room for more clients
	RefusedProtocol Code = 6 // not what the protocol allows
)

// AppendRefused appends a whole Refused frame.
func AppendRefused(b []byte, code Code, text string) []byte {
	b = AppendHeader(b, TypeRefused, 1+len(text))
	b = append(b, byte(code))
	return append(b, text...)
}

// ParseRefused reads a payload.
func ParseRefused(p []byte) (Code, string, error) {
	if len(p) < 1 {
		return 0, "", ErrMalformed
	}
	return Code(p[0]), foreignText(p[1:]), nil
}

// foreignText is a text of a server, fit to be shown: cut, valid, without control characters.
func foreignText(p []byte) string {
	if len(p) > maxText {
		p = p[:maxText]
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, string(p))
}
