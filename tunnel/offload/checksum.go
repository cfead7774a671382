package offload

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071) is the same in either byte order, so sums are of words as they lie in memory, eight
// bytes at a time, and are stored the same way.

// sum adds b, padded with a zero to even length, to the one's complement sum s. Two chains of additions run side by
// side in the processor, which is a quarter faster than one; copying and adding in one loop is slower than after each
// other. A chain that begins without a carry does not end with all ones and a carry, so adding that is safe.
func sum(b []byte, s uint64) uint64 {
	var t, c uint64
	for len(b) >= 64 {
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b), 0)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[24:]), c)
		s += c
		t, c = bits.Add64(t, binary.NativeEndian.Uint64(b[32:]), 0)
		t, c = bits.Add64(t, binary.NativeEndian.Uint64(b[40:]), c)
		t, c = bits.Add64(t, binary.NativeEndian.Uint64(b[48:]), c)
		t, c = bits.Add64(t, binary.NativeEndian.Uint64(b[56:]), c)
		t += c
		b = b[64:]
	}
	s, c = bits.Add64(s, t, 0)
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b), c)
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(last[:]), c)
	}
	return s + c
}

// add adds v to the one's complement sum s.
func add(s, v uint64) uint64 {
	s, c := bits.Add64(s, v, 0)
	return s + c
}

// fold makes 16 bits of a sum.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}

// word16 is v, stored in network byte order, as a term of a sum.
func word16(v uint16) uint64 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return uint64(binary.NativeEndian.Uint16(b[:]))
}

// word32 is v, stored in network byte order, as a term of a sum.
func word32(v uint32) uint64 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return uint64(binary.NativeEndian.Uint32(b[:]))
}

// pseudo is the sum of the pseudo header of pkt, which has an IP header, but for the length.
func pseudo(pkt []byte, proto uint8) uint64 {
	if pkt[0]>>4 == 4 {
		return sum(pkt[12:20], word16(uint16(proto)))
	}
	return sum(pkt[8:40], word16(uint16(proto)))
}

// putSum stores the checksum that makes up for s. Zero would say "none" in UDP, so it is sent as its equal 0xffff.
func putSum(b []byte, s uint64) {
	v := ^fold(s)
	if v == 0 {
		v = 0xffff
	}
	binary.NativeEndian.PutUint16(b, v)
}

// putIPv4Sum stores the header checksum of an IPv4 header, all of h.
func putIPv4Sum(h []byte) {
	h[10], h[11] = 0, 0
	binary.NativeEndian.PutUint16(h[10:], ^fold(sum(h, 0)))
}
