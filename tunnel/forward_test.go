package tunnel

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// echoTCP is a server on this host that answers with what it got once the client is done sending.
func echoTCP(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, _ := io.ReadAll(c)
				_, _ = c.Write(all)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func echoUDP(t *testing.T) netip.AddrPort {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo(buf[:n], from)
		}
	}()
	return p.LocalAddr().(*net.UDPAddr).AddrPort()
}

// unusedPort is a port of this host that refuses.
func unusedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestForwardInbound(t *testing.T) {
	a, b, _ := pair(t)
	tcp, udp, refused := echoTCP(t), echoUDP(t), unusedPort(t)
	b.ForwardInbound(func(src, dst netip.AddrPort) (netip.AddrPort, bool) {
		if src.Addr() != a.ip4 && src.Addr() != a.ip6 {
			t.Errorf("source %s", src)
		}
		switch dst.Port() {
		case 80:
			return tcp, true
		case 53:
			return udp, true
		case 81:
			return refused, true
		}
		return netip.AddrPort{}, false
	})
	for _, ip := range []netip.Addr{b.ip4, b.ip6} {
		c, err := a.Dial(t.Context(), "tcp", netip.AddrPortFrom(ip, 80))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat("meshnet", 50_000)
		go func() {
			_, _ = io.WriteString(c, want)
			_ = c.(halfCloser).CloseWrite()
		}()
		if got, err := io.ReadAll(c); err != nil || string(got) != want {
			t.Errorf("echo of %d bytes, %v", len(got), err)
		}
		_ = c.Close()
		for _, port := range []uint16{81, 82} {
			start := time.Now()
			if c, err := a.Dial(t.Context(), "tcp", netip.AddrPortFrom(ip, port)); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("port %d: %v, %v", port, c, err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("refused after %v", took)
			}
		}
		u, err := a.Dial(t.Context(), "udp", netip.AddrPortFrom(ip, 53))
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		_ = u.SetDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 2000)
		for _, s := range []string{"one", "two", "three"} {
			_, _ = io.WriteString(u, s)
			if n, err := u.Read(buf); err != nil || string(buf[:n]) != s {
				t.Errorf("echo %q, %v", buf[:n], err)
			}
		}
	}
	if got := b.Counters()["forward_refused"]; got != 4 {
		t.Errorf("%d refused", got)
	}
	// Control addresses are not forwarded, and without a func nothing is.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.DialControl(ctx, netip.AddrPortFrom(b.ctl, 80)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("forwarded from a control address: %v", err)
	}
	b.ForwardInbound(nil)
	if _, err := a.Dial(ctx, "tcp", netip.AddrPortFrom(b.ip4, 80)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("forwarded without a func: %v", err)
	}
}

// TestForwardEndsWithTunnel: open flows do not keep Run.
func TestForwardEndsWithTunnel(t *testing.T) {
	a, b, _ := pair(t)
	tcp, udp := echoTCP(t), echoUDP(t)
	b.ForwardInbound(func(_, dst netip.AddrPort) (netip.AddrPort, bool) {
		if dst.Port() == 53 {
			return udp, true
		}
		return tcp, true
	})
	c, err := a.Dial(t.Context(), "tcp", netip.AddrPortFrom(b.ip4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u, err := a.Dial(t.Context(), "udp", netip.AddrPortFrom(b.ip4, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_, _ = io.WriteString(u, "x")
	_ = u.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := u.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	b.stop() // fails the test when it hangs
}
