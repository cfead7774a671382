package main

import (
	"encoding/binary"
	"math/bits"
)

// sum adds up the 16-bit words of b and initial for the internet checksum (RFC 1071), eight bytes at a time in the
// machine's own order: the sum's order of bytes is that of its words (§2 B).
func sum(b []byte, initial uint64) uint64 {
	s, carry := initial, uint64(0)
	for len(b) >= 32 {
		s, carry = bits.Add64(s, binary.NativeEndian.Uint64(b), carry)
		s, carry = bits.Add64(s, binary.NativeEndian.Uint64(b[8:]), carry)
		s, carry = bits.Add64(s, binary.NativeEndian.Uint64(b[16:]), carry)
		s, carry = bits.Add64(s, binary.NativeEndian.Uint64(b[24:]), carry)
		b = b[32:]
	}
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.NativeEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	s, carry = bits.Add64(s, binary.NativeEndian.Uint64(tail[:]), carry)
	s, carry = bits.Add64(s, 0, carry)
	return s + carry
}

// fold reduces a sum to 16 bits, in the machine's order of bytes.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}

// sealHeader fills in the checksum of an IPv4 header.
func sealHeader(h []byte) {
	h[10], h[11] = 0, 0
	binary.NativeEndian.PutUint16(h[10:], ^fold(sum(h, 0)))
}

// pseudoHeader is the sum of TCP's and UDP's pseudo-header (RFC 9293 §3.1) of an IPv4 packet.
func pseudoHeader(packet []byte, protocol byte, length int) uint64 {
	var b [4]byte
	b[1] = protocol
	binary.BigEndian.PutUint16(b[2:], uint16(length))
	return sum(b[:], sum(packet[12:20], 0))
}
