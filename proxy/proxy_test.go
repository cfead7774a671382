package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is what the tests' proxies dial: names that lead to a listener of this host or to an error.
type network struct {
	mu     sync.Mutex
	names  map[string]string
	errs   map[string]error
	dialed []string
}

func (n *network) dial(ctx context.Context, kind, hostport string) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, hostport)
	addr, err := n.names[hostport], n.errs[hostport]
	n.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", hostport, err)
	}
	if addr == "" {
		addr = hostport
	}
	var d net.Dialer
	return d.DialContext(ctx, kind, addr)
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// start serves until the test ends, and checks that serving ends cleanly.
func start(t testing.TB, serve func(context.Context, net.Listener) error) string {
	t.Helper()
	l := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("serve does not end")
		}
	})
	return l.Addr().String()
}

// answering listens and handles each connection until the test ends.
func answering(t testing.TB, handle func(*net.TCPConn)) string {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// reverse reads everything, and only then answers, backwards: it works through a proxy that honours half-close.
func reverse(c *net.TCPConn) {
	b, err := io.ReadAll(c)
	if err != nil {
		return
	}
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	c.Write(b)
}

func dialTCP(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// halfClosed sends text, says that this is all, and wants it back reversed.
func halfClosed(t testing.TB, c *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || len(got) != len(text) || got[0] != text[len(text)-1] || got[len(got)-1] != text[0] {
		t.Fatalf("got %d bytes back, err %v, want %d", len(got), err, len(text))
	}
}

func TestPipeCarriesBothHalves(t *testing.T) {
	target := answering(t, reverse)
	front := answering(t, func(c *net.TCPConn) {
		up, err := net.Dial("tcp", target)
		if err != nil {
			t.Error(err)
			return
		}
		Pipe(c, up)
	})
	halfClosed(t, dialTCP(t, front), "a"+strings.Repeat("x", 1<<20)+"b")
}

// net.Pipe has no CloseWrite: the end of one direction is the end.
func TestPipeWithoutHalfClose(t *testing.T) {
	client, a := net.Pipe()
	b, target := net.Pipe()
	done := make(chan struct{})
	go func() {
		Pipe(a, b)
		close(done)
	}()
	go client.Write([]byte("hello"))
	buf := make([]byte, 5)
	if _, err := io.ReadFull(target, buf); err != nil || !bytes.Equal(buf, []byte("hello")) {
		t.Fatalf("%q %v", buf, err)
	}
	client.Close()
	<-done
	if _, err := target.Read(buf); err == nil {
		t.Error("the other side is open")
	}
}

func TestListenerIsBounded(t *testing.T) {
	inner := listen(t)
	l := newListener(inner, 2)
	defer l.end()
	accepted := make(chan net.Conn, 3)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		dialTCP(t, inner.Addr().String())
	}
	first := <-accepted
	<-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // frees one slot only
	third := <-accepted
	l.end()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("connection is open: %v", err)
	}
}

func TestServeReturnsListenerErrors(t *testing.T) {
	for name, serve := range map[string]func(context.Context, net.Listener) error{
		"socks": NewSOCKS5(Config{}).Serve, "http": NewHTTP(Config{}).Serve,
	} {
		l := listen(t)
		l.Close()
		if err := serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
