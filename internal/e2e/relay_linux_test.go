package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// TestRelayProofs: what does not prove to be the relay server that was named is passed over, and told apart.
func TestRelayProofs(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	host := inet.Public("relay")
	addr := host.Card().Addr4()
	known, foreign := newAuthority(t), newAuthority(t)
	year := time.Now().Add(365 * 24 * time.Hour)
	serve := func(port, cert string) string {
		args := public(host, port)
		if cert != "" {
			args = append(args, "--tls-cert", cert)
		}
		return w.serve(host, port, args...).url
	}
	pinned := serve("9001", "")
	flipped := "0"
	if strings.HasSuffix(pinned, flipped) {
		flipped = "1"
	}
	wrong := make(map[string]string) // URL: what is wrong with it
	wrong[pinned[:len(pinned)-1]+flipped] = "the certificate is not the pinned one"
	wrong[serve("9002", known.issue("name", netip.MustParseAddr("192.0.2.1"), year))] = "the certificate is for another name"
	wrong[serve("9003", known.issue("old", addr, time.Now().Add(-time.Hour)))] = "the certificate has expired or is not valid yet"
	wrong[serve("9004", foreign.issue("foreign", addr, year))] = "the certificate is from no known authority"
	good := serve("9005", known.issue("good", addr, year))
	flags := []string{"--relay-ca", known.file}
	for url := range wrong {
		flags = append(flags, "--relay-server", url)
	}
	a := w.on(inet.Site(netlab.PortRestricted).Host("alice"))
	a.up(append(flags, "--relay-server", good)...)
	a.atHome(t, good)
	if homes := a.homes(); len(homes) != 1 {
		t.Errorf("homes %q", homes)
	}
	check := a.netcheck(t)
	for url, says := range wrong {
		if got := relayError(check, url); !strings.Contains(got, says) {
			t.Errorf("%s: error %q, want %q", url, got, says)
		}
		if !strings.Contains(a.proc.Output(), says) {
			t.Errorf("the log does not say %q:\n%s", says, a.proc.Output())
		}
	}
	if got := relayError(check, good); got != "" {
		t.Errorf("%s: error %q", good, got)
	}
	// Somebody without a way to be found but that relay server joins by it: the token names it, and nothing else leads.
	b := w.on(inet.Site(netlab.UDPBlocked).Host("bob"))
	b.up("--join", "@"+a.invite(), "--relay-ca", known.file)
	b.reaches(t, a, "relay")
}

