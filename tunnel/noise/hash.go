package noise

import "golang.org/x/crypto/blake2s"

const (
	construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
	identifier   = "WireGuard v1 zx2c4 Jason@zx2c4.com"
	labelMAC1    = "mac1----"
	labelCookie  = "cookie--"
)

const (
	hashSize  = blake2s.Size
	blockSize = blake2s.BlockSize
)

// hashOf is Hash of a label and a public key, short enough for one buffer on the stack.
func hashOf(label string, public *[32]byte) [hashSize]byte {
	var buf [blockSize]byte
	n := copy(buf[:], label)
	n += copy(buf[n:], public[:])
	return blake2s.Sum256(buf[:n])
}

// mac writes the paper's Mac: BLAKE2s keyed, 16 bytes long.
func mac(out *[macSize]byte, key, data []byte) {
	h, err := blake2s.New128(key)
	if err != nil {
		panic("noise: mac: " + err.Error()) // only a wrong length of key fails
	}
	h.Write(data)
	h.Sum(out[:0])
	h.Reset()
}

// kdf writes the paper's Kdf_n for n outputs: HKDF (RFC 5869) over HMAC-BLAKE2s with an empty info. An output may be
// the key itself; input has at most 32 bytes.
func kdf(key *[hashSize]byte, input []byte, out ...*[hashSize]byte) {
	var extracted, last [hashSize]byte
	hmacBLAKE2s(&extracted, key, input)
	var block [hashSize + 1]byte
	n := 0
	for i, o := range out {
		block[n] = byte(i + 1)
		hmacBLAKE2s(&last, &extracted, block[:n+1])
		n = copy(block[:], last[:])
		*o = last
	}
	wipe(extracted[:])
	wipe(last[:])
	wipe(block[:])
}

// hmacBLAKE2s is HMAC-BLAKE2s (RFC 2104) for keys of 32 bytes and data of at most 33, in buffers on the stack: hash.Hash
// would cost several allocations for each of the twenty in a handshake.
func hmacBLAKE2s(out, key *[hashSize]byte, data []byte) {
	var inner [blockSize + hashSize + 1]byte
	var outer [blockSize + hashSize]byte
	for i := range blockSize {
		inner[i], outer[i] = 0x36, 0x5c
	}
	for i, k := range key {
		inner[i] ^= k
		outer[i] ^= k
	}
	n := blockSize + copy(inner[blockSize:], data)
	sum := blake2s.Sum256(inner[:n])
	copy(outer[blockSize:], sum[:])
	*out = blake2s.Sum256(outer[:])
	wipe(inner[:])
	wipe(outer[:])
	wipe(sum[:])
}

// wipe clears b. It is a call that cannot be inlined, so that no compiler finds the bytes unused and leaves them.
//
//go:noinline
func wipe(b []byte) { clear(b) }
