package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// authority signs certificates.
type authority struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	roots *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{roots: x509.NewCertPool()}
	c := a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour),
	})
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	a.roots.AddCert(a.cert)
	return a
}

// issue makes a certificate; the first one signs itself.
func (a *authority) issue(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-2 * time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// leaf makes a certificate for names and addresses that is good until a time.
func (a *authority) leaf(t *testing.T, until time.Time, names ...string) tls.Certificate {
	template := &x509.Certificate{NotAfter: until}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return a.issue(t, template)
}

// web serves HTTPS on loopback until the test ends, and returns its port.
func web(t *testing.T, cfg *tls.Config, handler http.Handler) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, tls.NewListener(ln, cfg), handler)
}

// plainWeb serves HTTP on loopback until the test ends, and returns its port.
func plainWeb(t *testing.T, handler http.Handler) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, ln, handler)
}

func serve(t *testing.T, ln net.Listener, handler http.Handler) uint16 {
	srv := &http.Server{
		Handler:      handler,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(ln) })
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort().Port()
}

// hello is what the test's relay says first: in the same segment as its answer to the upgrade.
const hello = "a relay's first words"

// upgrading greets whoever upgrades, tells the exporter, and echoes.
func upgrading(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != Path || r.Header.Get("Upgrade") != Protocol {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	exporter, _ := r.TLS.ExportKeyingMaterial(ExporterLabel, nil, ExporterLen)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n%s%s", Protocol, hello, exporter)
	io.Copy(conn, buf)
}

// webSocketOnly refuses the upgrade, as what does not know it does.
func webSocketOnly(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "no such thing", http.StatusBadGateway)
		return
	}
	exporter, _ := r.TLS.ExportKeyingMaterial(ExporterLabel, nil, ExporterLen)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Protocol}})
	if err != nil {
		return
	}
	conn := websocket.NetConn(r.Context(), ws, websocket.MessageBinary)
	defer conn.Close()
	io.WriteString(conn, hello)
	conn.Write(exporter)
	io.Copy(conn, conn)
}

// tryStream checks that bytes pass both ways, in order, and that both sides export the same.
func tryStream(t *testing.T, s Stream) {
	t.Helper()
	s.SetDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, len(hello)+ExporterLen)
	if _, err := io.ReadFull(s, got); err != nil || string(got[:len(hello)]) != hello {
		t.Fatalf("the relay's first words are %q, %v", got, err)
	}
	if exporter := got[len(hello):]; !bytes.Equal(s.Exporter, exporter) {
		t.Errorf("the exporter is %x, the server has %x", s.Exporter, exporter)
	}
	sent := make([]byte, 100_000)
	rand.Read(sent)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.Write(sent) })
	back := make([]byte, len(sent))
	if _, err := io.ReadFull(s, back); err != nil || !bytes.Equal(back, sent) {
		t.Fatalf("what was sent did not come back: %v", err)
	}
}

