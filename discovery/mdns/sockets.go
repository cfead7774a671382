package mdns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

var (
	group4 = net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}
	group6 = net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort}
)

// sockets are the system's: one for each family, which are members of the group on each interface. One that cannot be
// opened, or fails, is opened again when the interfaces are looked at.
type sockets struct {
	log     *slog.Logger
	deliver func(datagram)
	wg      sync.WaitGroup // readers
	v4, v6  *socket        // nil: not open
	failed  string         // what was logged about opening them
}

// socket is one of them. Owned by the loop, but for what its reader does.
type socket struct {
	conn   net.PacketConn
	group  net.UDPAddr
	opts   options
	read   func(b []byte) (n, iface int, dst net.IP, from net.Addr, err error)
	joined map[int]*net.Interface
	broken atomic.Bool // its reader has ended
}

// options is what ipv4.PacketConn and ipv6.PacketConn have in common.
type options interface {
	JoinGroup(ifi *net.Interface, group net.Addr) error
	LeaveGroup(ifi *net.Interface, group net.Addr) error
	SetMulticastInterface(ifi *net.Interface) error
}

func newSockets(log *slog.Logger, deliver func(datagram)) *sockets {
	return &sockets{log: log, deliver: deliver}
}

func (s *sockets) join(ifaces []Interface) {
	err4 := s.keep(&s.v4, open4)
	err6 := s.keep(&s.v6, open6)
	text := ""
	if err := errors.Join(err4, err6); err != nil {
		text = err.Error()
	}
	if text != "" && text != s.failed {
		s.log.Info("multicast DNS is not heard on all of the host's sockets", "err", text)
	}
	s.failed = text
	s.v4.join(s.log, ifaces, (*Interface).has4)
	s.v6.join(s.log, ifaces, (*Interface).has6)
}

// keep opens a socket that is not open and starts its reader.
func (s *sockets) keep(p **socket, open func() (*socket, error)) error {
	if *p != nil && (*p).broken.Load() {
		(*p).conn.Close()
		*p = nil
	}
	if *p != nil {
		return nil
	}
	sock, err := open()
	if err != nil {
		return err
	}
	*p = sock
	s.wg.Go(func() { sock.run(s.deliver) })
	return nil
}

func (s *sockets) send(p packet) error {
	if to := p.to; to.IsValid() {
		sock, addr := s.v4, net.UDPAddrFromAddrPort(to)
		if to.Addr().Is6() {
			sock, addr.Zone = s.v6, p.iface.zone()
		}
		if sock == nil {
			return net.ErrClosed
		}
		_, err := sock.conn.WriteTo(p.data, addr)
		return err
	}
	var err4, err6 error
	if p.iface.has4() {
		err4 = s.v4.multicast(p)
	}
	if p.iface.has6() {
		err6 = s.v6.multicast(p)
	}
	return errors.Join(err4, err6)
}

func (s *sockets) close() {
	for _, sock := range []*socket{s.v4, s.v6} {
		if sock != nil {
			sock.conn.Close()
		}
	}
	s.wg.Wait()
}

// join makes the socket a member of the group on the interfaces that fit, and on no others.
func (s *socket) join(log *slog.Logger, ifaces []Interface, fit func(*Interface) bool) {
	if s == nil {
		return
	}
	wanted := make(map[int]bool)
	for i := range ifaces {
		iface := &ifaces[i]
		if !fit(iface) {
			continue
		}
		wanted[iface.Index] = true
		if s.joined[iface.Index] != nil {
			continue
		}
		link := &net.Interface{Index: iface.Index, Name: iface.Name}
		if err := s.opts.JoinGroup(link, &s.group); err != nil {
			log.Debug("join multicast DNS", "link", iface.Name, "err", err)
			continue
		}
		s.joined[iface.Index] = link
	}
	for index, link := range s.joined {
		if !wanted[index] {
			s.opts.LeaveGroup(link, &s.group) // fails when the interface is gone, and with it the membership
			delete(s.joined, index)
		}
	}
}

// zone is the interface by its number: package net remembers for a while which name has which.
func (i *Interface) zone() string { return strconv.Itoa(i.Index) }

func (s *socket) multicast(p packet) error {
	if s == nil {
		return net.ErrClosed
	}
	if err := s.opts.SetMulticastInterface(&net.Interface{Index: p.iface.Index, Name: p.iface.Name}); err != nil {
		return err
	}
	to := s.group
	if to.IP.To4() == nil {
		to.Zone = p.iface.zone()
	}
	_, err := s.conn.WriteTo(p.data, &to)
	return err
}

// run reads until the socket is closed, or fails time after time.
func (s *socket) run(deliver func(datagram)) {
	const enough = 10
	buf := make([]byte, maxMessage+1) // one more shows what is too long
	for failures := 0; failures < enough; {
		n, iface, dst, from, err := s.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failures++
			continue
		}
		failures = 0
		udp, ok := from.(*net.UDPAddr)
		if !ok {
			continue
		}
		ap := udp.AddrPort()
		deliver(datagram{
			iface: iface,
			from:  netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()),
			group: dst.Equal(s.group.IP),
			data:  buf[:n],
		})
	}
	s.broken.Store(true)
}

func open4() (*socket, error) {
	lc := net.ListenConfig{Control: share}
	conn, err := lc.ListenPacket(context.Background(), "udp4", bind4)
	if err != nil {
		return nil, err
	}
	p := ipv4.NewPacketConn(conn)
	// Not everywhere; core does without.
	_ = p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true)
	_ = p.SetMulticastTTL(255)
	_ = p.SetTTL(255)
	_ = p.SetMulticastLoopback(true) // for others on this host
	read := func(b []byte) (n, iface int, dst net.IP, from net.Addr, err error) {
		n, cm, from, err := p.ReadFrom(b)
		if cm != nil {
			iface, dst = cm.IfIndex, cm.Dst
		}
		return n, iface, dst, from, err
	}
	return &socket{conn: conn, group: group4, opts: p, read: read, joined: make(map[int]*net.Interface)}, nil
}

func open6() (*socket, error) {
	lc := net.ListenConfig{Control: share}
	conn, err := lc.ListenPacket(context.Background(), "udp6", "[::]:5353")
	if err != nil {
		return nil, err
	}
	p := ipv6.NewPacketConn(conn)
	_ = p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true)
	_ = p.SetMulticastHopLimit(255)
	_ = p.SetHopLimit(255)
	_ = p.SetMulticastLoopback(true)
	read := func(b []byte) (n, iface int, dst net.IP, from net.Addr, err error) {
		n, cm, from, err := p.ReadFrom(b)
		if cm != nil {
			iface, dst = cm.IfIndex, cm.Dst
		}
		return n, iface, dst, from, err
	}
	return &socket{conn: conn, group: group6, opts: p, read: read, joined: make(map[int]*net.Interface)}, nil
}
