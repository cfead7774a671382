package wg

import "math/rand/v2"

// veil is a secret permutation of 32-bit numbers: not cryptography, but neighbours do not look like neighbours.
// Immutable.
type veil struct {
	key          uint32
	mul, inverse [2]uint32 // odd, and what undoes them modulo 2^32
}

func newVeil(rng *rand.Rand) veil {
	v := veil{key: rng.Uint32()}
	for i := range v.mul {
		m := rng.Uint32() | 1
		v.mul[i] = m
		inverse := m // right in the lowest three bits; each round of Newton's doubles that
		for range 4 {
			inverse *= 2 - m*inverse
		}
		v.inverse[i] = inverse
	}
	return v
}

// put hides x.
func (v *veil) put(x uint32) uint32 {
	x = (x ^ v.key) * v.mul[0]
	x ^= x >> 16
	x *= v.mul[1]
	return x ^ x>>16
}

// lift is the inverse of put.
func (v *veil) lift(x uint32) uint32 {
	x ^= x >> 16
	x *= v.inverse[1]
	x ^= x >> 16
	return x*v.inverse[0] ^ v.key
}
