package ledger

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// Bounds of what is signed, in bytes.
const (
	MaxStatement = 4 << 10
	MaxPolicy    = 64 << 10
	maxRecord    = 1 << 10 // the body of genesis, an admit, or an acceptance
	maxHeads     = 8
	maxTime      = 1 << 53 // also the highest clock: what every JSON reader can hold
)

// Signed is a body with the signature of its author, both as they came.
type Signed struct {
	Body, Sig []byte
}

// Marshal is the CBOR array [body, signature].
func (s Signed) Marshal() []byte { return dcbor.Marshal([][]byte{s.Body, s.Sig}) }

// ParseSigned reads what Marshal wrote. It checks the form only, no signature. The result points into data, which must
// not be changed any more: a large network's facts are in memory once.
func ParseSigned(data []byte) (Signed, error) {
	parts, err := parseParts(data, 2)
	if err != nil {
		return Signed{}, err
	}
	return Signed{Body: parts[0], Sig: parts[1]}, nil
}

// maxParts is a body and the signatures that may stand behind it.
const maxParts = 3

// parseParts reads an array of a body and n-1 signatures, n from 2 to maxParts. The parts point into data.
func parseParts(data []byte, n int) (parts [maxParts][]byte, err error) {
	if len(data) > MaxPolicy+1<<10 {
		return parts, ErrTooLarge
	}
	if len(data) == 0 || data[0] != 0x80|byte(n) { // an array of n (RFC 8949 §3.1)
		return parts, ErrMalformed
	}
	rest := data[1:]
	for i := range n {
		var ok bool
		if parts[i], rest, ok = cutBytes(rest); !ok || i > 0 && len(parts[i]) != ed25519.SignatureSize {
			return parts, ErrMalformed
		}
	}
	if len(rest) > 0 || len(parts[0]) == 0 {
		return parts, ErrMalformed
	}
	return parts, nil
}

// cutBytes takes a byte string with a head in the shortest form from the front (RFC 8949 §4.2.1).
func cutBytes(data []byte) (value, rest []byte, ok bool) {
	if len(data) == 0 || data[0] < 0x40 || data[0] > 0x5a {
		return nil, nil, false
	}
	length, least := uint64(data[0]&31), uint64(0)
	data = data[1:]
	if length >= 24 {
		size := 1 << (length - 24)
		least = [...]uint64{24, 1 << 8, 1 << 16}[length-24]
		if len(data) < size {
			return nil, nil, false
		}
		length = 0
		for _, b := range data[:size] {
			length = length<<8 | uint64(b)
		}
		data = data[size:]
	}
	if length < least || length > uint64(len(data)) {
		return nil, nil, false
	}
	return data[:length:length], data[length:], true
}

// decode reads a map whose known keys are 0 to last into the struct v points to. Unlike the decoder below it, it takes
// no value in another form than Marshal writes it (a short byte string for a key, null for nothing). ErrNewer means
// that all known keys were read and critical ones stand behind them.
func decode(data []byte, v any, last byte) error {
	err := dcbor.Unmarshal(data, v)
	if err != nil && !errors.Is(err, dcbor.ErrUnknownCritical) {
		return ErrMalformed
	}
	if data[0] >= 0xb8 { // more than 23 pairs: the map's head is longer than a byte
		return ErrMalformed
	}
	rest, ok := bytes.CutPrefix(data[1:], dcbor.Marshal(v)[1:])
	if !ok || len(rest) > 0 && rest[0] <= last {
		return ErrMalformed
	}
	if err != nil {
		return ErrNewer
	}
	return nil
}

// ascending tells whether hashes are sorted without a repetition and not more than limit.
func ascending(hashes []identity.Hash, limit int) bool {
	for i := 1; i < len(hashes); i++ {
		if compareHash(hashes[i-1], hashes[i]) >= 0 {
			return false
		}
	}
	return len(hashes) <= limit
}

func compareHash(a, b identity.Hash) int { return bytes.Compare(a[:], b[:]) }

func millis(t time.Time) uint64 { return uint64(max(0, t.UnixMilli())) }

func fromMillis(ms uint64) time.Time { return time.UnixMilli(int64(ms)).UTC() }

func fromSeconds(s uint64) time.Time { return time.Unix(int64(s), 0).UTC() }
