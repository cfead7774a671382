package dcbor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf8"
)

// ErrNotCanonical is returned for bytes that are not one deterministic CBOR value of the accepted kind.
var ErrNotCanonical = errors.New("not canonical cbor")

// MaxDepth is how deep arrays and maps may nest.
const MaxDepth = 8

// The major types of RFC 8949 §3.1.
const (
	majorUint = iota
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// Check reports whether data is exactly one accepted value.
func Check(data []byte) error {
	rest, err := skip(data, 0)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return ErrNotCanonical
	}
	return nil
}

// head reads an initial byte and its argument, which must be in the shortest form.
func head(data []byte) (major byte, arg uint64, rest []byte, err error) {
	if len(data) == 0 {
		return 0, 0, nil, ErrNotCanonical
	}
	major, info := data[0]>>5, data[0]&31
	data = data[1:]
	if info < 24 {
		return major, uint64(info), data, nil
	}
	if info > 27 || major == majorSimple {
		return 0, 0, nil, ErrNotCanonical
	}
	size := 1 << (info - 24)
	if len(data) < size {
		return 0, 0, nil, ErrNotCanonical
	}
	var wide [8]byte
	copy(wide[8-size:], data)
	arg = binary.BigEndian.Uint64(wide[:])
	least := [...]uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]
	if arg < least {
		return 0, 0, nil, ErrNotCanonical
	}
	return major, arg, data[size:], nil
}

// skip checks the value at the start of data and returns what follows it.
func skip(data []byte, depth int) ([]byte, error) {
	major, arg, rest, err := head(data)
	if err != nil {
		return nil, err
	}
	switch major {
	case majorUint, majorNegative:
		return rest, nil
	case majorBytes, majorText:
		if arg > uint64(len(rest)) {
			return nil, ErrNotCanonical
		}
		if major == majorText && !utf8.Valid(rest[:arg]) {
			return nil, ErrNotCanonical
		}
		return rest[arg:], nil
	case majorArray, majorMap:
		if depth == MaxDepth || arg > uint64(len(rest)) { // each item is at least a byte
			return nil, ErrNotCanonical
		}
		if major == majorMap {
			return skipMap(rest, arg, depth+1)
		}
		for range arg {
			if rest, err = skip(rest, depth+1); err != nil {
				return nil, err
			}
		}
		return rest, nil
	case majorSimple:
		if arg >= 20 && arg <= 22 { // false, true, null
			return rest, nil
		}
	}
	return nil, ErrNotCanonical
}

func skipMap(data []byte, pairs uint64, depth int) ([]byte, error) {
	var last []byte
	for range pairs {
		major, arg, rest, err := head(data)
		if err != nil || major > majorNegative || arg > math.MaxInt64 {
			return nil, ErrNotCanonical
		}
		key := data[:len(data)-len(rest)]
		if last != nil && bytes.Compare(last, key) >= 0 {
			return nil, ErrNotCanonical
		}
		last = key
		if data, err = skip(rest, depth); err != nil {
			return nil, err
		}
	}
	return data, nil
}
