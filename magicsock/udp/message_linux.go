package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is the kernel's struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	n   uint32 // bytes moved, filled by the kernel
}

// controlBuffer takes the control messages of one message, aligned as the kernel wants them. Out: pktinfo (≤ 40),
// mark and segment size (24 each). In: pktinfo (≤ 40), mark, segment size and overflow counter (24 each), time (32).
type controlBuffer [20]uint64

func (c *controlBuffer) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(*c))
}

// transfer calls recvmmsg or sendmmsg on msgs and returns how many were moved.
func transfer(trap uintptr, fd uintptr, msgs []message) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// appendControl writes one control message into b at offset at and returns the next offset and where its data is.
func appendControl(b []byte, at int, level, kind int32, size int) (next int, data []byte) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return at + unix.CmsgSpace(size), b[at+unix.CmsgLen(0) : at+unix.CmsgLen(size)]
}

// arrival is what the control messages of a received message tell.
type arrival struct {
	local    netip.Addr
	ifIndex  uint32
	segment  int // size of the datagrams in a train; 0 when it is one datagram
	overflow uint32
	dropped  bool  // overflow is valid
	ahead    bool  // marked
	at       int64 // when the host received it, Unix time in nanoseconds; 0 unknown
}

// parseControl reads what the kernel wrote; the lengths are its own and only checked against running over.
func parseControl(b []byte) (a arrival) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		length := int(h.Len)
		if length < unix.SizeofCmsghdr || length > len(b) {
			return a
		}
		a.add(h.Level, h.Type, b[unix.CmsgLen(0):length])
		b = b[min(unix.CmsgSpace(length-unix.CmsgLen(0)), len(b)):]
	}
	return a
}

func (a *arrival) add(level, kind int32, data []byte) {
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		a.ifIndex = binary.NativeEndian.Uint32(data)
		a.local = netip.AddrFrom4([4]byte(data[8:12])) // ipi_addr: the header's destination
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		a.local = netip.AddrFrom16([16]byte(data[:16])).Unmap()
		a.ifIndex = binary.NativeEndian.Uint32(data[16:])
	case level == unix.IPPROTO_IP && kind == unix.IP_TOS && len(data) >= 1: // a byte
		a.ahead = data[0]&aheadMask == aheadTOS
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_TCLASS && len(data) >= 4:
		a.ahead = binary.NativeEndian.Uint32(data)&aheadMask == aheadTOS
	case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
		a.segment = int(binary.NativeEndian.Uint32(data))
	case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL && len(data) >= 4:
		a.overflow, a.dropped = binary.NativeEndian.Uint32(data), true
	case level == unix.SOL_SOCKET && kind == unix.SCM_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})):
		a.at = (*unix.Timespec)(pointer(&data[0])).Nano()
	}
}

// putAddr writes to as the kernel's socket address into sa and returns its length.
func putAddr(sa *unix.RawSockaddrInet6, to netip.AddrPort, v6 bool, scope uint32) uint32 {
	if v6 {
		*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: bigEndian(to.Port()), Addr: to.Addr().As16(), Scope_id: scope}
		return unix.SizeofSockaddrInet6
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
	*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: bigEndian(to.Port()), Addr: to.Addr().Unmap().As4()}
	return unix.SizeofSockaddrInet4
}

func (s *Socket) addr(sa *unix.RawSockaddrInet6) netip.AddrPort {
	if !s.v6 {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), bigEndian(sa4.Port))
	}
	ip := netip.AddrFrom16(sa.Addr).Unmap()
	if sa.Scope_id != 0 && ip.Is6() {
		ip = ip.WithZone(s.zones.zone(sa.Scope_id))
	}
	return netip.AddrPortFrom(ip, bigEndian(sa.Port))
}

// bigEndian turns a port between the host's and the network's byte order.
func bigEndian(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
