package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// spec is a packet to build.
type spec struct {
	v6, udp  bool
	host     byte // last byte of the source address
	port     uint16
	seq      uint32
	flags    uint8 // TCP
	id, frag uint16
	ipOpts   int // bytes: IPv4 options, or an IPv6 destination options header
	tcpOpts  int
	payload  []byte
}

// build makes the packet, with correct checksums.
func (s spec) build() []byte {
	var p []byte
	proto := byte(protoTCP)
	if s.udp {
		proto = protoUDP
	}
	if s.v6 {
		p = make([]byte, 40+s.ipOpts)
		p[0], p[1], p[2], p[3] = 0x60, 0x0a, 0xbc, 0xde
		p[6], p[7] = proto, 63
		if s.ipOpts > 0 { // one PadN option
			p[6], p[40], p[41] = 60, proto, byte(s.ipOpts/8-1)
			p[42], p[43] = 1, byte(s.ipOpts-4)
		}
		copy(p[8:], "\xfd\x01srcsrcsrcsrcs")
		copy(p[24:], "\xfd\x01dstdstdstdstd")
		p[23] = s.host
	} else {
		p = make([]byte, 20+s.ipOpts)
		p[0], p[1] = 0x40|byte(len(p)/4), 8
		binary.BigEndian.PutUint16(p[4:], s.id)
		binary.BigEndian.PutUint16(p[6:], s.frag)
		p[8], p[9] = 64, proto
		copy(p[12:], []byte{100, 64, 0, s.host, 100, 65, 1, 2})
		for i := 20; i < len(p); i++ {
			p[i] = 1 // no operation
		}
	}
	l4 := make([]byte, 8)
	if !s.udp {
		l4 = make([]byte, 20+s.tcpOpts)
		binary.BigEndian.PutUint32(l4[4:], s.seq)
		binary.BigEndian.PutUint32(l4[8:], 0x01020304)
		l4[12], l4[13] = byte(len(l4)/4)<<4, s.flags
		binary.BigEndian.PutUint16(l4[14:], 500)
		for i := 20; i < len(l4); i++ {
			l4[i] = byte(i)
		}
	}
	binary.BigEndian.PutUint16(l4, s.port)
	binary.BigEndian.PutUint16(l4[2:], 443)
	p = append(append(p, l4...), s.payload...)
	naiveLengths(p)
	naiveSums(p)
	return p
}

// l4Offset is where the TCP or UDP header begins, as build makes it.
func (s spec) l4Offset() int {
	if s.v6 {
		return 40 + s.ipOpts
	}
	return 20 + s.ipOpts
}

// super is what the kernel would give for the packet, uncut: virtio-net header, checksum of the pseudo header only.
func (s spec) super(size int) []byte {
	p := s.build()
	at := s.l4Offset()
	h := header{flags: flagNeedsCsum, gsoSize: uint16(size), csumStart: uint16(at)}
	switch {
	case s.udp:
		h.gsoType, h.csumOffset, h.hdrLen = gsoUDPL4, udpCsum, uint16(at+8)
	case s.v6:
		h.gsoType, h.csumOffset, h.hdrLen = gsoTCP6, tcpCsum, uint16(at+20+s.tcpOpts)
	default:
		h.gsoType, h.csumOffset, h.hdrLen = gsoTCP4, tcpCsum, uint16(at+20+s.tcpOpts)
	}
	binary.BigEndian.PutUint16(p[at+int(h.csumOffset):], naiveFold(naivePseudo(p, s.udp, len(p)-at)))
	buf := make([]byte, HeaderLen, HeaderLen+len(p))
	h.put(buf)
	return append(buf, p...)
}

func naiveFold(n uint64) uint16 {
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}

func naiveSum(b []byte) (n uint64) {
	for i, v := range b {
		if i%2 == 0 {
			n += uint64(v) << 8
		} else {
			n += uint64(v)
		}
	}
	return n
}

func naivePseudo(p []byte, udp bool, size int) uint64 {
	n := uint64(size) + protoTCP
	if udp {
		n += protoUDP - protoTCP
	}
	if p[0]>>4 == 4 {
		return n + naiveSum(p[12:20])
	}
	return n + naiveSum(p[8:40])
}

