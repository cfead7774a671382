package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

// ask does the handshake by hand and returns the reply.
func ask(t *testing.T, c *net.TCPConn, request message) message {
	t.Helper()
	c.Write([]byte{5, 2, 1, 0}) // GSSAPI, or none
	var chosen [2]byte
	if _, err := io.ReadFull(c, chosen[:]); err != nil || chosen != [2]byte{5, 0} {
		t.Fatalf("method %v, err %v", chosen, err)
	}
	c.Write(request.append(nil))
	m, err := readMessage(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func named(host string, port uint16) message {
	return message{code: commandConnect, kind: kindName, addr: []byte(host), port: port}
}

func numeric(ap string) message {
	a := netip.MustParseAddrPort(ap)
	m := message{code: commandConnect, kind: kindIPv4, addr: a.Addr().AsSlice(), port: a.Port()}
	if a.Addr().Is6() {
		m.kind = kindIPv6
	}
	return m
}

func TestSOCKSConnects(t *testing.T) {
	target := answering(t, reverse)
	n := &network{names: map[string]string{"alice:80": target, "[fd00::1]:443": target}}
	proxy := start(t, NewSOCKS5(Config{Dial: n.dial}).Serve)
	for _, request := range []message{named("alice", 80), numeric(target), numeric("[fd00::1]:443")} {
		c := dialTCP(t, proxy)
		m := ask(t, c, request)
		if m.code != replyDone || m.kind != kindIPv4 || net.IP(m.addr).String() != "127.0.0.1" || m.port == 0 {
			t.Fatalf("%s: reply %+v", request.hostport(), m)
		}
		halfClosed(t, c, "a"+strings.Repeat("payload", 50000)+"z")
	}
}

func TestSOCKSRefusals(t *testing.T) {
	gone := listen(t)
	closed := gone.Addr().String()
	gone.Close()
	n := &network{errs: map[string]error{
		"nobody:1": ErrNotMember, "secret:1": ErrDenied, "silent:1": context.DeadlineExceeded, "far:1": ErrUnreachable,
		"mesh:1": ErrRefused, "odd:1": errors.New("odd"), "net:1": &net.OpError{Op: "dial", Err: errnoNetUnreachable},
		"host:1": &net.OpError{Op: "dial", Err: errnoHostUnreachable}, "dns:1": &net.DNSError{IsNotFound: true},
	}}
	proxy := start(t, NewSOCKS5(Config{Dial: n.dial}).Serve)
	udp, bind := named("alice", 1), named("alice", 1)
	udp.code, bind.code = 3, 2
	for name, c := range map[string]struct {
		request message
		want    byte
	}{
		"not a member":  {named("nobody", 1), replyHostUnreachable},
		"denied":        {named("secret", 1), replyDenied},
		"timeout":       {named("silent", 1), replyHostUnreachable},
		"no path":       {named("far", 1), replyHostUnreachable},
		"refused there": {named("mesh", 1), replyRefused},
		"refused":       {numeric(closed), replyRefused},
		"network":       {named("net", 1), replyNetUnreachable},
		"host":          {named("host", 1), replyHostUnreachable},
		"unresolved":    {named("dns", 1), replyHostUnreachable},
		"anything else": {named("odd", 1), replyFailed},
		"udp associate": {udp, replyBadCommand},
		"bind":          {bind, replyBadCommand},
		"control bytes": {named("a\nb", 1), replyFailed},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialTCP(t, proxy)
			if got := ask(t, conn, c.request); got.code != c.want {
				t.Errorf("reply %d, want %d", got.code, c.want)
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("still open")
			}
		})
	}
}

func TestSOCKSHandshakeErrors(t *testing.T) {
	proxy := start(t, NewSOCKS5(Config{}).Serve)
	for name, c := range map[string]struct{ send, want string }{
		"version 4":           {"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", ""},
		"http":                {"GET / HTTP/1.1\r\n\r\n", ""},
		"only with password":  {"\x05\x01\x02", "\x05\xff"},
		"no method":           {"\x05\x00", "\x05\xff"},
		"unknown address":     {"\x05\x01\x00\x05\x01\x00\x09", "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"},
		"wrong version later": {"\x05\x01\x00\x04\x01\x00\x01", "\x05\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialTCP(t, proxy)
			io.WriteString(conn, c.send)
			got, _ := io.ReadAll(conn) // ends with a reset when the proxy left something unread
			if string(got) != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSOCKSWithAClientOfOthers(t *testing.T) {
	web := answering(t, func(c *net.TCPConn) {
		http.Serve(&oneConn{conn: c}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello from %s", r.Host)
		}))
	})
	n := &network{names: map[string]string{"alice.mesh.internal:80": web}}
	proxy := start(t, NewSOCKS5(Config{Dial: n.dial}).Serve)
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: proxy})}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	for range 3 {
		if got := fetch(t, &client, "http://alice.mesh.internal/"); got != "200 hello from alice.mesh.internal" {
			t.Errorf("got %q", got)
		}
	}
	if len(n.dialed) != 1 {
		t.Errorf("%d dials, want 1", len(n.dialed))
	}
}

// Clients in every stage go when the proxy does.
func TestSOCKSEndsWithItsContext(t *testing.T) {
	target := answering(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	n := &network{}
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	slow := make(chan struct{}, 1)
	dial := func(ctx context.Context, kind, hostport string) (net.Conn, error) {
		if strings.HasPrefix(hostport, "slow") {
			slow <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return n.dial(ctx, kind, hostport)
	}
	go func() { done <- NewSOCKS5(Config{Dial: dial}).Serve(ctx, l) }()
	silent, open, dialing := dialTCP(t, l.Addr().String()), dialTCP(t, l.Addr().String()), dialTCP(t, l.Addr().String())
	if m := ask(t, open, numeric(target)); m.code != replyDone {
		t.Fatalf("reply %+v", m)
	}
	dialing.Write(append([]byte{5, 1, 0}, named("slow", 1).append(nil)...))
	<-slow
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
	for _, c := range []*net.TCPConn{silent, open} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(named("alice", 80).append(nil))
	f.Add(numeric("10.0.0.1:80").append(nil))
	f.Add(numeric("[fd00::1]:443").append([]byte{}))
	f.Add([]byte{5, 1, 0, 3, 0, 0, 80})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		m, err := readMessage(r)
		if err != nil {
			return
		}
		read := b[:len(b)-r.Len()]
		if got := m.append(nil); !bytes.Equal(got, read) {
			t.Errorf("parsed %x, encodes as %x", read, got)
		}
		if _, _, err := net.SplitHostPort(m.hostport()); err != nil && !bytes.ContainsAny(m.addr, "[]") {
			t.Errorf("host and port %q: %v", m.hostport(), err)
		}
	})
}

func FuzzMethods(f *testing.F) {
	f.Add([]byte{5, 2, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		none, err := readMethods(r)
		if err == nil && none != bytes.Contains(b[2:len(b)-r.Len()], []byte{0}) {
			t.Errorf("%x: none = %v", b, none)
		}
	})
}
