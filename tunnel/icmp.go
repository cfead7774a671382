package tunnel

import (
	"encoding/binary"
	"net/netip"
	"time"
)

type icmpKind int

const (
	icmpUnreachable icmpKind = iota // RFC 792 type 3 code 1; RFC 4443 type 1 code 3
	icmpTooBig                      // RFC 1191 type 3 code 4; RFC 4443 type 2
)

type icmpVerdict int

const (
	icmpNot     icmpVerdict = iota // nobody may be answered
	icmpTooMany                    // rate limit
	icmpSend
)

// Errors per second, and how many at once.
const (
	icmpRate  = 100
	icmpBurst = 20
)

// icmpWriter builds ICMP errors for programs into one buffer. Owned by the reader of the OS TUN.
type icmpWriter struct {
	buf    [headroom + 1280]byte
	tokens float64
	last   time.Time
}

// build makes the error about pkt, which went from src to dst. The result, behind headroom, is valid until the next
// call.
func (w *icmpWriter) build(kind icmpKind, from, src, dst netip.Addr, pkt []byte, mtu int, now time.Time) ([]byte, icmpVerdict) {
	if dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || isICMPError(pkt) {
		return nil, icmpNot
	}
	if !w.allow(now) {
		return nil, icmpTooMany
	}
	if src.Is4() {
		return w.build4(kind, from, src, pkt, mtu), icmpSend
	}
	return w.build6(kind, from, src, pkt, mtu), icmpSend
}

func (w *icmpWriter) allow(now time.Time) bool {
	w.tokens = min(icmpBurst, w.tokens+now.Sub(w.last).Seconds()*icmpRate)
	w.last = now
	if w.tokens < 1 {
		return false
	}
	w.tokens--
	return true
}

// isICMPError: errors are never answered with errors (RFC 1122 §3.2.2, RFC 4443 §2.4). Later fragments have no header
// to look at and are not answered either.
func isICMPError(pkt []byte) bool {
	if pkt[0]>>4 == 4 {
		n := int(pkt[0]&15) * 4
		if n < ipv4HeaderLen || len(pkt) <= n || binary.BigEndian.Uint16(pkt[6:])&0x1fff != 0 {
			return true
		}
		const echoReply, echo, timestamp = 0, 8, 13
		return pkt[9] == 1 && pkt[n] != echo && pkt[n] != echoReply && pkt[n] != timestamp
	}
	return pkt[6] == 58 && (len(pkt) <= ipv6HeaderLen || pkt[ipv6HeaderLen] < 128)
}

func (w *icmpWriter) build4(kind icmpKind, from, to netip.Addr, cause []byte, mtu int) []byte {
	const header = 8
	n := copy(w.buf[headroom+ipv4HeaderLen+header:headroom+576], cause) // RFC 1812 §4.3.2.3
	out := w.buf[:headroom+ipv4HeaderLen+header+n]
	ip, body := out[headroom:], out[headroom+ipv4HeaderLen:]
	clear(ip[:ipv4HeaderLen+header])
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[8], ip[9] = 64, 1
	putAddresses(ip[12:], from, to)
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip[:ipv4HeaderLen]))
	body[0], body[1] = 3, 1
	if kind == icmpTooBig {
		body[1] = 4
		binary.BigEndian.PutUint16(body[6:], uint16(mtu))
	}
	binary.BigEndian.PutUint16(body[2:], checksum(0, body))
	return out
}

func (w *icmpWriter) build6(kind icmpKind, from, to netip.Addr, cause []byte, mtu int) []byte {
	const header = 8
	n := copy(w.buf[headroom+ipv6HeaderLen+header:], cause) // up to the minimum MTU, 1280
	out := w.buf[:headroom+ipv6HeaderLen+header+n]
	ip, body := out[headroom:], out[headroom+ipv6HeaderLen:]
	clear(ip[:ipv6HeaderLen+header])
	ip[0] = 0x60
	binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
	ip[6], ip[7] = 58, 64
	putAddresses(ip[8:], from, to)
	body[0], body[1] = 1, 3
	if kind == icmpTooBig {
		body[0], body[1] = 2, 0
		binary.BigEndian.PutUint32(body[4:], uint32(mtu))
	}
	binary.BigEndian.PutUint16(body[2:], checksum(uint32(len(body))+58, ip[8:40], body))
	return out
}

func putAddresses(b []byte, from, to netip.Addr) {
	n := copy(b, from.AsSlice())
	copy(b[n:], to.AsSlice())
}

// checksum is RFC 1071 over the parts, each of even length but the last.
func checksum(sum uint32, parts ...[]byte) uint16 {
	for _, b := range parts {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(b[0])<<8 | uint32(b[1])
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
