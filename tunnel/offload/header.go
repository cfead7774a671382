package offload

import (
	"encoding/binary"
	"errors"
)

const (
	// HeaderLen is the size in bytes of the virtio-net header in front of every packet.
	HeaderLen = 10
	// MaxRead is the size in bytes of a buffer that holds whatever one read of a TUN gives.
	MaxRead = HeaderLen + ipv6Len + 1<<16
)

// What Split.Start says about a read.
var (
	ErrMalformed   = errors.New("offload: virtio-net header and packet do not agree")
	ErrUnsupported = errors.New("offload: a kind of segmentation nobody asked for")
)

// Offloads says what superpackets a TUN takes and gives. Immutable.
type Offloads struct {
	TCP bool // TSO, both families
	UDP bool // USO (UDP_SEGMENT), both families; Linux 6.2
}

// flags and gso_type of linux/virtio_net.h.
const (
	flagNeedsCsum = 1

	gsoNone  = 0
	gsoTCP4  = 1
	gsoTCP6  = 4
	gsoUDPL4 = 5
	gsoECN   = 0x80 // beside a TCP type: the first segment has CWR
)

const (
	ipv4Len   = 20
	ipv6Len   = 40
	tcpLen    = 20
	udpLen    = 8
	maxPacket = 65535

	protoTCP = 6
	protoUDP = 17

	tcpCsum = 16
	udpCsum = 6

	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpCWR = 0x80

	fragDF = 0x4000
)

// header is struct virtio_net_hdr.
type header struct {
	flags, gsoType                         uint8
	hdrLen, gsoSize, csumStart, csumOffset uint16
}

// parseHeader reads the header of buf, which has at least HeaderLen bytes.
func parseHeader(buf []byte) header {
	_ = buf[HeaderLen-1]
	return header{
		flags:      buf[0],
		gsoType:    buf[1],
		hdrLen:     binary.NativeEndian.Uint16(buf[2:]),
		gsoSize:    binary.NativeEndian.Uint16(buf[4:]),
		csumStart:  binary.NativeEndian.Uint16(buf[6:]),
		csumOffset: binary.NativeEndian.Uint16(buf[8:]),
	}
}

// put writes the header to buf, which has at least HeaderLen bytes.
func (h header) put(buf []byte) {
	_ = buf[HeaderLen-1]
	buf[0], buf[1] = h.flags, h.gsoType
	binary.NativeEndian.PutUint16(buf[2:], h.hdrLen)
	binary.NativeEndian.PutUint16(buf[4:], h.gsoSize)
	binary.NativeEndian.PutUint16(buf[6:], h.csumStart)
	binary.NativeEndian.PutUint16(buf[8:], h.csumOffset)
}

// Super reports whether a read is a superpacket, and not one packet as a program sent it.
func Super(buf []byte) bool { return len(buf) >= HeaderLen && buf[1] != gsoNone }

// PacketSize is the size in bytes of the longest packet that a read will be split into, or 0 for a superpacket that
// cannot be.
func PacketSize(buf []byte) int {
	pkt := Header(buf)
	if !Super(buf) {
		return len(pkt)
	}
	h := parseHeader(buf)
	l4 := int(h.csumStart)
	if h.flags&flagNeedsCsum == 0 {
		l4 = ipHeader(pkt)
	}
	if h.gsoType == gsoUDPL4 {
		return min(l4+udpLen+int(h.gsoSize), len(pkt))
	}
	if l4+tcpLen > len(pkt) {
		return 0
	}
	return min(l4+int(pkt[l4+12]>>4)*4+int(h.gsoSize), len(pkt))
}

// Segmentation is what a stack leaves to do in a TCP packet that it gives away.
type Segmentation struct {
	IPv6       bool
	HeaderLen  int  // bytes of the IP and TCP headers
	IPLen      int  // bytes of the IP header
	NeedsCsum  bool // the checksum field holds the sum of the pseudo header only
	CsumOffset int  // of the checksum field, from the TCP header on
	MSS        int  // the payload is longer; 0: it is not
}

// Put writes the virtio-net header that says so to buf, which has at least HeaderLen bytes.
func (s Segmentation) Put(buf []byte) {
	var h header
	if s.NeedsCsum {
		h.flags, h.csumStart, h.csumOffset = flagNeedsCsum, uint16(s.IPLen), uint16(s.CsumOffset)
	}
	if s.MSS > 0 {
		h.gsoType, h.hdrLen, h.gsoSize = gsoTCP4, uint16(s.HeaderLen), uint16(s.MSS)
		if s.IPv6 {
			h.gsoType = gsoTCP6
		}
	}
	h.put(buf)
}

// Header is the IP packet of what was read from the TUN, nil if there is none. All packets that a Split makes of it
// have its addresses and ports.
func Header(buf []byte) []byte {
	if len(buf) <= HeaderLen {
		return nil
	}
	return buf[HeaderLen:]
}

// ipHeader gives the length of pkt's IP header, without an IPv6 packet's extension headers; 0 if there is none.
func ipHeader(pkt []byte) int {
	if len(pkt) < ipv4Len {
		return 0
	}
	switch pkt[0] >> 4 {
	case 4:
		n := int(pkt[0]&15) * 4
		if n >= ipv4Len && n <= len(pkt) {
			return n
		}
	case 6:
		if len(pkt) >= ipv6Len {
			return ipv6Len
		}
	}
	return 0
}
