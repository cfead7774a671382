package offload

import "encoding/binary"

// Split makes ordinary IP packets of what was read from a TUN, one by one, as the kernel's own segmentation does
// (tcp_gso_segment, __udp_gso_segment): lengths, IPv4 ID and header checksum, TCP sequence number, FIN and PSH only in
// the last segment, CWR only in the first, and the full TCP or UDP checksum.
//
//	err := s.Start(buf)
//	for s.Size() > 0 {
//		n := s.Fill(slot)
//	}
//
// The zero value is done. Owned by one goroutine.
type Split struct {
	pkt  []byte // borrowed: the IP packet, until the next Start; nil when done
	kind uint8  // gsoNone, or which superpacket
	last uint8  // TCP flags of the last segment only

	// Of a whole packet: where its checksum is missing, if needed.
	csumStart, csumAt int

	// Of a superpacket.
	l4, hl int // offset of the TCP or UDP header, and of the payload
	seg    int // payload bytes in each segment but the last
	off    int // of the next payload byte in pkt
	id     uint16
	seq    uint32
	flags  uint8 // TCP flags of the next segment
	ipSum  uint64
	l4Sum  uint64 // both without the fields that differ between segments
}

// Start begins with a read from the TUN: a virtio-net header and an IP packet, of which every length is checked. buf
// belongs to the Split until the next Start; its headers behind the addresses are changed. After an error there is
// nothing to fill.
func (s *Split) Start(buf []byte) error {
	s.pkt = nil
	if len(buf) <= HeaderLen {
		return ErrMalformed
	}
	h, pkt := parseHeader(buf), buf[HeaderLen:]
	ipLen := ipHeader(pkt)
	if ipLen == 0 {
		return ErrMalformed
	}
	start, at := int(h.csumStart), int(h.csumStart)+int(h.csumOffset)
	if h.flags&flagNeedsCsum == 0 {
		start, at = 0, 0
	} else if start < ipLen || at+2 > len(pkt) {
		return ErrMalformed
	}
	if h.gsoType == gsoNone {
		*s = Split{pkt: pkt, csumStart: start, csumAt: at}
		return nil
	}
	if start == 0 {
		start = ipLen
		if proto := protocol(pkt); proto != protoTCP && proto != protoUDP {
			return ErrUnsupported
		}
	}
	return s.startSuper(h, pkt, ipLen, start)
}

// maxHeaders bounds IPv6 extension headers, since every segment carries them.
const maxHeaders = 512

// startSuper begins with a superpacket, whose TCP or UDP header is at l4. hdr_len is of no use: the kernel gives the
// length of whatever lies in its linear buffer.
func (s *Split) startSuper(h header, pkt []byte, ipLen, l4 int) error {
	v4 := pkt[0]>>4 == 4
	x := Split{pkt: pkt, kind: h.gsoType &^ gsoECN, l4: l4, seg: int(h.gsoSize)}
	switch {
	case x.kind == gsoTCP4 && v4, x.kind == gsoTCP6 && !v4:
		if l4+tcpLen > len(pkt) {
			return ErrMalformed
		}
		words := int(pkt[l4+12] >> 4)
		x.hl = l4 + words*4
		if words < tcpLen/4 {
			return ErrMalformed
		}
	case h.gsoType == gsoUDPL4:
		x.hl = l4 + udpLen
	default:
		return ErrUnsupported
	}
	n := x.hl + min(x.seg, len(pkt)-x.hl) // of the largest packet
	switch {
	case x.seg == 0 || x.hl > len(pkt):
		return ErrMalformed
	case v4 && (l4 != ipLen || n > maxPacket || binary.BigEndian.Uint16(pkt[6:])&^fragDF != 0):
		return ErrMalformed
	case !v4 && (n-ipv6Len > maxPacket || l4 > maxHeaders):
		return ErrMalformed
	}
	x.off = x.hl
	x.sumHeaders()
	*s = x
	return nil
}

// sumHeaders clears the fields that differ between segments and sums the rest.
func (s *Split) sumHeaders() {
	p := s.pkt
	if p[0]>>4 == 4 {
		s.id = binary.BigEndian.Uint16(p[4:])
		clear(p[2:6])
		clear(p[10:12])
		s.ipSum = sum(p[:s.l4], 0)
	}
	t := p[s.l4:s.hl]
	if s.kind == gsoUDPL4 {
		clear(t[4:8])
		s.l4Sum = sum(t, pseudo(p, protoUDP))
		return
	}
	s.seq = binary.BigEndian.Uint32(t[4:])
	s.last = t[13] & (tcpFIN | tcpPSH)
	s.flags = t[13] &^ s.last
	clear(t[4:8])
	t[13] = 0
	clear(t[tcpCsum : tcpCsum+2])
	s.l4Sum = sum(t, pseudo(p, protoTCP))
}

// Size is how many bytes Fill will write, 0 when all packets were filled. It can exceed the interface's MTU only if
// the kernel was told so, by a program that may send raw packets; at most 65575.
func (s *Split) Size() int {
	switch {
	case s.pkt == nil:
		return 0
	case s.kind == gsoNone:
		return len(s.pkt)
	}
	return s.hl + min(s.seg, len(s.pkt)-s.off)
}

// Fill writes the next packet to dst and returns its size, 0 when there is none. dst must hold Size bytes (it panics
// otherwise) and not overlap the read.
func (s *Split) Fill(dst []byte) int {
	n := s.Size()
	if n == 0 {
		return 0
	}
	dst = dst[:n]
	if s.kind == gsoNone {
		s.fillWhole(dst)
		return n
	}
	pl := n - s.hl
	copy(dst, s.pkt[:s.hl])
	copy(dst[s.hl:], s.pkt[s.off:s.off+pl])
	s.off += pl
	last := s.off == len(s.pkt)
	if dst[0]>>4 == 4 {
		binary.BigEndian.PutUint16(dst[2:], uint16(n))
		binary.BigEndian.PutUint16(dst[4:], s.id)
		binary.NativeEndian.PutUint16(dst[10:], ^fold(add(s.ipSum, word16(uint16(n))+word16(s.id))))
		s.id++
	} else {
		binary.BigEndian.PutUint16(dst[4:], uint16(n-ipv6Len))
	}
	s.fillL4(dst[s.l4:], pl, last)
	if last {
		s.pkt = nil
	}
	return n
}

// fillL4 makes the TCP or UDP header of t, which has pl bytes of payload.
func (s *Split) fillL4(t []byte, pl int, last bool) {
	size := word16(uint16(len(t))) // of the pseudo header, and of UDP's
	v := sum(t[len(t)-pl:], s.l4Sum)
	if s.kind == gsoUDPL4 {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
		putSum(t[udpCsum:], add(v, 2*size))
		return
	}
	if last {
		s.flags |= s.last
	}
	t[13] = s.flags
	binary.BigEndian.PutUint32(t[4:], s.seq)
	putSum(t[tcpCsum:], add(v, size+word16(uint16(s.flags))+word32(s.seq)))
	s.seq += uint32(pl)
	s.flags &^= tcpCWR
}

// fillWhole copies a packet and completes its checksum.
func (s *Split) fillWhole(dst []byte) {
	copy(dst, s.pkt)
	if s.csumStart > 0 {
		putSum(dst[s.csumAt:], sum(dst[s.csumStart:], 0))
	}
	s.pkt = nil
}

// protocol is that of the header behind pkt's IP header.
func protocol(pkt []byte) uint8 {
	if pkt[0]>>4 == 4 {
		return pkt[9]
	}
	return pkt[6]
}
