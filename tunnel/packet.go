package tunnel

import (
	"encoding/binary"
	"net/netip"
	"sync"
)

// headroom is kept free before every packet in a buffer: NativeTun writes its virtio header (10 bytes) or address
// family (4) there.
const headroom = 16

// packet is a pooled buffer with one IP packet behind headroom. It has one owner at a time.
type packet struct {
	buf  []byte
	kept *peer // the lot has a copy for this member's Reset
}

var packetPool = sync.Pool{New: func() any { return &packet{buf: make([]byte, 0, 2048)} }}

// newPacket gives a buffer for size bytes. The caller fills bytes and calls free, or hands it on.
func newPacket(size int) *packet {
	p := packetPool.Get().(*packet)
	if cap(p.buf) < headroom+size {
		p.buf = make([]byte, headroom+size)
	}
	p.buf, p.kept = p.buf[:headroom+size], nil
	return p
}

// copyPacket is a pooled copy of b.
func copyPacket(b []byte) *packet {
	p := newPacket(len(b))
	copy(p.bytes(), b)
	return p
}

func (p *packet) bytes() []byte { return p.buf[headroom:] }

func (p *packet) free() {
	// A jumbo buffer would stay in the pool for ever to carry small packets.
	if cap(p.buf) <= 16<<10 {
		packetPool.Put(p)
	}
}

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
)

// addresses reads both ends of an IP packet; ok is false for anything that is not at least a whole header.
func addresses(pkt []byte) (src, dst netip.Addr, ok bool) {
	if len(pkt) < ipv4HeaderLen {
		return src, dst, false
	}
	switch pkt[0] >> 4 {
	case 4:
		if int(binary.BigEndian.Uint16(pkt[2:])) > len(pkt) {
			return src, dst, false
		}
		return netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20])), true
	case 6:
		if len(pkt) < ipv6HeaderLen || int(binary.BigEndian.Uint16(pkt[4:]))+ipv6HeaderLen > len(pkt) {
			return src, dst, false
		}
		return netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40])), true
	}
	return src, dst, false
}
