package relayserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/relay"
)

// startFront runs a front and a server on loopback until the test ends, or stop is called.
func startFront(t *testing.T, cfg FrontConfig) (front *Front, stop func()) {
	t.Helper()
	cfg.Addr = "127.0.0.1:0"
	front, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := New(Config{STUNPort: front.STUNPort()})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := front.Run(ctx, server); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return front, stop
}

// member is a client of a relay, and what it got.
type member struct {
	*relay.Client
	id         identity.PeerID
	got        chan string
	restarting chan struct{}
}

func newMember(t *testing.T, stream relay.Stream) *member {
	t.Helper()
	id := identity.New()
	m := &member{id: id.ID(), got: make(chan string, 16), restarting: make(chan struct{}, 1)}
	var err error
	m.Client, err = relay.NewClient(t.Context(), stream, relay.ClientConfig{
		Identity: id,
		Deliver: func(batch []datagram.Relayed, done func()) {
			for _, d := range batch {
				m.got <- d.From.String() + " " + string(d.Data)
			}
			done()
		},
		Restarting: func(time.Duration, time.Duration) { m.restarting <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { m.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return m
}

// hears waits for a datagram.
func (m *member) hears(t *testing.T, from *member, text string) {
	t.Helper()
	select {
	case got := <-m.got:
		if got != from.id.String()+" "+text {
			t.Fatalf("got %q, want %q of %s", got, text, from.id)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%q did not come", text)
	}
}

func TestFront(t *testing.T) {
	front, stop := startFront(t, FrontConfig{})
	u := front.URL()
	if !u.Pinned() || u.Host != "127.0.0.1" || u.Port != front.Addr().Port() {
		t.Fatalf("the URL is %s", u)
	}
	upgraded, err := relay.Dial(t.Context(), u, relay.DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := newMember(t, upgraded), newMember(t, dialWebSocket(t, u))
	if a.STUNPort() != front.STUNPort() || a.STUNPort() != u.Port {
		t.Errorf("the STUN port is %d, told as %d, and TCP's is %d", front.STUNPort(), a.STUNPort(), u.Port)
	}
	if seen := a.Seen(); seen.Addr() != front.Addr().Addr() || seen != b.Seen() && seen.Addr() != b.Seen().Addr() {
		t.Errorf("the clients are seen at %v and %v", a.Seen(), b.Seen())
	}
	if err := a.Send(b.id, [][]byte{[]byte("to the WebSocket")}, false); err != nil {
		t.Fatal(err)
	}
	b.hears(t, a, "to the WebSocket")
	if err := b.Send(a.id, [][]byte{[]byte("from the WebSocket")}, true); err != nil {
		t.Fatal(err)
	}
	a.hears(t, b, "from the WebSocket")

	stop()
	for _, m := range []*member{a, b} {
		select {
		case <-m.restarting:
		case <-time.After(10 * time.Second):
			t.Fatal("a client was not told that the relay ends")
		}
	}
	if conn, err := net.Dial("tcp", u.HostPort()); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

// dialWebSocket is what relay.Dial does where the upgrade is refused.
func dialWebSocket(t *testing.T, u relay.URL) relay.Stream {
	t.Helper()
	under, err := tls.Dial("tcp", u.HostPort(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	ws, resp, err := websocket.Dial(t.Context(), "https://"+u.HostPort()+relay.Path, &websocket.DialOptions{
		Subprotocols: []string{relay.Protocol},
		HTTPClient: &http.Client{Transport: &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return under, nil },
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		t.Cleanup(func() { resp.Body.Close() })
	}
	return relay.Stream{Conn: relay.NewWebSocketConn(ws, under), Exporter: exported(t, under), Host: u.HostPort()}
}

// exported is what both sides of a session sign and verify.
func exported(t *testing.T, session *tls.Conn) []byte {
	t.Helper()
	state := session.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(relay.ExporterLabel, nil, relay.ExporterLen)
	if err != nil {
		t.Fatal(err)
	}
	return exporter
}

func TestFrontHTTP(t *testing.T) {
	front, _ := startFront(t, FrontConfig{})
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}}
	defer client.CloseIdleConnections()
	upgrade := func(to string) http.Header {
		return http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {to}}
	}
	for _, tt := range []struct {
		method, path string
		header       http.Header
		status       int
		body         string
	}{
		{"GET", "/", nil, 200, "meshnet relay"},
		{"HEAD", "/", nil, 200, ""},
		{"GET", "/generate_204", nil, 204, ""},
		{"GET", "/nothing", nil, 404, ""},
		{"POST", "/", nil, 405, ""},
		{"GET", relay.Path, nil, 426, relay.Protocol},
		{"GET", relay.Path, upgrade("h2c"), 426, ""},
		{"POST", relay.Path, upgrade(relay.Protocol), 405, ""},
		{"GET", relay.Path, http.Header{"Upgrade": {relay.Protocol}}, 426, ""},
		{"GET", relay.Path, upgrade("websocket"), 400, ""}, // without a key
		{"GET", "/", http.Header{"X": {strings.Repeat("x", 2*maxHeader)}}, 431, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "https://"+front.Addr().String()+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = tt.header.Clone()
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", tt.method, tt.path, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.body) {
			t.Errorf("%s %s %v: %s %q, want %d and %q", tt.method, tt.path, tt.header, resp.Status, body, tt.status, tt.body)
		}
		if resp.ProtoMajor != 1 {
			t.Errorf("%s %s: answered in %s", tt.method, tt.path, resp.Proto)
		}
	}
	if conn, err := tls.Dial("tcp", front.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		conn.Close()
		t.Error("it speaks TLS 1.2")
	}
}

// What a client sends behind its request, without waiting for the answer, is not lost; and a WebSocket of another
// subprotocol, or of a page of another site, is none of ours.
func TestFrontEager(t *testing.T) {
	front, _ := startFront(t, FrontConfig{})
	conn, err := tls.Dial("tcp", front.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	id := identity.New()
	hello := relay.ClientHello{Version: relay.Version, Node: id.ID()}
	hello.Signature = [64]byte(id.Sign(identity.PurposeRelayTLS, identity.NetworkID{}, exported(t, conn)))
	request := "GET " + relay.Path + " HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: " + relay.Protocol + "\r\n\r\n"
	conn.Write(relay.AppendFrame([]byte(request), relay.TypeClientHello, hello.Append(nil)))
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte{byte(relay.TypeWelcome), 0, 0, 0, 19}) {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("no Welcome in %q: %v", got, err)
		}
		got = append(got, buf[:n]...)
	}

	for name, opts := range map[string]*websocket.DialOptions{
		"another subprotocol": {Subprotocols: []string{"chat"}},
		"another site":        {Subprotocols: []string{relay.Protocol}, HTTPHeader: http.Header{"Origin": {"https://example.com"}}},
	} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		opts.HTTPClient = &http.Client{Transport: transport}
		ws, _, err := websocket.Dial(t.Context(), "https://"+front.Addr().String()+relay.Path, opts)
		if err != nil {
			continue
		}
		if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%s: %v", name, err)
		}
		ws.CloseNow()
	}
}

// Whoever opens connections and says nothing keeps nobody out.
func TestFrontFlood(t *testing.T) {
	front, _ := startFront(t, FrontConfig{})
	for range maxWaiting + 200 {
		conn, err := net.Dial("tcp", front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	stream, err := relay.Dial(t.Context(), front.URL(), relay.DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	newMember(t, stream)
	count := front.Counters()
	if count["waiting"] > maxWaiting || count["drop_pushed_out"] < 200 {
		t.Errorf("counters %v", count)
	}
}

func TestFrontURL(t *testing.T) {
	dir := t.TempDir()
	named := filepath.Join(dir, "named.pem")
	writeCertificate(t, named, &x509.Certificate{DNSNames: []string{"*.example.net", "relay.example.net"}})
	for _, tt := range []struct {
		name string
		cfg  FrontConfig
		want string // with PORT and PIN to be replaced
		err  error
	}{
		{"bound to an address", FrontConfig{Addr: "127.0.0.1:0"}, "https://127.0.0.1:PORT#sha256=PIN", nil},
		{"bound to IPv6", FrontConfig{Addr: "[::1]:0"}, "https://[::1]:PORT#sha256=PIN", nil},
		{"told a name", FrontConfig{Addr: ":0", Public: "relay.example"}, "https://relay.example:PORT#sha256=PIN", nil},
		{"told a name and port", FrontConfig{Addr: ":0", Public: "relay.example:443"}, "https://relay.example#sha256=PIN", nil},
		{"told an IPv6 address", FrontConfig{Addr: ":0", Public: "2001:db8::1"}, "https://[2001:db8::1]:PORT#sha256=PIN", nil},
		{"told an IPv6 address and port", FrontConfig{Addr: ":0", Public: "[2001:db8::1]:99"}, "https://[2001:db8::1]:99#sha256=PIN", nil},
		{"told nonsense", FrontConfig{Addr: ":0", Public: "relay/example"}, "", relay.ErrPath},
		{"ACME", FrontConfig{Addr: ":0", ACME: ACMEConfig{Domain: "Relay.Example.NET"}}, "https://relay.example.net:PORT", nil},
		{"a certificate with a name", FrontConfig{Addr: ":0", CertFile: named}, "https://relay.example.net:PORT", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			front, err := Listen(tt.cfg)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			defer front.Close()
			want := strings.ReplaceAll(tt.want, "PORT", fmt.Sprint(front.Addr().Port()))
			want = strings.ReplaceAll(want, "PIN", fmt.Sprintf("%x", front.URL().Pin))
			if got := front.URL().String(); got != want {
				t.Errorf("the URL is %s, want %s", got, want)
			}
		})
	}
	t.Run("bound to all", func(t *testing.T) {
		front, err := Listen(FrontConfig{Addr: ":0"})
		if err != nil {
			t.Fatal(err)
		}
		defer front.Close()
		if u := front.URL(); !u.Pinned() || u.Host == "" || u.Host == "::" || u.Host == "0.0.0.0" {
			t.Errorf("the URL is %s", u)
		}
	})
	for _, domain := range []string{"relay", "192.0.2.1", "relay.example.net:443", "relay.example.net/x", "-"} {
		if front, err := Listen(FrontConfig{Addr: "127.0.0.1:0", ACME: ACMEConfig{Domain: domain}}); err == nil {
			front.Close()
			t.Errorf("ACME for %q", domain)
		}
	}
}

// writeCertificate makes a certificate that something else than itself signed, and its key, in one file.
func writeCertificate(t *testing.T, path string, template *x509.Certificate) *tls.Certificate {
	t.Helper()
	ca, _, err := newSelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := newSelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = cert.Leaf.SerialNumber
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(nil, template, ca.Leaf, cert.Leaf.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return cert
}

// The URL of a self-signed relay outlives its restarts.
func TestKeptCertificate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "relay.pem")
	var before relay.URL
	for i := range 3 {
		front, err := Listen(FrontConfig{Addr: "127.0.0.1:0", SelfSigned: path, Public: "relay.example:1"})
		if err != nil {
			t.Fatal(err)
		}
		u := front.URL()
		front.Close()
		if i > 0 && u != before {
			t.Fatalf("the URL was %s and is %s", before, u)
		}
		before = u
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if front, err := Listen(FrontConfig{Addr: "127.0.0.1:0", SelfSigned: path}); err == nil {
		front.Close()
		t.Error("a file that makes no sense was taken")
	}
}

// Whoever renews the files has the new certificate served without a restart.
func TestCertificateFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cert.pem")
	synctest.Test(t, func(t *testing.T) {
		writeCertificate(t, path, &x509.Certificate{DNSNames: []string{"one.example"}})
		certs, err := openFiles(path, "", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if certs.pinned || certs.name != "one.example" {
			t.Errorf("pinned %v, name %q", certs.pinned, certs.name)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { certs.run(ctx) })
		defer wg.Wait()
		defer cancel()
		name := func() string {
			time.Sleep(2 * reloadEvery)
			cert, err := certs.get(&tls.ClientHelloInfo{})
			if err != nil {
				t.Fatal(err)
			}
			return cert.Leaf.DNSNames[0]
		}
		if got := name(); got != "one.example" {
			t.Errorf("it is for %s", got)
		}
		writeCertificate(t, path, &x509.Certificate{DNSNames: []string{"the-second.example"}})
		if got := name(); got != "the-second.example" {
			t.Errorf("after the renewal it is for %s", got)
		}
		if err := os.WriteFile(path, []byte("half of it"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := name(); got != "the-second.example" {
			t.Errorf("with a broken file it is for %s", got)
		}
		writeCertificate(t, path, &x509.Certificate{DNSNames: []string{"3.example"}})
		if got := name(); got != "3.example" {
			t.Errorf("after the repair it is for %s", got)
		}
	})
	if _, err := openFiles(path+"x", "", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a missing file is a certificate")
	}
}
