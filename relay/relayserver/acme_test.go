package relayserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/meshnet/meshnet/internal/netlab"
)

const acmeDomain = "relay.example.net"

// pebble is an authority for tests, which checks in earnest.
type pebble struct {
	directory string
	roots     *x509.CertPool // of its own server
	issuer    *x509.CertPool // of what it issues
}

// startPebble runs it until the test ends. It looks for every domain at 127.0.0.1, at the port given.
func startPebble(t *testing.T, tlsPort uint16) *pebble {
	t.Helper()
	bin, err := exec.LookPath("pebble")
	netlab.Need(t, err == nil, "the program pebble is not installed")
	dir := t.TempDir()
	p := &pebble{roots: x509.NewCertPool(), issuer: x509.NewCertPool()}
	cert := filepath.Join(dir, "server.pem")
	p.roots.AddCert(writeLoopbackCertificate(t, cert))
	listen, manage := freePort(t), freePort(t)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage,
		"certificate": cert, "privateKey": cert, "httpPort": 1, "tlsPort": tlsPort,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, "-config", filepath.Join(dir, "config.json"), "-dnsserver", loopbackDNS(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		cmd.Wait()
		if t.Failed() {
			t.Logf("pebble says:\n%s", output.Bytes())
		}
	})
	p.directory = "https://" + listen + "/dir"
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}}, Timeout: time.Second}
	defer client.CloseIdleConnections()
	root := poll(t, func() ([]byte, error) {
		resp, err := client.Get("https://" + manage + "/roots/0")
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		return io.ReadAll(resp.Body)
	})
	if !p.issuer.AppendCertsFromPEM(root) {
		t.Fatalf("%q is no certificate", root)
	}
	return p
}

// poll tries until it succeeds.
func poll[T any](t *testing.T, try func() (T, error)) T {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		v, err := try()
		if err == nil {
			return v
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// writeLoopbackCertificate makes a certificate for 127.0.0.1 that signs itself, and its key, in one file.
func writeLoopbackCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	cert, _, err := newSelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	template := *cert.Leaf
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(nil, &template, &template, cert.Leaf.PublicKey, cert.PrivateKey)
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
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// loopbackDNS runs a name server that knows every name at 127.0.0.1, and returns its address.
func loopbackDNS(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Authoritative, m.Additionals = true, true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
					Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
				}}
			}
			if answer, err := m.Pack(); err == nil {
				conn.WriteTo(answer, from)
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		wg.Wait()
	})
	return conn.LocalAddr().String()
}

// A relay gets its certificate, clients take it for what it is, and a restart does not ask for another.
func TestACME(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "acme")
	_, port, _ := net.SplitHostPort(freePort(t))
	addr := "127.0.0.1:" + port
	var number uint16
	fmt.Sscan(port, &number)
	authority := startPebble(t, number)
	var serials []string
	for range 2 {
		front, err := Listen(FrontConfig{
			Addr: addr, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			ACME: ACMEConfig{Domain: acmeDomain, Directory: authority.directory, Roots: authority.roots, Cache: cache},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := front.URL().String(), "https://"+acmeDomain+":"+port; got != want {
			t.Errorf("the URL is %s, want %s", got, want)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := front.Run(ctx, New(Config{})); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		state := poll(t, func() (tls.ConnectionState, error) {
			conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: authority.issuer, ServerName: acmeDomain})
			if err != nil {
				return tls.ConnectionState{}, err
			}
			defer conn.Close()
			return conn.ConnectionState(), nil
		})
		serials = append(serials, state.PeerCertificates[0].SerialNumber.String())
		for _, cfg := range []*tls.Config{
			{ServerName: acmeDomain, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true},
			{ServerName: "other.example.net", InsecureSkipVerify: true},
			{InsecureSkipVerify: true},
		} {
			if conn, err := tls.Dial("tcp", addr, cfg); err == nil {
				conn.Close()
				t.Errorf("a certificate for %q and %q", cfg.ServerName, cfg.NextProtos)
			}
		}
		cancel()
		wg.Wait()
	}
	if serials[0] != serials[1] {
		t.Errorf("the certificate %s was followed by %s: it was not kept", serials[0], serials[1])
	}
	for _, name := range []string{accountFile, issuedFile} {
		if info, err := os.Stat(filepath.Join(cache, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// Without an authority there is a relay without a certificate: clients are refused, and it is asked again later and
// later.
func TestACMEFails(t *testing.T) {
	var asked []time.Duration
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a := &acmeCertificates{domain: acmeDomain, log: slog.New(slog.DiscardHandler), client: &acme.Client{
			DirectoryURL: "https://authority.invalid/dir",
			HTTPClient: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				asked = append(asked, time.Since(began))
				return nil, errors.New("no route")
			})},
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
		defer cancel()
		a.run(ctx)
		if _, err := a.get(&tls.ClientHelloInfo{ServerName: acmeDomain}); !errors.Is(err, errNotIssued) {
			t.Errorf("a client gets %v", err)
		}
	})
	// 0, 1, 3, 7, 15, 31, 63 minutes and then every hour, a tenth less at most.
	if n := len(asked); n < 9 || n > 12 {
		t.Errorf("asked %d times in 5 hours: %v", n, asked)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRenewal(t *testing.T) {
	leaf := &x509.Certificate{NotBefore: time.Unix(0, 0), NotAfter: time.Unix(90*86400, 0)}
	if got, want := renewal(leaf), time.Unix(60*86400, 0); !got.Equal(want) {
		t.Errorf("renewed %v, want %v", got, want)
	}
}

// What was kept is only used for the domain, and while it lasts.
func TestACMEUse(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		template x509.Certificate
		want     string
	}{
		"good":    {x509.Certificate{DNSNames: []string{acmeDomain}}, ""},
		"other":   {x509.Certificate{DNSNames: []string{"other.example.net"}}, "not " + acmeDomain},
		"expired": {x509.Certificate{DNSNames: []string{acmeDomain}, NotAfter: time.Now().Add(-time.Hour)}, "expired"},
	} {
		path := filepath.Join(dir, name)
		writeCertificate(t, path, &tt.template)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		a := &acmeCertificates{domain: acmeDomain}
		err = a.use(text)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
		if used := a.current.Load() != nil; used != (tt.want == "") {
			t.Errorf("%s: used %v", name, used)
		}
	}
	if err := new(acmeCertificates).use([]byte("nonsense")); err == nil {
		t.Error("nonsense is used")
	}
}
