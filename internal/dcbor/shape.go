package dcbor

import (
	"reflect"
	"strconv"
	"strings"
)

const null = 22

// fit checks that the value at the start of data, known to be canonical, has a form that Marshal gives to a t, where
// the decoder is generous: arrays of bytes are byte strings of just their length, and null stands only for what can be
// nil. It returns what follows the value.
func fit(data []byte, t reflect.Type) ([]byte, error) {
	major, arg, rest, err := head(data)
	if err != nil {
		return nil, err
	}
	if major == majorSimple && arg == null {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
			return rest, nil
		}
		return nil, ErrNotCanonical
	}
	switch {
	case t.Kind() == reflect.Pointer:
		return fit(data, t.Elem())
	case t.Kind() == reflect.Array && t.Elem().Kind() == reflect.Uint8:
		if major != majorBytes || arg != uint64(t.Len()) {
			return nil, ErrNotCanonical
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		if major != majorBytes {
			return nil, ErrNotCanonical
		}
	case t.Kind() == reflect.Slice && major == majorArray:
		for range arg {
			if rest, err = fit(rest, t.Elem()); err != nil {
				return nil, err
			}
		}
		return rest, nil
	case t.Kind() == reflect.Struct && major == majorMap:
		return fitFields(rest, arg, t)
	}
	return skip(data, 0)
}

// fitFields checks the values of a map by the fields of a struct. Other keys are passed over.
func fitFields(data []byte, pairs uint64, t reflect.Type) ([]byte, error) {
	fields := make(map[uint64]reflect.Type, t.NumField())
	for i := range t.NumField() {
		if key, ok := fieldKey(t.Field(i)); ok {
			fields[key] = t.Field(i).Type
		}
	}
	for range pairs {
		major, key, rest, err := head(data)
		if err != nil {
			return nil, err
		}
		if field, ok := fields[key]; ok && major == majorUint {
			data, err = fit(rest, field)
		} else {
			data, err = skip(rest, 0)
		}
		if err != nil {
			return nil, err
		}
	}
	return data, nil
}

// fieldKey is the map key of a struct field, if it has one.
func fieldKey(f reflect.StructField) (uint64, bool) {
	tag, _, _ := strings.Cut(f.Tag.Get("cbor"), ",")
	key, err := strconv.ParseUint(tag, 10, 64)
	return key, err == nil
}
