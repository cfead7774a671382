package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// ListenControl accepts control streams on the own control address.
func (t *Tunnel) ListenControl(port uint16) (net.Listener, error) {
	return t.listenStack(netip.AddrPortFrom(t.cfg.Control, port))
}

// Listen accepts TCP connections on an own identity or service address. The zero address means both identity addresses
// (those known now), on one port. Service addresses are always the netstack's; identity ones are the OS's where there
// is a TUN.
func (t *Tunnel) Listen(network string, addr netip.AddrPort) (net.Listener, error) {
	if kind, err := transport(network); err != nil || kind != "tcp" {
		return nil, fmt.Errorf("tunnel: listen: %w", net.UnknownNetworkError(network))
	}
	if addr.Addr().IsValid() {
		return t.listenOne(addr)
	}
	self := t.tap.self.Load()
	var all []net.Listener
	port := addr.Port()
	for _, ip := range []netip.Addr{self.ip6, self.ip4} {
		if !ip.IsValid() {
			continue
		}
		l, err := t.listenOne(netip.AddrPortFrom(ip, port))
		if err != nil {
			for _, open := range all {
				_ = open.Close()
			}
			return nil, err
		}
		all = append(all, l)
		port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	switch len(all) {
	case 0:
		return nil, fmt.Errorf("tunnel: listen: %w", ErrNoAddress)
	case 1:
		return all[0], nil
	}
	return newMergedListener(all), nil
}

// onStack tells who serves an own address, or why it is none.
func (t *Tunnel) onStack(a netip.Addr) (bool, error) {
	self := t.tap.self.Load()
	switch {
	case self.isControl(a):
		return false, ErrControlAddress
	case a == self.service6, a.IsValid() && a == self.service4:
		return true, nil
	case self.isIdentity(a):
		return self.userspace, nil
	}
	return false, errors.New("not an own address")
}

func (t *Tunnel) listenOne(addr netip.AddrPort) (net.Listener, error) {
	stack, err := t.onStack(addr.Addr())
	if err != nil {
		return nil, fmt.Errorf("tunnel: listen %s: %w", addr, err)
	}
	if stack {
		return t.listenStack(addr)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	return l, nil
}

func (t *Tunnel) listenStack(addr netip.AddrPort) (net.Listener, error) {
	l, err := gonet.ListenTCP(t.stack.Stack, fullAddress(addr), protocolOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("tunnel: listen %s: %w", addr, err)
	}
	s := &stackListener{TCPListener: l, addr: l.Addr(), all: &t.listeners}
	if !t.listeners.add(s) {
		_ = s.Close()
		return nil, ErrClosed
	}
	return s, nil
}

// ListenPacket receives UDP on an own identity or service address, like Listen. The address has to be named: one
// socket has one family here.
func (t *Tunnel) ListenPacket(network string, addr netip.AddrPort) (net.PacketConn, error) {
	if kind, err := transport(network); err != nil || kind != "udp" {
		return nil, fmt.Errorf("tunnel: listen: %w", net.UnknownNetworkError(network))
	}
	stack, err := t.onStack(addr.Addr())
	if err != nil {
		return nil, fmt.Errorf("tunnel: listen %s: %w", addr, err)
	}
	if !stack {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			return nil, fmt.Errorf("tunnel: %w", err)
		}
		return c, nil
	}
	local := fullAddress(addr)
	c, err := gonet.DialUDP(t.stack.Stack, &local, nil, protocolOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("tunnel: listen %s: %w", addr, err)
	}
	p := &stackPacketConn{UDPConn: c, all: &t.listeners, closed: make(chan struct{})}
	if !t.listeners.add(p) {
		_ = p.Close()
		return nil, ErrClosed
	}
	return p, nil
}

// stackListener is a netstack listener that fails with net.ErrClosed once closed, as servers expect.
type stackListener struct {
	*gonet.TCPListener
	addr net.Addr // the netstack forgets it on close
	all  *closers
	once sync.Once
}

// Accept implements net.Listener.
func (l *stackListener) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil {
		// A netstack listener fails for no other reason than its end.
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
	return c, nil
}

// Addr implements net.Listener.
func (l *stackListener) Addr() net.Addr { return l.addr }

// Close implements net.Listener.
func (l *stackListener) Close() error {
	l.once.Do(func() {
		l.all.remove(l)
		l.Shutdown() // wakes Accept
		_ = l.TCPListener.Close()
	})
	return nil
}

// stackPacketConn is a netstack UDP socket that fails with net.ErrClosed once closed.
type stackPacketConn struct {
	*gonet.UDPConn
	all    *closers
	once   sync.Once
	closed chan struct{}
}

// ReadFrom implements net.PacketConn.
func (c *stackPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.UDPConn.ReadFrom(b)
	if err != nil {
		select {
		case <-c.closed:
			err = &net.OpError{Op: "read", Net: "udp", Err: net.ErrClosed}
		default:
		}
	}
	return n, from, err
}

// Close implements net.PacketConn.
func (c *stackPacketConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.all.remove(c)
		_ = c.UDPConn.Close()
	})
	return nil
}

// mergedListener accepts from several listeners at once.
type mergedListener struct {
	all      []net.Listener
	accepted chan accepted
	closed   chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

func newMergedListener(all []net.Listener) *mergedListener {
	m := &mergedListener{all: all, accepted: make(chan accepted), closed: make(chan struct{})}
	for _, l := range all {
		m.wg.Go(func() { m.feed(l) })
	}
	return m
}

func (m *mergedListener) feed(l net.Listener) {
	for {
		c, err := l.Accept()
		select {
		case m.accepted <- accepted{c, err}:
		case <-m.closed:
			if c != nil {
				_ = c.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Accept implements net.Listener.
func (m *mergedListener) Accept() (net.Conn, error) {
	select {
	case a := <-m.accepted:
		return a.conn, a.err
	case <-m.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: m.Addr(), Err: net.ErrClosed}
	}
}

// Addr implements net.Listener: the first of the addresses.
func (m *mergedListener) Addr() net.Addr { return m.all[0].Addr() }

// Close implements net.Listener.
func (m *mergedListener) Close() error {
	m.once.Do(func() {
		close(m.closed)
		for _, l := range m.all {
			_ = l.Close()
		}
		m.wg.Wait()
	})
	return nil
}

// closers are what has to be closed when its owner ends. Guarded by mu. The zero value is ready.
type closers struct {
	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{}
}

// add returns false when it is too late; the caller closes c then.
func (c *closers) add(x io.Closer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.open == nil {
		c.open = make(map[io.Closer]struct{})
	}
	c.open[x] = struct{}{}
	return true
}

func (c *closers) remove(x io.Closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, x)
}

// close closes all that is open. Those may call remove meanwhile.
func (c *closers) close() {
	c.mu.Lock()
	c.closed = true
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for x := range open {
		_ = x.Close()
	}
}
