package noise

import (
	"crypto/hkdf"
	"crypto/rand"
	"hash"
	"testing"

	"golang.org/x/crypto/blake2s"
)

// kdf is HKDF of the standard library, at every length of input and number of outputs.
func TestKDF(t *testing.T) {
	newHash := func() hash.Hash {
		h, _ := blake2s.New256(nil)
		return h
	}
	for size := range 33 {
		var key [hashSize]byte
		input := make([]byte, size)
		rand.Read(key[:])
		rand.Read(input)
		want, err := hkdf.Key(newHash, input, key[:], "", 3*hashSize)
		if err != nil {
			t.Fatal(err)
		}
		var a, b, c [hashSize]byte
		outs := []*[hashSize]byte{&a, &b, &c}
		for n := 1; n <= 3; n++ {
			kdf(&key, input, outs[:n]...)
			for i, out := range outs[:n] {
				same(t, "output", out[:], want[i*hashSize:(i+1)*hashSize])
			}
		}
		kdf(&key, input, &key, &b) // over the key itself
		same(t, "chained", key[:], want[:hashSize])
		same(t, "after it", b[:], want[hashSize:2*hashSize])
	}
}

func TestHMAC(t *testing.T) {
	for size := range 34 {
		var key, got [hashSize]byte
		data := make([]byte, size)
		rand.Read(key[:])
		rand.Read(data)
		hmacBLAKE2s(&got, &key, data)
		same(t, "hmac", got[:], naiveHMAC(key[:], data))
	}
}

func TestMixHash(t *testing.T) {
	for size := range 65 {
		var s symmetric
		data := make([]byte, size)
		rand.Read(s.hash[:])
		rand.Read(data)
		want := naiveHash(s.hash[:], data)
		s.mixHash(data)
		same(t, "hash", s.hash[:], want)
	}
}