// TestRelayAlone has nothing but a relay server between two nodes, which runs as a user who may nothing: joining, data,
// and a restart.
func TestRelayAlone(t *testing.T) {
	setpriv := tool(t, "setpriv")
	w := newWorld(t)
	inet := w.lab.Internet()
	host := inet.Public("relay")
	const nobody = "65534"
	for dir, mode := range map[string]os.FileMode{filepath.Dir(w.bin): 0o755, filepath.Dir(w.dir): 0o755, w.dir: 0o755} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	state := filepath.Join(w.dir, "relay-nobody")
	if err := errors.Join(os.Mkdir(state, 0o700), os.Chown(state, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	s := &serving{w: w, host: host, path: setpriv, args: append([]string{
		"--reuid", nobody, "--regid", nobody, "--clear-groups", "--no-new-privs", w.bin, "relay", "--state", state,
	}, public(host, "9000")...)}
	s.start()
	a, b := w.on(inet.Site(netlab.UDPBlocked).Host("alice")), w.on(inet.Site(netlab.UDPBlocked).Host("bob"))
	a.up("--relay-server", s.url)
	a.atHome(t, s.url)
	b.up("--join", "@"+a.invite())
	b.atHome(t, s.url)
	a.ping(b.ip4, settleTime)
	b.ping(a.ip6, settleTime)
	for _, p := range []meshnet.PathStatus{a.reaches(t, b, "relay"), b.reaches(t, a, "relay")} {
		if p.Via == nil || *p.Via != s.url || p.Addr != nil || p.RTTMs == nil {
			t.Errorf("path %+v", p)
		}
	}
	if !waitFor(settleTime, func() bool {
		p := a.path(b)
		return p.Kind == "relay" && p.Reason != nil && *p.Reason == "relay: UDP is blocked here"
	}) {
		t.Errorf("path %+v, reason %q", a.path(b), text(a.path(b).Reason))
	}
	if c := a.netcheck(t); c.UDP || text(c.NAT) != "blocked" || c.IPv4 != nil {
		t.Errorf("netcheck: udp %v, nat %s, ipv4 %v", c.UDP, text(c.NAT), c.IPv4)
	}
	url := s.url
	if err := s.proc.Stop(); err != nil {
		t.Fatalf("%v\n%s", err, s.proc.Output())
	}
	if _, err := a.tryPing(b.ip4, 500*time.Millisecond); err == nil {
		t.Error("a ping comes back without the relay server")
	}
	start := time.Now()
	if s.start(); s.url != url {
		t.Fatalf("its URL was %s and is %s", url, s.url)
	}
	took := a.ping(b.ip4, settleTime)
	t.Logf("data %v after the relay server was started again (%v after it was ready)", time.Since(start).Round(time.Millisecond), took.Round(time.Millisecond))
	b.ping(a.ip6, settleTime)
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// TestRelayByProxy reaches the relay server through an HTTP proxy where nothing else gets out.
func TestRelayByProxy(t *testing.T) {
	tinyproxy := tool(t, "tinyproxy")
	w := newWorld(t)
	inet := w.lab.Internet()
	s := w.serve(inet.Public("relay"), "relay", "--public", "203.0.113.2:9000")
	proxy := inet.Public("proxy")
	conf := w.file("Port 8888\nTimeout 600\nLogLevel Info\nMaxClients 20\nConnectPort 9000\nDisableViaHeader Yes\n")
	daemon, err := proxy.Start(netlab.Proc{Path: tinyproxy, Args: []string{"-d", "-c", conf}})
	if err != nil {
		t.Fatal(err)
	}
	says(t, daemon, "Accepting connections")
	site := inet.Site(netlab.UDPBlocked)
	shut := site.Router.DropRule(netlab.Match{Hooks: netlab.Forward, Proto: unix.IPPROTO_TCP, DstPort: 9000})
	a, b := w.on(site.Host("alice")), w.on(inet.Site(netlab.UDPBlocked).Host("bob"))
	a.upWith([]string{"HTTPS_PROXY=http://" + netip.AddrPortFrom(proxy.Card().Addr4(), 8888).String()}, "--relay-server", s.url)
	a.atHome(t, s.url)
	b.up("--join", "@"+a.invite())
	b.ping(a.ip4, settleTime)
	a.ping(b.ip6, settleTime)
	a.reaches(t, b, "relay")
	if !strings.Contains(daemon.Output(), "CONNECT 203.0.113.2:9000") {
		t.Errorf("the proxy was not asked:\n%s", daemon.Output())
	}
	if n := shut.Count(); n > 0 {
		t.Errorf("%d packets went past the proxy", n)
	}
}

// underKey finds the connection of a request.
type underKey struct{}

// TestRelayByWebSocket has a front before the relay server that ends TLS, lets no upgrade pass but WebSocket's, and is
// known to the server by name and certificate.
func TestRelayByWebSocket(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	host := inet.Public("front")
	ca := newAuthority(t)
	cert, err := tls.LoadX509KeyPair(ca.issue("front", host.Card().Addr4(), time.Now().Add(time.Hour)), filepath.Join(ca.dir, "front.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := host.Listen("tcp", ":443")
	if err != nil {
		t.Fatal(err)
	}
	server := relayserver.New(relayserver.Config{})
	var refused, opened atomic.Int64
	front := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			refused.Add(1)
			http.Error(rw, "only HTTP is spoken here", http.StatusBadRequest)
			return
		}
		ws, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: []string{relay.Protocol}})
		if err != nil {
			return
		}
		opened.Add(1)
		under := r.Context().Value(underKey{}).(net.Conn)
		server.ServeConn(context.WithoutCancel(r.Context()), relay.Stream{
			Conn: relay.NewWebSocketConn(ws, under), Host: host.Card().Addr4().String() + ":443", CertHash: sha256.Sum256(cert.Certificate[0]),
		})
	}), ConnContext: func(ctx context.Context, under net.Conn) context.Context {
		return context.WithValue(ctx, underKey{}, under)
	}}
	go front.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}))
	t.Cleanup(func() {
		server.Close()
		front.Close()
	})
	url := "https://" + host.Card().Addr4().String()
	a, b := w.on(inet.Site(netlab.UDPBlocked).Host("alice")), w.on(inet.Site(netlab.UDPBlocked).Host("bob"))
	a.up("--relay-server", url, "--relay-ca", ca.file)
	a.atHome(t, url)
	b.up("--join", "@"+a.invite(), "--relay-ca", ca.file)
	b.ping(a.ip4, settleTime)
	a.reaches(t, b, "relay")
	if refused.Load() < 2 || opened.Load() < 2 {
		t.Errorf("%d upgrades refused, %d WebSockets", refused.Load(), opened.Load())
	}
}

