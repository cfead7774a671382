package wg

import (
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
	"reflect"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"
)

// key is one direction's transport key.
type key struct {
	cipher.AEAD
	raw *[chacha20poly1305.KeySize]byte // where the AEAD keeps it
}

// newKey makes the AEAD of k. The package that implements it offers no way to erase its key, so the place is found by
// the type's shape, and compared; TestWipe holds that this works with the version in go.mod.
func newKey(k *[chacha20poly1305.KeySize]byte) (key, error) {
	a, err := chacha20poly1305.New(k[:])
	if err != nil {
		return key{}, fmt.Errorf("make transport key: %w", err)
	}
	out := key{AEAD: a}
	v := reflect.ValueOf(a)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || v.Elem().NumField() == 0 {
		return out, nil
	}
	field := v.Elem().Field(0)
	if field.Type() != reflect.TypeFor[[chacha20poly1305.KeySize]byte]() {
		return out, nil
	}
	raw := (*[chacha20poly1305.KeySize]byte)(unsafe.Pointer(field.UnsafeAddr()))
	if subtle.ConstantTimeCompare(raw[:], k[:]) == 1 {
		out.raw = raw
	}
	return out, nil
}

// wipe erases the key. Nobody may use it any more.
func (k *key) wipe() {
	if k.raw != nil {
		clear(k.raw[:])
	}
	k.AEAD, k.raw = nil, nil
}
