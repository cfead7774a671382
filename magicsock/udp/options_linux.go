package udp

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// configure sets a fresh socket's options. Only what changes the meaning of ReadTrains and Write may fail it.
func (s *Socket) configure(fd int, mark uint32) error {
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) // a counter less without it
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	s.tellTOS(fd)
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("mark socket: %w", os.NewSyscallError("setsockopt", err))
		}
	}
	if err := s.setPktinfo(fd); err != nil {
		return fmt.Errorf("enable pktinfo: %w", os.NewSyscallError("setsockopt", err))
	}
	if err := s.setDiscover(fd, true); err != nil {
		return fmt.Errorf("enable path mtu probing: %w", os.NewSyscallError("setsockopt", err))
	}
	s.df.Store(true)
	_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	s.gso.Store(err == nil)
	s.gro = enableGRO(fd)
	return nil
}

// setBuffer asks beyond the system's limit first, which needs CAP_NET_ADMIN.
func setBuffer(fd, force, plain int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer) // clamped by the kernel, never refused
	}
}

func (s *Socket) setPktinfo(fd int) error {
	if s.v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// tellTOS has marks told with what arrives. Without it nothing goes ahead.
func (s *Socket) tellTOS(fd int) {
	if s.v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
}

func (s *Socket) setDiscover(fd int, df bool) error {
	if s.v6 {
		mode := unix.IPV6_PMTUDISC_DONT
		if df {
			mode = unix.IPV6_PMTUDISC_PROBE
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, mode)
	}
	mode := unix.IP_PMTUDISC_DONT
	if df {
		mode = unix.IP_PMTUDISC_PROBE
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode)
}

// enableGRO believes only a kernel that also tells the option back (5.12): earlier ones deliver some trains wrongly.
func enableGRO(fd int) bool {
	if unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) != nil {
		return false
	}
	if on, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO); err == nil && on == 1 {
		return true
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 0) // harmless if it stays: trains are split anyway
	return false
}

// SetDontFragment chooses between "don't fragment", with the kernel's cached path MTU ignored (the state after
// Listen), and letting the host and, with IPv4, routers fragment.
func (s *Socket) SetDontFragment(on bool) error {
	var failed error
	err := s.raw.Control(func(fd uintptr) { failed = s.setDiscover(int(fd), on) })
	if err != nil {
		return plainError(err)
	}
	if failed != nil {
		return fmt.Errorf("set don't fragment: %w", os.NewSyscallError("setsockopt", failed))
	}
	s.df.Store(on)
	return nil
}

// SetMark changes the firewall mark of what is sent; 0 is none. Needs CAP_NET_ADMIN.
func (s *Socket) SetMark(mark uint32) error {
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	})
	if err != nil {
		return plainError(err)
	}
	if failed != nil {
		return fmt.Errorf("mark socket: %w", os.NewSyscallError("setsockopt", failed))
	}
	return nil
}
