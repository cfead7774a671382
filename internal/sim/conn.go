package sim

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// conn is one end of a connection. Its fields never change; what they lead to is guarded by world.mu.
type conn struct {
	world         *Streams
	local, remote netip.AddrPort
	in, out       *half
}

// half is one direction: the bytes that were written and not read yet.
type half struct {
	chunks  []chunk
	size    int
	ended   bool      // the writer has closed; an empty chunk marks where
	closed  error     // the reader has closed, or the connection broke: ends both reads and writes
	local   [2]bool   // which end has closed it itself, reader and writer: it gets net.ErrClosed
	readBy  time.Time // the reader's deadline
	writeBy time.Time // the writer's
	changed chan struct{}
}

const (
	reader = iota
	writer
)

// chunk is what one write brought. An empty one is the end.
type chunk struct {
	arrives time.Time
	data    []byte
}

func newHalf() *half { return &half{changed: make(chan struct{})} }

// wake has everybody who waits on the half look again. Called with mu held, as are the methods below.
func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// fail ends the half for both sides; what was not read is lost. The first reason stays.
func (h *half) fail(err error) {
	if h.closed == nil {
		h.closed = err
		h.chunks, h.size = nil, 0
	}
	h.wake()
}

func (h *half) push(arrives time.Time, data []byte) {
	h.chunks = append(h.chunks, chunk{arrives, data})
	h.size += len(data)
	h.wake()
}

// take moves arrived bytes to b.
func (h *half) take(b []byte) int {
	n := copy(b, h.chunks[0].data)
	h.chunks[0].data = h.chunks[0].data[n:]
	if len(h.chunks[0].data) == 0 {
		h.chunks = h.chunks[1:]
	}
	h.size -= n
	h.wake()
	return n
}

// Read returns what has arrived, waiting for at least a byte.
func (c *conn) Read(b []byte) (int, error) {
	for {
		n, wait, err := c.tryRead(b)
		if wait == nil {
			return n, c.wrap("read", err)
		}
		wait()
	}
}

// tryRead reads without waiting, or returns how to wait until trying again makes sense.
func (c *conn) tryRead(b []byte) (n int, wait func(), err error) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	now := time.Now()
	switch in := c.in; {
	case in.local[reader]:
		return 0, nil, net.ErrClosed
	case expired(in.readBy, now):
		return 0, nil, os.ErrDeadlineExceeded
	case in.closed != nil:
		return 0, nil, in.closed
	case len(b) == 0:
		return 0, nil, nil
	case len(in.chunks) == 0 || !c.arrived(in.chunks[0], now):
		return 0, c.waiter(in, in.readBy, now), nil
	case len(in.chunks[0].data) == 0:
		return 0, nil, io.EOF // the mark stays, for the next read
	default:
		return in.take(b), nil, nil
	}
}

// arrived reports whether a chunk has: its time has come, and it had before a blackhole opened.
func (c *conn) arrived(k chunk, now time.Time) bool {
	if k.arrives.After(now) {
		return false
	}
	hole := c.world.cutBetween(c.local.Addr(), c.remote.Addr())
	return hole.mode == 0 || !k.arrives.After(hole.since)
}

// waiter waits for a change of the half, the deadline, or the arrival of its first chunk.
func (c *conn) waiter(h *half, deadline, now time.Time) func() {
	changed := h.changed
	wake := deadline
	if len(h.chunks) > 0 && h.chunks[0].arrives.After(now) && (wake.IsZero() || h.chunks[0].arrives.Before(wake)) {
		wake = h.chunks[0].arrives
	}
	if wake.IsZero() {
		return func() { <-changed }
	}
	return func() {
		timer := time.NewTimer(wake.Sub(now))
		defer timer.Stop()
		select {
		case <-changed:
		case <-timer.C:
		}
	}
}

// Write copies b into the buffer, waiting only while it is full.
func (c *conn) Write(b []byte) (int, error) {
	done := 0
	for {
		n, wait, err := c.tryWrite(b[done:])
		done += n
		if wait == nil && (err != nil || done == len(b)) {
			return done, c.wrap("write", err)
		}
		if wait != nil {
			wait()
		}
	}
}

func (c *conn) tryWrite(b []byte) (n int, wait func(), err error) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	now := time.Now()
	switch out := c.out; {
	case out.local[writer]:
		return 0, nil, net.ErrClosed
	case expired(out.writeBy, now):
		return 0, nil, os.ErrDeadlineExceeded
	case out.closed != nil:
		return 0, nil, out.closed
	case out.ended:
		return 0, nil, syscall.EPIPE
	case len(b) == 0:
		return 0, nil, nil
	case out.size >= StreamBuffer:
		return 0, c.waiter(&half{changed: out.changed}, out.writeBy, now), nil
	default:
		n = min(len(b), StreamBuffer-out.size)
		out.push(now.Add(c.world.delay), append([]byte(nil), b[:n]...))
		return n, nil, nil
	}
}

// CloseWrite ends the direction to the other side, which reads io.EOF after the last byte.
func (c *conn) CloseWrite() error {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.out.local[writer] {
		return c.wrap("close", net.ErrClosed)
	}
	c.end()
	return nil
}

// Close ends both directions. What was written still arrives; what the other side writes from now on fails, and what
// it wrote before is lost.
func (c *conn) Close() error {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.out.local[writer] {
		return c.wrap("close", net.ErrClosed)
	}
	c.end()
	c.out.local[writer], c.in.local[reader] = true, true
	c.in.fail(syscall.ECONNRESET)
	c.out.wake()
	delete(c.world.conns, c)
	return nil
}

// end marks the end of what is written.
func (c *conn) end() {
	if !c.out.ended && c.out.closed == nil {
		c.out.ended = true
		c.out.push(time.Now().Add(c.world.delay), nil)
	}
}

// reset breaks the connection for both sides. Called with mu held.
func (c *conn) reset() {
	c.in.fail(syscall.ECONNRESET)
	c.out.fail(syscall.ECONNRESET)
	delete(c.world.conns, c)
}

// LocalAddr is a *net.TCPAddr.
func (c *conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr is a *net.TCPAddr.
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline sets both deadlines; the zero time means none.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of reads, also of one that is waiting.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.in.local[reader] {
		return c.wrap("set", net.ErrClosed)
	}
	c.in.readBy = t
	c.in.wake()
	return nil
}

// SetWriteDeadline sets the deadline of writes, also of one that is waiting.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.out.local[writer] {
		return c.wrap("set", net.ErrClosed)
	}
	c.out.writeBy = t
	c.out.wake()
	return nil
}

func expired(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// wrap gives an error the form that package net gives it; io.EOF stays what it is.
func (c *conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
