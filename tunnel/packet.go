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

// ends are the addresses of both ends of a whole IP packet, and its size without what lies behind it; nil for anything
// else.
func ends(pkt []byte) (both []byte, size int) {
	if len(pkt) < ipv4HeaderLen {
		return nil, 0
	}
	switch pkt[0] >> 4 {
	case 4:
		both, size = pkt[12:20], int(binary.BigEndian.Uint16(pkt[2:]))
		if size < ipv4HeaderLen {
			return nil, 0
		}
	case 6:
		if len(pkt) < ipv6HeaderLen {
			return nil, 0
		}
		both, size = pkt[8:40], int(binary.BigEndian.Uint16(pkt[4:]))+ipv6HeaderLen
	default:
		return nil, 0
	}
	if size > len(pkt) {
		return nil, 0
	}
	return both, size
}

// addresses are the ends of a whole IP packet as addresses, and its size; ok is false for anything else.
func addresses(pkt []byte) (src, dst netip.Addr, size int, ok bool) {
	both, size := ends(pkt)
	switch len(both) {
	case 8:
		return netip.AddrFrom4([4]byte(both)), netip.AddrFrom4([4]byte(both[4:])), size, true
	case 32:
		return netip.AddrFrom16([16]byte(both)), netip.AddrFrom16([16]byte(both[16:])), size, true
	}
	return src, dst, 0, false
}
