package proxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// listener accepts a bounded number of connections at a time and can close them all. Safe for concurrent use.
type listener struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once

	mu     sync.Mutex
	conns  map[*conn]struct{}
	ending bool // new connections are closed at once
}

func newListener(l net.Listener, limit int) *listener {
	return &listener{
		Listener: l, slots: make(chan struct{}, limit), done: make(chan struct{}), conns: map[*conn]struct{}{},
	}
}

// Accept waits for a free slot, then for a connection, whose Close frees the slot.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	inner, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	c := &conn{Conn: inner, listener: l}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	ending := l.ending
	l.mu.Unlock()
	if ending {
		c.Close()
	}
	return c, nil
}

// Close ends Accept. Connections stay.
func (l *listener) Close() (err error) {
	l.once.Do(func() {
		close(l.done)
		err = l.Listener.Close()
	})
	return err
}

// end closes the listener and every connection.
func (l *listener) end() {
	l.Close()
	l.mu.Lock()
	l.ending = true
	all := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

// conn is an accepted connection.
type conn struct {
	net.Conn
	listener *listener
	once     sync.Once
	hijacked bool // owned by the request that it serves
}

// Close frees the connection's slot.
func (c *conn) Close() (err error) {
	c.once.Do(func() {
		err = c.Conn.Close()
		c.listener.mu.Lock()
		delete(c.listener.conns, c)
		c.listener.mu.Unlock()
		<-c.listener.slots
	})
	return err
}

// CloseWrite passes the half-close on; without one to pass on to it is an error.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(halfCloser); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// serve accepts connections and handles each in a goroutine until ctx is done, when it closes them all and returns
// nil, or until the listener fails. It returns after every handle did.
func serve(ctx context.Context, inner net.Listener, handle func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	l := newListener(inner, maxConns)
	stop := context.AfterFunc(ctx, l.end)
	var wg sync.WaitGroup
	defer func() {
		stop()
		cancel()
		l.end()
		wg.Wait()
	}()
	for pause := time.Duration(0); ; {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			wg.Go(func() {
				defer c.Close()
				handle(ctx, c)
			})
		case ctx.Err() != nil:
			return nil
		case !temporary(err):
			return err
		default: // out of descriptors, most likely
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

// temporary errors of Accept are those that leave the listener open.
func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}