// TestRelayBehindStranger: somebody in between with a certificate that the node trusts is noticed.
func TestRelayBehindStranger(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	host, between := inet.Public("relay"), inet.Public("between")
	s := w.serve(host, "relay", public(host, "9000")...)
	ca := newAuthority(t)
	cert, err := tls.LoadX509KeyPair(ca.issue("between", between.Card().Addr4(), time.Now().Add(time.Hour)), filepath.Join(ca.dir, "between.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := between.Listen("tcp", ":443")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with the listener
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := between.Dial(t.Context(), "tcp", host.Card().Addr4().String()+":9000")
			if err != nil {
				near.Close()
				continue
			}
			client := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{cert}})
			server := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				go func() { // ends with either connection
					io.Copy(way[0], way[1])
					near.Close()
					far.Close()
				}()
			}
		}
	}()
	stranger := "https://" + between.Card().Addr4().String()
	a := w.on(inet.Site(netlab.PortRestricted).Host("alice"))
	a.up("--relay-server", stranger, "--relay-server", s.url, "--relay-ca", ca.file)
	a.atHome(t, s.url)
	const says = "a proxy ends TLS before the relay"
	if got := relayError(a.netcheck(t), stranger); !strings.Contains(got, says) || slices.Contains(a.homes(), stranger) {
		t.Errorf("error %q, want %q; homes %q", got, says, a.homes())
	}
}

// TestRelayAdmission: a relay server for one network serves its members and who holds its token, and nobody else.
func TestRelayAdmission(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	host := inet.Public("relay")
	a := w.on(inet.Site(netlab.UDPBlocked).Host("alice"))
	a.up()
	key := a.status().Network.RelayKey
	if key == nil {
		t.Fatal("no relay key")
	}
	s := w.serve(host, "relay", append(public(host, "9000"), "--allow-network", *key, "--metrics", "127.0.0.1:9100")...)
	if err := a.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	a.up("--relay-server", s.url)
	a.atHome(t, s.url)
	if again := a.status().Network.RelayKey; text(again) != *key {
		t.Errorf("the relay key was %s and is %s", *key, text(again))
	}
	b := w.on(inet.Site(netlab.UDPBlocked).Host("bob"))
	b.up("--join", "@"+a.invite())
	b.ping(a.ip4, settleTime)
	if err := b.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	b.up() // as a member, with a pass of its own
	b.atHome(t, s.url)
	b.ping(a.ip4, settleTime)

	m := w.on(inet.Site(netlab.PortRestricted).Host("mallory"))
	m.up("--relay-server", s.url)
	if !waitFor(settleTime, func() bool {
		return strings.Contains(relayError(m.netcheck(t), s.url), "relay wants a pass of a network it serves")
	}) {
		t.Errorf("a stranger: %q\n%s", relayError(m.netcheck(t), s.url), m.proc.Output())
	}
	if homes := m.homes(); len(homes) > 0 {
		t.Errorf("a stranger is at home at %q", homes)
	}
	got := scrape(t, host, "127.0.0.1:9100")
	if got[`meshnet_relay_refused_total{reason="pass"}`] == 0 || got["meshnet_relay_sessions"] != 2 {
		t.Errorf("refused %v, sessions %v", got[`meshnet_relay_refused_total{reason="pass"}`], got["meshnet_relay_sessions"])
	}
}

