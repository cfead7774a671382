package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/localapi"
)

// settleTime is how long nodes may take to come to what they are to come to, on a busy machine.
const settleTime = 40 * time.Second

// serving is a relay server with flags of its own, which can be started again.
type serving struct {
	w    *world
	proc *netlab.Process
	url  string
	host *netlab.Host
	path string   // program that is started
	args []string // its arguments
}

var relayLine = regexp.MustCompile(`(?m)^(https://\S+)$`)

// serve runs a relay server on a host, with a state folder of its own.
func (w *world) serve(host *netlab.Host, name string, args ...string) *serving {
	w.t.Helper()
	state := filepath.Join(w.dir, "relay-"+name)
	s := &serving{w: w, host: host, path: w.bin, args: append([]string{"relay", "--state", state}, args...)}
	return s.start()
}

// start runs it and waits for its URL.
func (s *serving) start() *serving {
	s.w.t.Helper()
	proc, err := s.host.Start(netlab.Proc{Path: s.path, Args: s.args, Dir: "/"})
	if err != nil {
		s.w.t.Fatal(err)
	}
	var url string
	if !waitFor(settleTime, func() bool {
		if m := relayLine.FindStringSubmatch(proc.Output()); m != nil {
			url = m[1]
		}
		return url != ""
	}) {
		s.w.t.Fatalf("no URL of a relay server:\n%s", proc.Output())
	}
	s.proc, s.url = proc, url
	return s
}

// public is a flag that names the host's own address with a port.
func public(host *netlab.Host, port string) []string {
	return []string{"--addr", ":" + port, "--public", net.JoinHostPort(host.Card().Addr4().String(), port)}
}

// authority issues certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	file string // its own certificate, PEM
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.write("authority.pem", &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) write(name string, blocks ...*pem.Block) string {
	a.t.Helper()
	var text []byte
	for _, b := range blocks {
		text = append(text, pem.EncodeToMemory(b)...)
	}
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a file with a certificate for an address, and its key.
func (a *authority) issue(name string, addr netip.Addr, until time.Time) string {
	a.t.Helper()
	key := a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		IPAddresses: []net.IP{addr.AsSlice()}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", &pem.Block{Type: "CERTIFICATE", Bytes: der}, &pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// netcheck is what the node finds out about the networks around it.
func (n *node) netcheck(t testing.TB) *meshnet.Netcheck {
	t.Helper()
	c, err := asked(n, func(ctx context.Context, c *localapi.Client) (*meshnet.Netcheck, error) { return c.Netcheck(ctx) })
	if err != nil {
		t.Fatalf("netcheck on %s: %v", n.name, err)
	}
	return c
}

// relayError is why the node is not connected to a relay server; "" when it is, or does not know it.
func relayError(c *meshnet.Netcheck, url string) string {
	for _, r := range c.Relays {
		if r.URL == url && r.Error != nil {
			return *r.Error
		}
	}
	return ""
}

// homes are where the node is at home.
func (n *node) homes() []string {
	s, err := asked(n, func(ctx context.Context, c *localapi.Client) (*meshnet.Status, error) { return c.Status(ctx) })
	if err != nil {
		return nil
	}
	return s.Self.Homes
}

// atHome waits until the node is at home at a relay server.
func (n *node) atHome(t testing.TB, url string) {
	t.Helper()
	if !waitFor(settleTime, func() bool { return slices.Contains(n.homes(), url) }) {
		t.Fatalf("%s is not at home at %s but at %q\n%s", n.name, url, n.homes(), n.proc.Output())
	}
}

// reaches pings another node, by names and inside the mesh, until a reply comes by a path of a kind.
func (n *node) reaches(t testing.TB, to *node, kind string) meshnet.PathStatus {
	t.Helper()
	var pong meshnet.PingResult
	var err error
	if !waitFor(settleTime, func() bool {
		pong, err = asked(n, func(ctx context.Context, c *localapi.Client) (meshnet.PingResult, error) {
			return c.Ping(ctx, to.name, 1, 56, 3*time.Second)
		})
		return err == nil && pong.OK && pong.Path.Kind == kind
	}) {
		t.Fatalf("%s reaches %s in another way, or not: %+v, %v\n%s\n%s", n.name, to.name, pong, err, n.why(to), n.proc.Output())
	}
	return pong.Path
}

// says waits until a program has said something.
func says(t testing.TB, p *netlab.Process, text string) {
	t.Helper()
	if !waitFor(settleTime, func() bool { return strings.Contains(p.Output(), text) }) {
		t.Fatalf("%q is not in\n%s", text, p.Output())
	}
}

// upWith starts the node with variables of its environment, and waits until it is ready.
func (n *node) upWith(env []string, args ...string) {
	n.w.t.Helper()
	var err error
	n.proc, err = n.host.Start(netlab.Proc{
		Path: n.w.bin, Args: append([]string{"up", "--state", n.state, "--hostname", n.name}, args...), Env: env,
	})
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.awaitReady(settleTime)
}

// client is a TLS configuration that trusts the authority alone.
func (a *authority) client() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{RootCAs: roots}
}

// web is an HTTP client on a host. cfg is for https; nil: the default.
func web(host *netlab.Host, cfg *tls.Config) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: cfg,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return host.Dial(ctx, network, addr)
		},
	}}
}

// get fetches a document.
func get(t testing.TB, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", url, resp.Status, err, body)
	}
	return string(body)
}

// samples are values of metrics by name with labels.
type samples map[string]float64

// scrape reads what a metrics server tells.
func scrape(t testing.TB, host *netlab.Host, addr string) samples {
	t.Helper()
	return parseSamples(t, get(t, web(host, nil), "http://"+addr+"/metrics"))
}

func parseSamples(t testing.TB, text string) samples {
	t.Helper()
	all := make(samples)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[cut+1:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[line[:cut]] = value
	}
	return all
}
