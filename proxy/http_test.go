package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// oneConn is a listener of one connection that is there already.
type oneConn struct {
	conn net.Conn
	once sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.once.Do(func() {
		l.done = make(chan struct{})
		c = &closeNotice{Conn: l.conn, closed: sync.OnceFunc(func() { close(l.done) })}
	})
	if c == nil {
		<-l.done
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

type closeNotice struct {
	net.Conn
	closed func()
}

func (c *closeNotice) Close() error {
	c.closed()
	return c.Conn.Close()
}

func fetch(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", string(b))
}

// through is a client of the proxy.
func through(t *testing.T, proxy string, server *httptest.Server) *http.Client {
	t.Helper()
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})}
	if server != nil && server.TLS != nil {
		transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func TestHTTPForwards(t *testing.T) {
	var seen http.Header
	var query, host string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen, query, host = r.Header.Clone(), r.URL.RawQuery, r.Host
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("X-End", "yes")
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, b)
	}))
	defer web.Close()
	n := &network{names: map[string]string{"alice:80": web.Listener.Addr().String()}}
	client := through(t, start(t, NewHTTP(Config{Dial: n.dial}).Serve), nil)
	for range 3 {
		req, _ := http.NewRequest("POST", "http://alice/path?a=1;b=2&c", strings.NewReader("body"))
		req.Header.Set("Connection", "X-Hop")
		req.Header.Set("X-Hop", "1")
		req.Header.Set("X-End", "1")
		req.Header.Set("Proxy-Authorization", "secret")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != "POST body" || resp.Header.Get("Keep-Alive") != "" || resp.Header.Get("X-End") != "yes" {
			t.Errorf("got %q %v", b, resp.Header)
		}
		if query != "a=1;b=2&c" || host != "alice" || seen.Get("X-End") != "1" {
			t.Errorf("query %q host %q headers %v", query, host, seen)
		}
		for _, hop := range []string{"X-Hop", "Proxy-Authorization", "Proxy-Connection", "X-Forwarded-For"} {
			if seen.Get(hop) != "" {
				t.Errorf("%s went through", hop)
			}
		}
	}
	if len(n.dialed) != 1 {
		t.Errorf("%d dials, want 1: connections are kept", len(n.dialed))
	}
}

func TestHTTPConnect(t *testing.T) {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "sealed") }))
	defer web.Close()
	n := &network{names: map[string]string{"example.com:443": web.Listener.Addr().String()}}
	client := through(t, start(t, NewHTTP(Config{Dial: n.dial}).Serve), web)
	if got := fetch(t, client, "https://example.com/"); got != "200 sealed" {
		t.Errorf("got %q", got)
	}
}

// The client sends at once what belongs behind the answer, and closes its half.
func TestHTTPConnectHalfClose(t *testing.T) {
	target := answering(t, reverse)
	proxy := start(t, NewHTTP(Config{Dial: (&network{}).dial}).Serve)
	c := dialTCP(t, proxy)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\nearly ", target, target)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	io.WriteString(c, "late")
	c.CloseWrite()
	if got, err := io.ReadAll(r); err != nil || string(got) != "etal ylrae" {
		t.Errorf("got %q, err %v", got, err)
	}
}

func TestHTTPUpgrades(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.CopyN(c, c, 4)
	}))
	defer web.Close()
	c := dialTCP(t, start(t, NewHTTP(Config{Dial: (&network{}).dial}).Serve))
	fmt.Fprintf(c, "GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", web.URL)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", resp, err)
	}
	io.WriteString(c, "ping")
	got := make([]byte, 4)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "ping" {
		t.Errorf("got %q, err %v", got, err)
	}
}

func TestHTTPRefusals(t *testing.T) {
	n := &network{errs: map[string]error{
		"nobody:80": ErrNotMember, "secret:80": ErrDenied, "secret:443": ErrDenied, "silent:80": context.DeadlineExceeded,
		"odd:80": errors.New("odd"),
	}}
	proxy := start(t, NewHTTP(Config{Dial: n.dial}).Serve)
	for request, want := range map[string]int{
		"GET http://nobody/ HTTP/1.1\r\nHost: nobody\r\n\r\n":     502,
		"GET http://secret/ HTTP/1.1\r\nHost: secret\r\n\r\n":     403,
		"GET http://silent/ HTTP/1.1\r\nHost: silent\r\n\r\n":     504,
		"GET http://odd/ HTTP/1.1\r\nHost: odd\r\n\r\n":           502,
		"CONNECT secret:443 HTTP/1.1\r\nHost: secret:443\r\n\r\n": 403,
		"CONNECT secret HTTP/1.1\r\nHost: secret\r\n\r\n":         400,
		"CONNECT secret:0 HTTP/1.1\r\nHost: secret:0\r\n\r\n":     400,
		"CONNECT :443 HTTP/1.1\r\nHost: :443\r\n\r\n":             400,
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n":               400,
		"GET https://alice/ HTTP/1.1\r\nHost: alice\r\n\r\n":      400,
		"\x05\x01\x00\r\n\r\n":                                    400,
	} {
		c := dialTCP(t, proxy)
		io.WriteString(c, request)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%q: %v %v, want %d", request, resp, err, want)
		}
	}
}

// Clients in every stage go when the proxy does.
func TestHTTPEndsWithItsContext(t *testing.T) {
	target := answering(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	slow := make(chan struct{}, 2)
	dial := func(ctx context.Context, kind, hostport string) (net.Conn, error) {
		if strings.HasPrefix(hostport, "slow") {
			slow <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return (&network{}).dial(ctx, kind, hostport)
	}
	go func() { done <- NewHTTP(Config{Dial: dial}).Serve(ctx, l) }()
	silent, waiting, tunnel := dialTCP(t, l.Addr().String()), dialTCP(t, l.Addr().String()), dialTCP(t, l.Addr().String())
	dialing, connecting := dialTCP(t, l.Addr().String()), dialTCP(t, l.Addr().String())
	fmt.Fprint(dialing, "GET http://slow/ HTTP/1.1\r\nHost: x\r\n\r\n")
	fmt.Fprint(connecting, "CONNECT slow:1 HTTP/1.1\r\nHost: x\r\n\r\n")
	<-slow
	<-slow
	fmt.Fprintf(waiting, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target)
	fmt.Fprintf(tunnel, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
	if _, err := io.ReadFull(tunnel, make([]byte, 12)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
	for _, c := range []*net.TCPConn{silent, waiting, tunnel, dialing, connecting} {
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("still open")
		}
	}
}
