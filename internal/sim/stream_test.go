package sim

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var (
	client = netip.AddrPortFrom(addrA, 0)
	server = netip.AddrPortFrom(addrB, 443)
)

// joined is a connection from A to B.
func joined(t *testing.T, s *Streams) (near, far net.Conn) {
	t.Helper()
	ln, err := s.Listen(server)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err = s.Dial(t.Context(), client, server)
	if err != nil {
		t.Fatal(err)
	}
	far, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestStreamBothWays(t *testing.T) {
	near, far := joined(t, NewStreams())
	if near.LocalAddr().String() != far.RemoteAddr().String() || near.RemoteAddr().String() != server.String() {
		t.Errorf("addresses: %v → %v, %v → %v", near.LocalAddr(), near.RemoteAddr(), far.LocalAddr(), far.RemoteAddr())
	}
	if _, ok := near.LocalAddr().(*net.TCPAddr); !ok {
		t.Errorf("address is a %T", near.LocalAddr())
	}
	for _, c := range [][2]net.Conn{{near, far}, {far, near}} {
		// No reader is there yet: a write of a whole buffer does not wait for one.
		big := strings.Repeat("x", StreamBuffer)
		if n, err := io.WriteString(c[0], big); n != len(big) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
		if err := c[0].(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c[1]); string(got) != big || err != nil {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	near.Close()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := near.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

func TestStreamCloseDelivers(t *testing.T) {
	near, far := joined(t, NewStreams())
	io.WriteString(near, "last words")
	io.WriteString(far, "lost")
	near.Close()
	if got, err := io.ReadAll(far); string(got) != "last words" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write to a closed connection: %v", err)
	}
}

func TestStreamDelayAndDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStreams()
		s.SetDelay(30 * time.Millisecond)
		start := time.Now()
		took := func(what string, want time.Duration) {
			t.Helper()
			if got := time.Since(start); got != want {
				t.Errorf("%s took %v, want %v", what, got, want)
			}
			start = time.Now()
		}
		near, far := joined(t, s)
		took("dial", 60*time.Millisecond)
		io.WriteString(near, "hello")
		took("write", 0)
		buf := make([]byte, 10)
		if n, err := far.Read(buf); string(buf[:n]) != "hello" || err != nil {
			t.Errorf("read %q, %v", buf[:n], err)
		}
		took("read", 30*time.Millisecond)

		far.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := far.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want deadline exceeded", err)
		} else if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
		took("deadline", time.Second)
		near.SetDeadline(time.Now().Add(time.Second))
		if n, err := near.Write(make([]byte, StreamBuffer+1)); n != StreamBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %d, %v, want a full buffer and deadline exceeded", n, err)
		}
		took("full buffer", time.Second)
		far.SetDeadline(time.Time{})
		near.SetDeadline(time.Time{})
		near.Close()
		if n, err := io.Copy(io.Discard, far); n != StreamBuffer || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		took("end of stream", 30*time.Millisecond)
	})
}

func TestStreamCloseWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := joined(t, NewStreams())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := near.Write(make([]byte, 2*StreamBuffer)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write: %v", err)
			}
		})
		synctest.Wait()
		near.Close()
		wg.Wait()
		far.Close()
	})
}

func TestStreamBlackhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStreams()
		s.SetDelay(10 * time.Millisecond)
		near, far := joined(t, s)
		io.WriteString(near, "before")
		time.Sleep(10 * time.Millisecond)
		s.Cut(addrB, Blackhole)
		io.WriteString(near, " and after")
		far.SetReadDeadline(time.Now().Add(time.Minute))
		got, err := io.ReadAll(far)
		if string(got) != "before" || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("while cut: %q, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Dial(ctx, client, server); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("dial while cut: %v", err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			far.SetReadDeadline(time.Time{})
			if got, err := io.ReadAll(far); string(got) != " and after" || err != nil {
				t.Errorf("after healing: %q, %v", got, err)
			}
		})
		wg.Go(func() { // nobody listens any more, which is only found out after healing
			if _, err := s.Dial(t.Context(), client, server); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dial across healing: %v", err)
			}
		})
		synctest.Wait()
		s.Heal(addrB)
		near.Close()
		wg.Wait()
	})
}

func TestStreamReset(t *testing.T) {
	s := NewStreams()
	near, far := joined(t, s)
	io.WriteString(near, "lost")
	s.Cut(addrA, Reset)
	for _, c := range []net.Conn{near, far} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v", err)
		}
	}
	ln, err := s.Listen(server)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Dial(t.Context(), client, server); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial while cut: %v", err)
	}
	s.Heal(addrA)
	c, err := s.Dial(t.Context(), client, server)
	if err != nil {
		t.Fatalf("dial after healing: %v", err)
	}
	ln.Close() // before it was accepted
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read of what was never accepted: %v", err)
	}
}

func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStreams()
		if _, err := s.Dial(t.Context(), client, server); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial nobody: %v", err)
		}
		ln, err := s.Listen(netip.AddrPortFrom(addrB, 0))
		if err != nil {
			t.Fatal(err)
		}
		at := ln.Addr().(*net.TCPAddr).AddrPort()
		if _, err := s.Listen(at); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listen twice: %v", err)
		}
		var wg sync.WaitGroup
		for range backlog + 1 { // the last one waits for room, and learns that there will be none
			wg.Go(func() {
				if c, err := s.Dial(t.Context(), client, at); err == nil {
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("read: %v", err)
					}
					c.Close()
				} else if !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("dial: %v", err)
				}
			})
		}
		synctest.Wait()
		ln.Close()
		wg.Wait()
		if len(s.conns) != 0 {
			t.Errorf("%d connections are left", len(s.conns))
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
	})
}
