package sim

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// StreamBuffer is how much one direction of a connection holds before a write blocks.
const StreamBuffer = 1 << 20

// backlog is how many connections wait to be accepted before a dial does.
const backlog = 128

// CutMode is how an address is cut off.
type CutMode uint8

const (
	// Blackhole holds back all data without a word, as a dead link does: writes fill the buffer, dials hang. What was
	// held back arrives after Heal.
	Blackhole CutMode = iota + 1
	// Reset breaks all connections and refuses new ones.
	Reset
)

// Streams is a world of stream connections in memory. Waiting is on channels and timers of package time only, so that
// in a testing/synctest bubble it is durable. Everything in it, connections too, is guarded by mu.
type Streams struct {
	mu        sync.Mutex
	delay     time.Duration
	listeners map[netip.AddrPort]*listener
	conns     map[*conn]struct{} // the open ends
	cuts      map[netip.Addr]cut
	healed    chan struct{} // closed, and replaced, at every Heal
	nextPort  uint16
}

// cut is when and how an address was cut off.
type cut struct {
	mode  CutMode
	since time.Time
}

// NewStreams makes a world without listeners or delay.
func NewStreams() *Streams {
	return &Streams{
		listeners: make(map[netip.AddrPort]*listener), conns: make(map[*conn]struct{}),
		cuts: make(map[netip.Addr]cut), healed: make(chan struct{}), nextPort: firstFreePort,
	}
}

// SetDelay sets the one-way delay of data written, and of dials begun, from now on.
func (s *Streams) SetDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// Cut cuts an address off, from everything but itself.
func (s *Streams) Cut(addr netip.Addr, mode CutMode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cuts[addr] = cut{mode: mode, since: time.Now()}
	if mode != Reset {
		return
	}
	for c := range s.conns {
		if c.local.Addr() != c.remote.Addr() && (c.local.Addr() == addr || c.remote.Addr() == addr) {
			c.in.fail(syscall.ECONNRESET)
			c.out.fail(syscall.ECONNRESET)
			delete(s.conns, c)
		}
	}
}

// Heal ends the cut of an address.
func (s *Streams) Heal(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cuts, addr)
	close(s.healed)
	s.healed = make(chan struct{})
	for c := range s.conns {
		c.in.wake()
	}
}

// cutBetween is the cut that separates two addresses; the later one when each is cut off. Called with mu held.
func (s *Streams) cutBetween(a, b netip.Addr) cut {
	if a == b {
		return cut{}
	}
	ca, cb := s.cuts[a], s.cuts[b]
	switch {
	case ca.mode == Reset || cb.mode == 0:
		return ca
	case cb.mode == Reset || ca.mode == 0 || cb.since.Before(ca.since):
		return cb
	}
	return ca
}

// Listen takes connections to addr; port 0 takes a free one.
func (s *Streams) Listen(addr netip.AddrPort) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if addr.Port() == 0 {
		addr = s.freePort(addr.Addr())
	}
	if s.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: syscall.EADDRINUSE}
	}
	l := &listener{world: s, addr: addr, queue: make(chan *conn, backlog), closed: make(chan struct{})}
	s.listeners[addr] = l
	return l, nil
}

// Dial connects from one address to another; from's port may be 0. It takes the time of a round trip, and longer
// while the listener's backlog is full or one of the two is behind a Blackhole.
func (s *Streams) Dial(ctx context.Context, from, to netip.AddrPort) (net.Conn, error) {
	c, err := s.dial(ctx, from, to)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = os.ErrDeadlineExceeded
		}
		return nil, &net.OpError{
			Op: "dial", Net: "tcp", Source: net.TCPAddrFromAddrPort(from),
			Addr: net.TCPAddrFromAddrPort(to), Err: err,
		}
	}
	return c, nil
}

func (s *Streams) dial(ctx context.Context, from, to netip.AddrPort) (*conn, error) {
	if err := s.roundTrip(ctx, from.Addr(), to.Addr()); err != nil {
		return nil, err
	}
	near, far, l := s.connect(from, to)
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	// Closing the listener is asked for first and last, so that no connection is left behind in its queue.
	err := error(syscall.ECONNREFUSED)
	select {
	case l.queue <- far:
		if !l.isClosed() {
			return near, nil
		}
	case <-l.closed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	near.reset()
	far.reset()
	return nil, err
}

// roundTrip is the time that the first packets of a connection take; without end while they are swallowed.
func (s *Streams) roundTrip(ctx context.Context, from, to netip.Addr) error {
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	timer := time.NewTimer(2 * delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		s.mu.Lock()
		mode, healed := s.cutBetween(from, to).mode, s.healed
		s.mu.Unlock()
		switch mode {
		case 0:
			return ctx.Err()
		case Reset:
			return syscall.ECONNREFUSED
		}
		select {
		case <-healed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect makes both ends of a connection to a listener; nil when there is none.
func (s *Streams) connect(from, to netip.AddrPort) (near, far *conn, l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l = s.listeners[to]; l == nil {
		return nil, nil, nil
	}
	if from.Port() == 0 {
		from = s.freePort(from.Addr())
	}
	there, back := newHalf(), newHalf()
	near = &conn{world: s, local: from, remote: to, in: back, out: there}
	far = &conn{world: s, local: to, remote: from, in: there, out: back}
	s.conns[near], s.conns[far] = struct{}{}, struct{}{}
	return near, far, l
}

// freePort picks the next port; connections are told apart by identity, so only listeners count.
func (s *Streams) freePort(addr netip.Addr) netip.AddrPort {
	for {
		ap := netip.AddrPortFrom(addr, s.nextPort)
		if s.nextPort++; s.nextPort == 0 {
			s.nextPort = firstFreePort
		}
		if s.listeners[ap] == nil {
			return ap
		}
	}
}

// listener is a net.Listener of the world.
type listener struct {
	world  *Streams
	addr   netip.AddrPort
	queue  chan *conn
	once   sync.Once
	closed chan struct{}
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	if !l.isClosed() {
		select {
		case c := <-l.queue:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close refuses further connections and resets those that were not accepted.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.world.mu.Lock()
		defer l.world.mu.Unlock()
		delete(l.world.listeners, l.addr)
		for {
			select {
			case c := <-l.queue:
				c.reset()
			default:
				return
			}
		}
	})
	return nil
}

// Addr is a *net.TCPAddr.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

func (l *listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}