func TestDial(t *testing.T) {
	a := newAuthority(t)
	for name, handler := range map[string]http.HandlerFunc{"upgrade": upgrading, "websocket": webSocketOnly} {
		t.Run(name, func(t *testing.T) {
			cert := a.leaf(t, time.Now().Add(time.Hour), "localhost", "127.0.0.1")
			port := web(t, &tls.Config{Certificates: []tls.Certificate{cert}}, handler)
			pin := sha256.Sum256(cert.Certificate[0])
			for _, u := range []URL{
				{Host: "127.0.0.1", Port: port},
				{Host: "localhost", Port: port}, // ::1 refuses
				{Host: "127.0.0.1", Port: port, Pin: pin},
			} {
				s, err := Dial(t.Context(), u, DialConfig{Roots: a.roots})
				if err != nil {
					t.Fatal(err)
				}
				if s.Host != u.HostPort() || s.CertHash != pin || s.Pinned != u.Pinned() {
					t.Errorf("%s: host %q, certificate %x, pinned %v", u, s.Host, s.CertHash, s.Pinned)
				}
				if local, ok := s.LocalAddr().(*net.TCPAddr); !ok || !local.IP.IsLoopback() {
					t.Errorf("%s: the local address is %v", u, s.LocalAddr())
				}
				if !onSocket(s.Conn) {
					t.Errorf("%s: no way leads from the stream to its socket", u)
				}
				tryStream(t, s)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// onSocket reports whether the socket below all wrappers can be found.
func onSocket(conn net.Conn) bool {
	for {
		if _, ok := conn.(syscall.Conn); ok {
			return true
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		conn = wrapper.NetConn()
	}
}

func TestDialErrors(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	hour := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name string
		cert tls.Certificate
		pin  [32]byte
		max  uint16 // TLS version of the server
		want error
	}{
		{"wrong pin", a.leaf(t, hour, "127.0.0.1"), [32]byte{1}, 0, ErrPin},
		{"wrong name", a.leaf(t, hour, "relay.example"), [32]byte{}, 0, ErrName},
		{"expired", a.leaf(t, time.Now().Add(-time.Hour), "127.0.0.1"), [32]byte{}, 0, ErrExpired},
		{"unknown authority", other.leaf(t, hour, "127.0.0.1"), [32]byte{}, 0, ErrUnknownCA},
		{"old TLS", a.leaf(t, hour, "127.0.0.1"), [32]byte{}, tls.VersionTLS12, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reached := false
			port := web(t, &tls.Config{Certificates: []tls.Certificate{tt.cert}, MaxVersion: tt.max},
				http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
			u := URL{Host: "127.0.0.1", Port: port, Pin: tt.pin}
			_, err := Dial(t.Context(), u, DialConfig{Roots: a.roots})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			for _, sentinel := range []error{ErrPin, ErrName, ErrExpired, ErrUnknownCA} {
				if sentinel != tt.want && errors.Is(err, sentinel) {
					t.Errorf("%v is also %v", err, sentinel)
				}
			}
			if reached {
				t.Error("the server was asked for something before it had proved itself")
			}
		})
	}
	t.Run("a pin outlives the dates and the name", func(t *testing.T) {
		cert := other.leaf(t, time.Now().Add(-time.Hour), "relay.example")
		port := web(t, &tls.Config{Certificates: []tls.Certificate{cert}}, http.HandlerFunc(upgrading))
		s, err := Dial(t.Context(), URL{Host: "127.0.0.1", Port: port, Pin: sha256.Sum256(cert.Certificate[0])}, DialConfig{})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	})
	t.Run("neither carrier", func(t *testing.T) {
		cert := a.leaf(t, hour, "127.0.0.1")
		port := web(t, &tls.Config{Certificates: []tls.Certificate{cert}}, http.RedirectHandler("https://relay.example/", http.StatusFound))
		_, err := Dial(t.Context(), URL{Host: "127.0.0.1", Port: port}, DialConfig{Roots: a.roots})
		if err == nil || !strings.Contains(err.Error(), "302 Found") || !strings.Contains(err.Error(), "WebSocket") {
			t.Errorf("error %v does not tell of both tries", err)
		}
	})
}

// A server that accepts and says nothing holds nobody for longer than the context.
func TestDialSilence(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	silent := &url.URL{Scheme: "http", Host: ln.Addr().String()}
	for name, cfg := range map[string]DialConfig{
		"server": {},
		"proxy":  {Proxy: func(*url.URL) (*url.URL, error) { return silent, nil }},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := Dial(ctx, URL{Host: "127.0.0.1", Port: port}, cfg)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// testProxy is an HTTP proxy that may want a password.
type testProxy struct {
	user string // user:password, or nothing
	mu   sync.Mutex
	seen []string
}

func (p *testProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, r.Method+" "+r.Host)
	p.mu.Unlock()
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user)); p.user != "" && r.Header.Get("Proxy-Authorization") != want {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	out, err := net.Dial("tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer out.Close()
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		io.Copy(out, buf)
		out.Close()
	})
	io.Copy(conn, out)
	conn.Close()
}

func TestDialThroughProxy(t *testing.T) {
	a := newAuthority(t)
	cert := a.leaf(t, time.Now().Add(time.Hour), "localhost", "127.0.0.1")
	port := web(t, &tls.Config{Certificates: []tls.Certificate{cert}}, http.HandlerFunc(upgrading))
	u := URL{Host: "localhost", Port: port}
	for _, tt := range []struct {
		name   string
		scheme string
		want   string // user the proxy wants
		user   *url.Userinfo
		target URL
		err    string
	}{
		{"plain", "http", "", nil, u, ""},
		{"with TLS", "https", "", nil, u, ""},
		{"with a password", "http", "me:p@ss", url.UserPassword("me", "p@ss"), u, ""},
		{"without the password", "http", "me:p@ss", nil, u, "it wants a user and a password"},
		{"with a wrong password", "http", "me:p@ss", url.UserPassword("me", "guess"), u, "does not take"},
		{"to nowhere", "http", "", nil, URL{Host: "127.0.0.1", Port: 1}, "502 Bad Gateway"},
		{"of another kind", "socks5", "", nil, u, "no kind of proxy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &testProxy{user: tt.want}
			proxy := &url.URL{Scheme: tt.scheme, User: tt.user}
			if tt.scheme == "https" {
				proxyCert := a.leaf(t, time.Now().Add(time.Hour), "127.0.0.1")
				proxy.Host = fmt.Sprintf("127.0.0.1:%d", web(t, &tls.Config{Certificates: []tls.Certificate{proxyCert}}, p))
			} else {
				proxy.Host = fmt.Sprintf("127.0.0.1:%d", plainWeb(t, p))
			}
			s, err := Dial(t.Context(), tt.target, DialConfig{
				Roots: a.roots,
				Proxy: func(to *url.URL) (*url.URL, error) {
					if to.Host != strings.TrimPrefix(tt.target.base(), "https://") {
						t.Errorf("the proxy for %s was looked up", to)
					}
					return proxy, nil
				},
			})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), proxy.Host) {
					t.Fatalf("error %v does not tell of %q and the proxy", err, tt.err)
				}
				if tt.user != nil && strings.Contains(err.Error(), tt.user.String()) {
					t.Fatalf("the error tells the password: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			tryStream(t, s)
			if want := "CONNECT " + u.HostPort(); len(p.seen) != 1 || p.seen[0] != want {
				t.Errorf("the proxy was asked for %q, want %q", p.seen, want)
			}
		})
	}
}

// What a proxy or a server answers is foreign.
func FuzzExchange(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: meshnet-relay\r\n\r\nrest"))
	f.Add([]byte("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.1 407 Proxy Authentication Required\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		resp, rest, err := exchange(scriptedConn{r: bufio.NewReader(bytes.NewReader(answer))}, http.MethodGet, "GET / HTTP/1.1\r\n\r\n")
		if err == nil && (resp == nil || !bytes.HasSuffix(answer, rest)) {
			t.Fatalf("%q is followed by %q", answer, rest)
		}
	})
}

// scriptedConn answers whatever it is told.
type scriptedConn struct {
	net.Conn
	r io.Reader
}

func (c scriptedConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c scriptedConn) Write(p []byte) (int, error) { return len(p), nil }
