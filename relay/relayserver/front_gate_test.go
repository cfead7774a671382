package relayserver

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/relay"
)

// idleConn is a connection from an address that says nothing.
type idleConn struct {
	net.Conn
	from   netip.AddrPort
	mu     sync.Mutex
	closed int
}

func (c *idleConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

func (c *idleConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	return nil
}

func (c *idleConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed > 0
}

func connFrom(addr string) *idleConn {
	return &idleConn{from: netip.AddrPortFrom(netip.MustParseAddr(addr), 4711)}
}

func TestGateEndsWhatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		silent, stream := connFrom("192.0.2.1"), connFrom("192.0.2.1")
		late := g.enter(silent)
		if !g.enter(stream).pass() {
			t.Fatal("it did not pass")
		}
		time.Sleep(relay.HandshakeTime - time.Millisecond)
		if silent.isClosed() {
			t.Error("closed too early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if !silent.isClosed() {
			t.Error("not closed")
		}
		if late.pass() {
			t.Error("it passes although it was closed")
		}
		if stream.isClosed() {
			t.Error("a stream was closed")
		}
		if g.n != 0 || len(g.waiting) != 0 {
			t.Errorf("%d wait, in %d prefixes", g.n, len(g.waiting))
		}
	})
}

// Whoever fills the gate loses by it, not those who come from elsewhere.
func TestGateFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		honest := connFrom("198.51.100.1")
		passes := g.enter(honest)
		flood := make([]*idleConn, 3*maxWaiting)
		for i := range flood {
			flood[i] = connFrom("192.0.2.1")
			g.enter(flood[i])
		}
		if g.n != maxWaiting {
			t.Errorf("%d wait, want %d", g.n, maxWaiting)
		}
		if honest.isClosed() || !passes.pass() {
			t.Error("one from elsewhere was pushed out")
		}
		if !flood[0].isClosed() || flood[len(flood)-1].isClosed() {
			t.Error("it is not the oldest ones that go")
		}
		if want := uint64(2*maxWaiting + 1); g.pushed != want {
			t.Errorf("%d were pushed out, want %d", g.pushed, want)
		}
		g.closeAll()
		for i, c := range flood {
			if !c.isClosed() {
				t.Fatalf("connection %d is open", i)
			}
		}
		if g.n != 0 || len(g.waiting) != 0 {
			t.Errorf("%d wait, in %d prefixes", g.n, len(g.waiting))
		}
	})
}

// brokenListener fails some times before it gives a connection.
type brokenListener struct {
	net.Listener
	fails int
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if l.fails > 0 {
		l.fails--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return connFrom("192.0.2.1"), nil
}

func TestAcceptWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		done := make(chan struct{})
		a := &acceptor{Listener: &brokenListener{fails: 10}, gate: g, log: slog.New(slog.DiscardHandler), done: done}
		began := time.Now()
		conn, err := a.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		// 5 ms, 10, 20 … 640, then 1 s twice.
		if took, want := time.Since(began), 255*acceptWait+2*acceptMaxWait; took != want {
			t.Errorf("it took %v, want %v", took, want)
		}
		a.Listener = &brokenListener{fails: 1 << 20}
		time.AfterFunc(time.Minute, func() { close(done) })
		if _, err := a.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}