// naiveFind gives the offset of p's TCP or UDP header and which it is, -1 when there is none to be seen.
func naiveFind(p []byte) (at int, udp bool) {
	if len(p) < 20 || p[0]>>4 == 6 && len(p) < 40 {
		return -1, false
	}
	proto, at := p[9], int(p[0]&15)*4
	switch p[0] >> 4 {
	case 4:
		if at < 20 || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return -1, false
		}
	case 6:
		if proto, at = p[6], 40; proto == 60 && len(p) >= 48 {
			proto, at = p[40], 48+int(p[41])*8
		}
	default:
		return -1, false
	}
	if proto == protoTCP && at+20 <= len(p) || proto == protoUDP && at+8 <= len(p) {
		return at, proto == protoUDP
	}
	return -1, false
}

// naiveLengths stores the lengths of p.
func naiveLengths(p []byte) {
	if p[0]>>4 == 4 {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	} else {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	}
	if at, udp := naiveFind(p); at >= 0 && udp {
		binary.BigEndian.PutUint16(p[at+4:], uint16(len(p)-at))
	}
}

// naiveSums stores the checksums of p, but for those that are lost to it.
func naiveSums(p []byte) {
	if p[0]>>4 == 4 {
		h := p[:p[0]&15*4]
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], ^naiveFold(naiveSum(h)))
	}
	at, udp := naiveFind(p)
	if at < 0 {
		return
	}
	offset := 16
	if udp {
		offset = 6
	}
	c := p[at+offset:]
	c[0], c[1] = 0, 0
	v := ^naiveFold(naiveSum(p[at:]) + naivePseudo(p, udp, len(p)-at))
	if v == 0 {
		v = 0xffff
	}
	binary.BigEndian.PutUint16(c, v)
}

// naiveSplit cuts a packet with correct headers into segments of size.
func naiveSplit(p []byte, size int) (out [][]byte) {
	at, udp := naiveFind(p)
	hl := at + 8
	if !udp {
		hl = at + int(p[at+12]>>4)*4
	}
	for k, left := 0, p[hl:]; k == 0 || len(left) > 0; k++ {
		n := min(size, len(left))
		q := append(bytes.Clone(p[:hl]), left[:n]...)
		left = left[n:]
		if q[0]>>4 == 4 {
			binary.BigEndian.PutUint16(q[4:], binary.BigEndian.Uint16(p[4:])+uint16(k))
		}
		if !udp {
			binary.BigEndian.PutUint32(q[at+4:], binary.BigEndian.Uint32(p[at+4:])+uint32(k*size))
			if k > 0 {
				q[at+13] &^= 0x80
			}
			if len(left) > 0 {
				q[at+13] &^= 0x09
			}
		}
		naiveLengths(q)
		naiveSums(q)
		out = append(out, q)
	}
	return out
}

// randomBytes are n bytes that a checksum notices.
func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// splitAll is what a Split makes of a read.
func splitAll(t testing.TB, buf []byte) (out [][]byte) {
	t.Helper()
	var s Split
	if err := s.Start(buf); err != nil {
		t.Fatalf("Start: %v", err)
	}
	for s.Size() > 0 {
		dst := bytes.Repeat([]byte{0xa5}, s.Size()+1)
		n := s.Fill(dst)
		if dst[n] != 0xa5 || n != len(dst)-1 {
			t.Fatalf("Fill wrote %d bytes, Size said %d", n, len(dst)-1)
		}
		out = append(out, dst[:n])
	}
	if s.Fill(nil) != 0 {
		t.Fatal("Fill after the last packet")
	}
	return out
}

func samePackets(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d of %d:\n got %s\nwant %s", i, len(want), head(got[i]), head(want[i]))
		}
	}
}

// head is what fits a line of a packet.
func head(p []byte) string { return fmt.Sprintf("%d bytes: %x", len(p), p[:min(len(p), 100)]) }

// train makes n segments of size in sequence, of the packets that s describes.
func train(s spec, size, n int) (out [][]byte) {
	for range n {
		s.payload = bytes.Repeat([]byte{byte(len(out))}, size)
		out = append(out, s.build())
		s.id++
		s.seq += uint32(size)
	}
	return out
}
