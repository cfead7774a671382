package dcbor

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// ErrUnknownCritical is returned by Unmarshal, with the value filled in as far as it is known, when the top-level
// map holds a key ≥ 0 that the Go type does not name.
var ErrUnknownCritical = errors.New("unknown critical field")

var (
	encMode = must(cbor.EncOptions{
		Sort: cbor.SortCoreDeterministic, ShortestFloat: cbor.ShortestFloat16,
		IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: MaxDepth + 1, MaxArrayElements: 1 << 17, MaxMapPairs: 1 << 10,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("dcbor: options: " + err.Error())
	}
	return v
}

// Marshal encodes v, a struct whose fields carry `cbor:"N,keyasint"` tags (add omitempty where absence means the
// zero value). It panics for a Go type that CBOR cannot hold, which is a programmer's error.
func Marshal(v any) []byte {
	data, err := encMode.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("dcbor: marshal %T: %v", v, err))
	}
	return data
}

// Unmarshal checks data and decodes it into the struct that v points to. Its errors are ErrNotCanonical (also for
// fields of the wrong kind) and ErrUnknownCritical.
func Unmarshal(data []byte, v any) error {
	if err := Check(data); err != nil {
		return err
	}
	if err := decMode.Unmarshal(data, v); err != nil {
		return ErrNotCanonical
	}
	t := reflect.TypeOf(v).Elem()
	if _, err := fit(data, t); err != nil {
		return err
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return checkCritical(data, t)
}

// checkCritical compares the top-level keys of data, known to be canonical, with those of a struct.
func checkCritical(data []byte, t reflect.Type) error {
	known := structKeys(t)
	major, pairs, rest, err := head(data)
	if err != nil || major != majorMap {
		return ErrNotCanonical
	}
	for range pairs {
		var key uint64
		if major, key, rest, err = head(rest); err != nil {
			return err
		}
		if major == majorUint && !known[key] {
			return ErrUnknownCritical
		}
		if rest, err = skip(rest, 1); err != nil {
			return err
		}
	}
	return nil
}

func structKeys(t reflect.Type) map[uint64]bool {
	keys := make(map[uint64]bool, t.NumField())
	for i := range t.NumField() {
		if key, ok := fieldKey(t.Field(i)); ok {
			keys[key] = true
		}
	}
	return keys
}
