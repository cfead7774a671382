package offload

import (
	"bytes"
	"encoding/binary"
)

// segment is a packet that has been looked at.
type segment struct {
	pkt  []byte // borrowed: cut to the length its IP header says
	kind uint8  // gsoTCP4, gsoTCP6, gsoUDPL4; gsoNone: goes alone
	l4   int    // offset of the TCP or UDP header; 0: has no ports, so what flow it is of is unknown
	hl   int    // offset of the payload
	next int32  // the next segment of its superpacket, or -1
}

// payload is what follows the TCP or UDP header.
func (g *segment) payload() []byte { return g.pkt[g.hl:] }

// look reads the headers of a packet. What has anything unusual stays gsoNone, as it does in the kernel's GRO: IPv4
// options, fragments, IPv6 extension headers, TCP flags besides ACK and PSH, no payload, UDP without a checksum.
func look(pkt []byte) segment {
	g := segment{pkt: pkt, next: -1}
	ipLen := ipHeader(pkt)
	if ipLen == 0 {
		return g
	}
	plain := true
	size := ipv6Len
	if pkt[0]>>4 == 4 {
		size = int(binary.BigEndian.Uint16(pkt[2:]))
		frag := binary.BigEndian.Uint16(pkt[6:])
		if frag&0x1fff != 0 {
			return g // no ports in here
		}
		plain = ipLen == ipv4Len && frag&^fragDF == 0
	} else {
		size += int(binary.BigEndian.Uint16(pkt[4:]))
	}
	if size < ipLen+udpLen || size > len(pkt) {
		return g
	}
	g.pkt = pkt[:size]
	switch protocol(pkt) {
	case protoTCP:
		g.lookTCP(ipLen, plain)
	case protoUDP:
		g.lookUDP(ipLen, plain)
	}
	return g
}

func (g *segment) lookTCP(l4 int, plain bool) {
	g.l4 = l4
	if len(g.pkt) < l4+tcpLen {
		return
	}
	t := g.pkt[l4:]
	g.hl = l4 + int(t[12]>>4)*4
	if !plain || g.hl < l4+tcpLen || g.hl >= len(g.pkt) || t[13]&^tcpPSH != tcpACK {
		return
	}
	g.kind = gsoTCP6
	if g.pkt[0]>>4 == 4 {
		g.kind = gsoTCP4
	}
}

func (g *segment) lookUDP(l4 int, plain bool) {
	g.l4 = l4
	g.hl = l4 + udpLen
	u := g.pkt[l4:]
	if plain && g.hl < len(g.pkt) && int(binary.BigEndian.Uint16(u[4:])) == len(u) && u[6]|u[7] != 0 {
		g.kind = gsoUDPL4
	}
}

// sameFlow reports whether two packets, both with ports, have the same addresses, protocol and ports.
func (g *segment) sameFlow(o *segment) bool {
	p, q := g.pkt, o.pkt
	return sameHosts(p, q) && protocol(p) == protocol(q) && bytes.Equal(p[g.l4:g.l4+4], q[o.l4:o.l4+4])
}

// hash spreads flows with ports.
func (g *segment) hash() uint64 {
	p := g.pkt
	h := uint64(binary.LittleEndian.Uint32(p[g.l4:]))*0x9e3779b97f4a7c15 ^ uint64(protocol(p))
	if p[0]>>4 == 4 {
		h ^= binary.LittleEndian.Uint64(p[12:])
	} else {
		h ^= binary.LittleEndian.Uint64(p[8:]) ^ binary.LittleEndian.Uint64(p[16:]) ^
			binary.LittleEndian.Uint64(p[24:]) ^ binary.LittleEndian.Uint64(p[32:])
	}
	return h * 0xff51afd7ed558ccd >> 40
}

// sameHosts reports whether two packets with IP headers have the same addresses.
func sameHosts(p, q []byte) bool {
	switch {
	case p[0]>>4 != q[0]>>4:
		return false
	case p[0]>>4 == 4:
		return binary.NativeEndian.Uint64(p[12:]) == binary.NativeEndian.Uint64(q[12:])
	}
	return bytes.Equal(p[8:40], q[8:40])
}

// sameIP reports whether nothing in the IP headers of two packets of a flow speaks against joining them.
func sameIP(p, q []byte) bool {
	if p[0]>>4 == 4 { // TOS; DF; TTL and protocol
		return p[1] == q[1] && p[6] == q[6] && p[8] == q[8]
	}
	// Version, traffic class, flow label; hop limit.
	return binary.NativeEndian.Uint32(p) == binary.NativeEndian.Uint32(q) && p[7] == q[7]
}

// sameTCP reports whether two TCP headers of the same length differ in no more than ports, sequence number, PSH and
// checksum: acknowledgement, flags, window, urgent pointer and options (timestamps too) are equal.
func sameTCP(t, u []byte) bool {
	return binary.NativeEndian.Uint32(t[8:]) == binary.NativeEndian.Uint32(u[8:]) && t[12] == u[12] &&
		(t[13]^u[13])&^tcpPSH == 0 && binary.NativeEndian.Uint16(t[14:]) == binary.NativeEndian.Uint16(u[14:]) &&
		bytes.Equal(t[18:], u[18:])
}

// super is one superpacket in the making: a chain of segments, or a packet that goes alone.
type super struct {
	head, tail int32 // in Join.segs
	count      int   // of segments
	total      int   // bytes, with one header
	size       int   // payload bytes of the first segment
	open       bool  // more may be appended
	id         uint16
	seq        uint32 // both of the segment that would come next
}

const (
	maxSegments    = 128 // of one superpacket
	maxSegmentsUDP = 64  // what a receiver with UDP_GRO expects at most (UDP_GRO_CNT_MAX)
)

// begin makes a superpacket of its first segment.
func begin(g *segment, at int32) super {
	s := super{head: at, tail: at, count: 1, total: len(g.pkt), open: g.kind != gsoNone}
	if s.open {
		s.size = len(g.payload())
		s.advance(g)
	}
	return s
}

// advance notes what has to follow g, and whether anything may.
func (s *super) advance(g *segment) {
	n := len(g.payload())
	s.open = n == s.size
	if g.pkt[0]>>4 == 4 {
		s.id = binary.BigEndian.Uint16(g.pkt[4:]) + 1
	}
	if g.kind == gsoUDPL4 {
		s.open = s.open && s.count < maxSegmentsUDP
		return
	}
	s.seq = binary.BigEndian.Uint32(g.pkt[g.l4+4:]) + uint32(n)
	s.open = s.open && s.count < maxSegments && g.pkt[g.l4+13]&tcpPSH == 0
}

// fits reports whether g, of the same flow, continues the superpacket that begins with first. The ID of an IPv4 packet
// that is never fragmented says nothing (RFC 6864); others have to count on.
func (s *super) fits(first, g *segment) bool {
	n := len(g.payload())
	if g.kind != first.kind || g.hl != first.hl || n > s.size || s.total+n > maxPacket || !sameIP(first.pkt, g.pkt) {
		return false
	}
	if g.pkt[0]>>4 == 4 && g.pkt[6] == 0 && binary.BigEndian.Uint16(g.pkt[4:]) != s.id {
		return false
	}
	t := g.pkt[g.l4:g.hl]
	return g.kind == gsoUDPL4 || binary.BigEndian.Uint32(t[4:]) == s.seq && sameTCP(first.pkt[first.l4:first.hl], t)
}