// TestRelayOfMembers: an admin's relay server counts at once, another member's once an admin approves.
func TestRelayOfMembers(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	onPublic := func(name string) *node {
		n := w.on(inet.Public(name))
		n.up("--relay", "--relay-public", netip.AddrPortFrom(n.host.Card().Addr4(), 9000).String())
		return n
	}
	a := onPublic("alice")
	own := text(a.status().Self.RelayURL)
	if !strings.HasPrefix(own, "https://"+a.host.Card().Addr4().String()+":9000#sha256=") {
		t.Fatalf("relay URL %q", own)
	}
	token := a.invite("--uses", "0")
	b := w.on(inet.Site(netlab.UDPBlocked).Host("bob"))
	b.up("--join", "@"+token)
	b.atHome(t, own)
	b.ping(a.ip4, settleTime)
	if p := b.reaches(t, a, "relay"); text(p.Via) != own {
		t.Errorf("path %+v", p)
	}
	// Two that nothing but the founder's relay server joins.
	c := w.on(inet.Site(netlab.UDPBlocked).Host("carol"))
	c.up("--join", "@"+token)
	c.ping(b.ip4, settleTime)

	d := w.on(inet.Public("dave"))
	d.up("--join", "@"+token, "--relay", "--relay-public", netip.AddrPortFrom(d.host.Card().Addr4(), 9000).String())
	offered := text(d.status().Self.RelayURL)
	knows := func(n *node, url string) bool {
		return slices.ContainsFunc(n.netcheck(t).Relays, func(r meshnet.NetcheckRelay) bool { return r.URL == url })
	}
	if !waitFor(settleTime, func() bool { p := b.peer(d); return p != nil && p.State == meshnet.PeerConnected }) {
		t.Fatalf("bob does not know dave\n%s", b.proc.Output())
	}
	if knows(b, offered) {
		t.Error("bob knows a relay server that nobody approved")
	}
	if out, err := b.run("members", "approve", "dave", "relay"); err == nil {
		t.Errorf("bob, who is no admin, approves: %s", out)
	}
	a.must("members", "approve", "dave", "relay")
	b.atHome(t, offered)
	c.atHome(t, offered)
	if !slices.Contains(b.homes(), own) {
		t.Errorf("bob is not at home at the founder's any more: %q", b.homes())
	}
	a.must("members", "approve", "--withdraw", "dave", "relay")
	for _, n := range []*node{b, c} {
		if !waitFor(settleTime, func() bool { return !slices.Contains(n.homes(), offered) }) {
			t.Errorf("%s stays at home at a relay server that is withdrawn: %q\n%s", n.name, n.homes(), n.proc.Output())
		}
	}
	c.ping(b.ip4, settleTime)
}

// peer is what the node says about another; nil when it does not know it.
func (n *node) peer(to *node) *meshnet.PeerStatus {
	s := n.status()
	for i := range s.Peers {
		if text(s.Peers[i].Name) == to.name {
			return &s.Peers[i]
		}
	}
	return nil
}

// TestRelayCertificate gets the relay server's certificate from an authority, and nodes take it for what it is.
func TestRelayCertificate(t *testing.T) {
	pebble := tool(t, "pebble")
	const name = "relay.example.net"
	w := newWorld(t)
	inet := w.lab.Internet()
	host, office := inet.Public("relay"), inet.Public("authority")
	at := office.Card().Addr4()
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", host.Card().Addr4(), name)
	know := func(h *netlab.Host) {
		t.Helper()
		if err := h.Inside(func() error { return os.WriteFile("/etc/hosts", []byte(hosts), 0o644) }); err != nil {
			t.Fatal(err)
		}
	}
	know(office)
	ca := newAuthority(t)
	cert := ca.issue("pebble", at, time.Now().Add(time.Hour))
	conf := w.file(fmt.Sprintf(`{"pebble": {"listenAddress": "%[1]s:14000", "managementListenAddress": "%[1]s:15000",
		"certificate": %[2]q, "privateKey": %[2]q, "httpPort": 80, "tlsPort": 443}}`, at, cert))
	authority, err := office.Start(netlab.Proc{Path: pebble, Args: []string{"-config", conf}, Env: []string{"PEBBLE_VA_NOSLEEP=1"}})
	if err != nil {
		t.Fatal(err)
	}
	says(t, authority, "Management interface listening")
	s := w.serve(host, "acme", "--acme", name, "--acme-directory", fmt.Sprintf("https://%s:14000/dir", at), "--acme-ca", ca.file)
	if s.url != "https://"+name {
		t.Errorf("URL %s", s.url)
	}
	roots := w.file(get(t, web(office, ca.client()), fmt.Sprintf("https://%s:15000/roots/0", at)))
	a, b := w.on(inet.Site(netlab.UDPBlocked).Host("alice")), w.on(inet.Site(netlab.UDPBlocked).Host("bob"))
	know(a.host)
	know(b.host)
	a.up("--relay-server", s.url, "--relay-ca", roots)
	a.atHome(t, s.url)
	b.up("--join", "@"+a.invite(), "--relay-ca", roots)
	b.ping(a.ip4, settleTime)
	b.reaches(t, a, "relay")
}
