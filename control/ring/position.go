package ring

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"github.com/meshnet/meshnet/identity"
)

// Position is a place on the ring, a number below 2^128. Distances are Positions too: they go upwards and wrap.
type Position struct{ hi, lo uint64 }

// PositionOf is where a member stands: the first 16 bytes of SHA-256(network ‖ PeerID), big-endian. A network of its
// own makes a place of its own: nobody prepares a key for more than one ring at a time.
func PositionOf(network identity.NetworkID, id identity.PeerID) Position {
	var b [len(network) + len(id)]byte
	copy(b[copy(b[:], network[:]):], id[:])
	sum := sha256.Sum256(b[:])
	return Position{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
}

// Compare orders positions as numbers: -1, 0 or +1.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.hi, o.hi), cmp.Compare(p.lo, o.lo))
}

// To is the distance upwards from p to o.
func (p Position) To(o Position) Position {
	lo, borrow := bits.Sub64(o.lo, p.lo, 0)
	hi, _ := bits.Sub64(o.hi, p.hi, borrow)
	return Position{hi, lo}
}

// plus is the position a distance above p.
func (p Position) plus(d Position) Position {
	lo, carry := bits.Add64(p.lo, d.lo, 0)
	hi, _ := bits.Add64(p.hi, d.hi, carry)
	return Position{hi, lo}
}

// doubling is the distance 2^k, k from 0 to 127.
func doubling(k int) Position {
	if k >= 64 {
		return Position{hi: 1 << (k - 64)}
	}
	return Position{lo: 1 << k}
}

// draw is a number below n that looks random and is always the same.
func (p Position) draw(k, n int) int {
	b := binary.BigEndian.AppendUint64(nil, p.hi)
	b = binary.BigEndian.AppendUint64(b, p.lo)
	sum := sha256.Sum256(append(b, byte(k)))
	return int(binary.BigEndian.Uint64(sum[:]) % uint64(n))
}
