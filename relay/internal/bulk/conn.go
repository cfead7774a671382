package bulk

import (
	"net"
	"sync"
	"time"
)

const (
	// Size of a buffer: four records of 16 KiB with what TLS adds to each. More would leave the second-level cache.
	size = 68 << 10
	// much is how many bytes of a read are so many that the next one may bring as many.
	much = size / 4
	// slowAfter is how long a write takes at least that goes into a queue which is full. Then records leave one by one,
	// so that what they take tells how fast the connection is, until quickWrites in a row were quicker.
	slowAfter   = 250 * time.Millisecond
	quickWrites = 64
)

// Conn is a connection that much passes at a time. Make one with New.
type Conn struct {
	net.Conn

	in    *[]byte // what was read ahead; nil: nothing
	r, w  int     // of it: taken so far, read
	busy  bool    // the last read brought much
	ahead bool    // nothing is read but what is in in

	mu     sync.Mutex
	corked bool    // guarded by mu
	out    *[]byte // what is held back; nil: nothing; guarded by mu
	slow   int     // quick writes until it is fast again; guarded by mu
}

var buffers = sync.Pool{New: func() any {
	b := make([]byte, size)
	return &b
}}

// New wraps a connection, which nobody else may read or write from then on.
func New(conn net.Conn) *Conn { return &Conn{Conn: conn} }

// Of finds the Conn under a connection, by the method NetConn of what lies on it. It is nil where there is none, and
// where messages lie between (with a method InMessages), which do not bear a read that fails on the way.
func Of(conn net.Conn) *Conn {
	for range 8 {
		switch c := conn.(type) {
		case *Conn:
			return c
		case interface{ InMessages() }:
			return nil
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
	return nil
}

// NetConn is the connection under it.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// nothing is the error of a read ahead that finds nothing. To TLS it is one that passes.
type nothing struct{}

func (nothing) Error() string   { return "nothing was read ahead" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// Ahead calls read, which reads from what lies on the Conn, and has it get only what has been read already: it does not
// wait. It reports whether there was anything to try it with. Only for the goroutine that reads; of a nil Conn too.
func (c *Conn) Ahead(read func()) bool {
	if c == nil || c.in == nil {
		return false
	}
	c.ahead = true
	read()
	c.ahead = false
	return true
}

// Read reads what is there.
func (c *Conn) Read(p []byte) (int, error) {
	switch {
	case c.in != nil:
		return c.take(p), nil
	case c.ahead:
		return 0, nothing{}
	case !c.busy:
		n, err := c.Conn.Read(p)
		c.busy = n == len(p) && n > 0
		return n, err
	}
	buf := buffers.Get().(*[]byte)
	n, err := c.Conn.Read(*buf)
	c.busy = n >= much
	if n <= 0 || err != nil {
		n = copy(p, (*buf)[:max(n, 0)])
		buffers.Put(buf)
		return n, err
	}
	c.in, c.r, c.w = buf, 0, n
	return c.take(p), nil
}

// take hands over what was read ahead.
func (c *Conn) take(p []byte) int {
	n := copy(p, (*c.in)[c.r:c.w])
	if c.r += n; c.r == c.w {
		buffers.Put(c.in)
		c.in = nil
	}
	return n
}

// Cork holds back what is written from now on, until Uncork or there is much of it. Of a nil Conn it does nothing.
func (c *Conn) Cork() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = c.slow == 0
}

// Uncork writes what was held back. After an error the connection is of no use.
func (c *Conn) Uncork() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flush()
}

// Write writes at once, or holds p back while corked. Errors of what is held back come later.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.write(p)
	}
	if c.out != nil && len(*c.out)+len(p) > size {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > size {
		return c.write(p)
	}
	if c.out == nil {
		c.out = buffers.Get().(*[]byte)
		*c.out = (*c.out)[:0]
	}
	*c.out = append(*c.out, p...)
	return len(p), nil
}

func (c *Conn) flush() error {
	if c.out == nil {
		return nil
	}
	_, err := c.write(*c.out)
	*c.out = (*c.out)[:size]
	buffers.Put(c.out)
	c.out = nil
	return err
}

// write writes, and notes how long that takes.
func (c *Conn) write(p []byte) (int, error) {
	began := time.Now()
	n, err := c.Conn.Write(p)
	switch took := time.Since(began); {
	case took >= slowAfter:
		c.slow = quickWrites
	case c.slow > 0:
		c.slow--
	}
	return n, err
}
