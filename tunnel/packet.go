package tunnel

import (
	"encoding/binary"
	"net/netip"
)

// headroom is kept free before a packet that is written to the OS TUN by itself: the virtio header (10 bytes) or the
// address family (4) goes there.
const headroom = 16

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
)

// addresses reads both ends of an IP packet and its size without what lies behind it; ok is false for anything that is
// not a whole packet.
func addresses(pkt []byte) (src, dst netip.Addr, size int, ok bool) {
	if len(pkt) < ipv4HeaderLen {
		return src, dst, 0, false
	}
	switch pkt[0] >> 4 {
	case 4:
		size = int(binary.BigEndian.Uint16(pkt[2:]))
		if size > len(pkt) || size < ipv4HeaderLen {
			return src, dst, 0, false
		}
		return netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20])), size, true
	case 6:
		if len(pkt) < ipv6HeaderLen {
			return src, dst, 0, false
		}
		size = int(binary.BigEndian.Uint16(pkt[4:])) + ipv6HeaderLen
		if size > len(pkt) {
			return src, dst, 0, false
		}
		return netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40])), size, true
	}
	return src, dst, 0, false
}
