package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mainline "github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/bep44"
	"github.com/anacrolix/log"
	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/meshnet/meshnet/control/join"
	"github.com/meshnet/meshnet/internal/netlab"
)

// foundBar is how long a node may take from its start to the first reply when nothing but the link leads to the others.
const foundBar = 5 * time.Second

// seek are the flags of a node that finds members by one source alone, which its flags name.
func seek(flags ...string) []string {
	return append([]string{"--portmap=false"}, flags...)
}

// unaided is a node that finds nobody by itself.
var unaided = seek("--mdns=false")

// TestJoinOnLink has a token whose addresses lead nowhere any more, and no router: the joiner finds its way by mDNS.
func TestJoinOnLink(t *testing.T) {
	for _, family := range []struct{ name, founder, moved, joiner string }{
		{"IPv4", "192.168.7.1/24", "192.168.7.51/24", "192.168.7.2/24"},
		{"IPv6", "fd07::1/64", "fd07::51/64", "fd07::2/64"},
	} {
		t.Run(family.name, func(t *testing.T) {
			w := newWorld(t)
			lan := w.lab.Switch("lan")
			a := w.plug(lan, "alice", family.founder).up(seek()...)
			token := a.invite("--uses", "0")
			a.iface.SetAddr(family.moved)
			b := w.plug(lan, "bob", family.joiner)
			b.begin(append([]string{"--join", "@" + token, "--join-timeout", "3s"}, unaided...)...)
			if err := b.proc.Wait(); err == nil {
				t.Fatalf("the token leads to the founder: the test proves nothing\n%s", b.proc.Output())
			}
			begun := time.Now()
			b.begin(append([]string{"--join", "@" + token}, seek()...)...)
			b.awaitReady(settleTime)
			b.ping(a.ip4, settleTime)
			took := time.Since(begun)
			t.Logf("joined after %v, first reply after %v", b.ready, took)
			if took > guard*foundBar {
				t.Errorf("joined and pinging after %v", took)
			}
			a.ping(b.ip6, settleTime)
		})
	}
}

// TestFoundOnOtherLink moves a host to another LAN, where only mDNS leads to the member that is there.
func TestFoundOnOtherLink(t *testing.T) {
	w := newWorld(t)
	home, office := w.lab.Switch("home"), w.lab.Switch("office")
	a := w.plug(home, "alice", "192.168.7.1/24").up(seek()...)
	token := a.invite("--uses", "0")
	b := w.plug(home, "bob", "192.168.7.2/24").up(append(seek(), "--join", "@"+token)...)
	c := w.plug(home, "carol", "192.168.7.3/24").up(append(seek(), "--join", "@"+token)...)
	c.ping(b.ip4, settleTime)
	b.replug(office, "10.77.0.2/24")
	c.ping(a.ip4, settleTime)
	begun := time.Now()
	c.replug(office, "10.77.0.3/24")
	c.ping(b.ip4, settleTime)
	took := time.Since(begun)
	t.Logf("first reply %v after the move", took)
	if took > guard*foundBar {
		t.Errorf("first reply %v after the move", took)
	}
	b.ping(c.ip6, settleTime)
}

// replug takes a host to another switch, or to the same one, with another card and address.
func (n *node) replug(sw *netlab.Switch, addr string) {
	n.iface.Remove()
	n.iface = n.host.Plug(sw, addr)
}

// part has alice and bob meet, stop, and get addresses that the other one does not know.
func part(t *testing.T) (w *world, lan *netlab.Switch, a, b *node) {
	t.Helper()
	w, lan, a, b = acquainted(t)
	a.replug(lan, "192.168.7.51/24")
	b.replug(lan, "192.168.7.52/24")
	return w, lan, a, b
}

// acquainted has alice and bob meet, and stop.
func acquainted(t *testing.T) (w *world, lan *netlab.Switch, a, b *node) {
	t.Helper()
	w = newWorld(t)
	lan = w.lab.Switch("lan")
	a, b = w.plug(lan, "alice", "192.168.7.1/24"), w.plug(lan, "bob", "192.168.7.2/24")
	a.up(unaided...)
	b.up(append([]string{"--join", "@" + a.invite()}, unaided...)...)
	b.ping(a.ip4, settleTime)
	for _, n := range []*node{a, b} {
		if err := n.proc.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	return w, lan, a, b
}

// meet has both run and reach each other, and returns how long that took from bob's start.
func meet(t *testing.T, a, b *node, aFlags, bFlags []string) {
	t.Helper()
	a.up(aFlags...)
	begun := time.Now()
	b.up(bFlags...)
	b.ping(a.ip4, guard*foundBar)
	t.Logf("first reply %v after the start", time.Since(begun))
	a.ping(b.ip6, settleTime)
}

// TestSources: each source alone is enough.
func TestSources(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		_, _, a, b := part(t)
		a.up(unaided...)
		b.up(unaided...)
		if took, err := b.tryPing(a.ip4, 8*time.Second); err == nil {
			t.Fatalf("they meet after %v by nothing: the other tests prove nothing", took)
		}
	})
	t.Run("entry", func(t *testing.T) {
		_, _, a, b := part(t)
		meet(t, a, b, unaided, append(unaided, "--bootstrap", "192.168.7.99:41820", "--bootstrap", "192.168.7.51:41820"))
	})
	t.Run("file", func(t *testing.T) {
		w, _, a, b := part(t)
		file := w.file("# members\n192.168.7.99\n\nno entry at all !\n192.168.7.51:41820 # alice\n")
		meet(t, a, b, unaided, append(unaided, "--bootstrap-file", file))
	})
	t.Run("DNS", func(t *testing.T) {
		w, lan, a, b := part(t)
		ns := w.lab.Host("ns")
		ns.Plug(lan, "192.168.7.9/24")
		serveDNS(t, ns, "192.168.7.9:53", "_meshnet._udp.example.org. 60 IN SRV 1 1 41820 alice.example.org.",
			`_meshnet._udp.example.org. 60 IN TXT "a=192.168.7.99:41820"`, "alice.example.org. 60 IN A 192.168.7.51")
		resolveBy(t, b.host, "192.168.7.9")
		meet(t, a, b, unaided, append(unaided, "--bootstrap-dns", "example.org"))
	})
	t.Run("mDNS", func(t *testing.T) {
		_, _, a, b := part(t)
		meet(t, a, b, seek(), seek())
	})
	t.Run("DHT", func(t *testing.T) {
		w, lan, a, b := part(t)
		flags := append(unaided, "--dht", "--dht-bootstrap", w.dht(t, lan))
		meet(t, a, b, flags, flags)
	})
	t.Run("address book", func(t *testing.T) {
		_, _, a, b := acquainted(t)
		meet(t, a, b, unaided, unaided)
	})
}

// TestJoinByDHT has a token whose addresses lead nowhere any more, and no multicast: members leave word in the DHT.
func TestJoinByDHT(t *testing.T) {
	w := newWorld(t)
	lan := w.lab.Switch("lan")
	flags := append(unaided, "--dht", "--dht-bootstrap", w.dht(t, lan))
	a := w.plug(lan, "alice", "192.168.7.1/24").up(unaided...)
	token := a.invite("--uses", "0")
	if err := a.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	a.iface.SetAddr("192.168.7.51/24")
	a.up(flags...)
	b := w.plug(lan, "bob", "192.168.7.2/24")
	begun := time.Now()
	b.begin(append([]string{"--join", "@" + token}, flags...)...)
	b.awaitReady(3 * settleTime)
	t.Logf("joined after %v", time.Since(begun))
	b.ping(a.ip4, settleTime)
	if err := b.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(filepath.Join(b.state, "dht")); err != nil || len(kept) == 0 {
		t.Errorf("nodes of the DHT that were kept: %d bytes, %v", len(kept), err)
	}
}

// TestPoisonedList has a list full of addresses that are nobody's, the own one, and those inside: what it costs is bounded,
// and whoever comes by another way is met at once.
func TestPoisonedList(t *testing.T) {
	w, _, a, b := part(t)
	var text strings.Builder
	fmt.Fprintf(&text, "192.168.7.52:41820\n192.168.7.52:41820\n224.0.0.251:5353\n0.0.0.0:1\n%v:41820\n", a.ip4)
	for i := range 10_000 {
		fmt.Fprintf(&text, "192.168.%d.%d:%d\n", 8+i/250, 1+i%250, 1024+i)
	}
	b.host.DefaultRoute("192.168.7.51")
	capture := b.host.Capture(b.iface.Name())
	begun := time.Now()
	b.up(append(unaided, "--bootstrap-file", w.file(text.String()))...)
	rounds := `meshnet_bootstrap_events_total{event="rounds"}`
	if !waitFor(settleTime, func() bool { return parseSamples(t, b.must("metrics"))[rounds] >= 4 }) {
		t.Fatalf("no rounds:\n%s", b.must("metrics"))
	}
	seconds := time.Since(begun).Seconds()
	const ethernet, ipv4, overhead = 14, 20, 28
	intros, places := 0, make(map[netip.Addr]bool)
	for _, f := range capture.Packets() {
		if f.Outgoing && len(f.Data) >= ethernet+overhead+join.IntroSize && f.Data[12] == 8 && f.Data[13] == 0 {
			intros++
			places[netip.AddrFrom4([4]byte(f.Data[ethernet+ipv4-4:]))] = true
		}
	}
	t.Logf("%d datagrams of joining to %d addresses in %.1f s", intros, len(places), seconds)
	const burst, rate, each = 32, 3, 5 // as SECURITY.md says
	if most := burst + rate*seconds + rate; len(places) == 0 || float64(len(places)) > most || float64(intros) > each*most {
		t.Errorf("%d datagrams of joining to %d addresses in %.1f s", intros, len(places), seconds)
	}
	for _, bad := range []string{"192.168.7.52", "224.0.0.251", "0.0.0.0", a.ip4.String()} {
		if places[netip.MustParseAddr(bad)] {
			t.Errorf("asks at %s", bad)
		}
	}
	a.up(append(unaided, "--bootstrap", "192.168.7.52:41820")...)
	a.ping(b.ip4, guard*foundBar)
}

// TestAvahiSees has a real mDNS responder list the node while it runs, and no longer.
func TestAvahiSees(t *testing.T) {
	browse, daemon, bus := tool(t, "avahi-browse"), tool(t, "avahi-daemon"), tool(t, "dbus-daemon")
	w := newWorld(t)
	lan := w.lab.Switch("lan")
	other := w.lab.Host("other")
	other.Plug(lan, "192.168.7.9/24")
	if err := other.Inside(func() error { return os.MkdirAll("/run/dbus", 0o755) }); err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		path, ready string
		args        []string
	}{
		{bus, "unix:path=", []string{"--system", "--nofork", "--nopidfile", "--nosyslog", "--print-address"}},
		{daemon, "Server startup complete", []string{"--no-rlimits", "--no-chroot"}},
	} {
		proc, err := other.Start(netlab.Proc{Path: p.path, Args: p.args})
		if err != nil {
			t.Fatal(err)
		}
		says(t, proc, p.ready)
	}
	listed := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), settleTime)
		defer cancel()
		out, err := other.Run(ctx, browse, "-rtp", "_meshnet._udp")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	a := w.plug(lan, "alice", "192.168.7.1/24").up(seek()...)
	out := ""
	if !waitFor(settleTime, func() bool { out = listed(); return strings.Contains(out, ";192.168.7.1;41820;") }) {
		t.Fatalf("avahi lists:\n%s", out)
	}
	for _, told := range []string{"alice", a.status().Self.ID, *a.status().Network.Name} {
		if strings.Contains(out, told) {
			t.Errorf("the announcement tells %q:\n%s", told, out)
		}
	}
	a.must("down")
	if err := a.proc.Wait(); err != nil {
		t.Fatal(err)
	}
	if !waitFor(settleTime, func() bool { out = listed(); return out == "" }) {
		t.Errorf("after the end avahi lists:\n%s", out)
	}
}

// TestOtherNetworkOnLink: two networks share a LAN. What the other one announces is told by its tag, and costs nothing
// more.
func TestOtherNetworkOnLink(t *testing.T) {
	w := newWorld(t)
	nodes := w.lan("alice", "bob", "mallory")
	const metrics = "127.0.0.1:9100"
	a := nodes[0].up(seek("--metrics", metrics)...)
	b := nodes[1].up(append(seek(), "--join", "@"+a.invite())...)
	b.ping(a.ip4, settleTime)
	capture := a.host.Capture(a.iface.Name())
	other := nodes[2].up(seek()...)
	foreign := `meshnet_mdns_events_total{event="other_network"}`
	if !waitFor(settleTime, func() bool { return parseSamples(t, a.must("metrics"))[foreign] > 0 }) {
		t.Fatalf("%s did not hear the other network:\n%s", a.name, a.must("metrics"))
	}
	before := parseSamples(t, a.must("metrics"))
	other.proc.Signal(os.Interrupt) // says goodbye and comes back under other names
	if err := other.proc.Wait(); err != nil {
		t.Fatal(err)
	}
	other.up(seek()...)
	if !waitFor(settleTime, func() bool { return parseSamples(t, a.must("metrics"))[foreign] > before[foreign] }) {
		t.Fatal("the other network was not heard again")
	}
	after := parseSamples(t, a.must("metrics"))
	for name, v := range after {
		if strings.Contains(name, "intros_") && v != before[name] {
			t.Errorf("%s = %v, before %v", name, v, before[name])
		}
	}
	ip := other.iface.Addr4().As4()
	for _, f := range capture.Packets() {
		const ethernet, udp, mdnsPort = 14, 20, 5353
		if len(f.Data) < ethernet+udp+8 || f.Data[12] != 8 || f.Data[13] != 0 {
			continue
		}
		packet := f.Data[ethernet:]
		if f.Outgoing && [4]byte(packet[16:20]) == ip && packet[9] == 17 {
			t.Errorf("a datagram of %d bytes to the other network's node", len(packet))
		}
	}
}

// serveDNS answers for records at an address of a host.
func serveDNS(t *testing.T, h *netlab.Host, addr string, records ...string) {
	t.Helper()
	pc, err := h.ListenPacket("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	var all []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(out dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, rr := range all {
			if strings.EqualFold(rr.Header().Name, q.Question[0].Name) && rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = out.WriteMsg(m)
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.ActivateAndServe() })
	t.Cleanup(func() {
		_ = server.Shutdown()
		wg.Wait()
	})
}

// resolveBy has a host ask a name server.
func resolveBy(t *testing.T, h *netlab.Host, server string) {
	t.Helper()
	if err := h.Inside(func() error {
		return os.WriteFile("/etc/resolv.conf", []byte("nameserver "+server+"\n"), 0o644)
	}); err != nil {
		t.Fatal(err)
	}
}

// dht makes a DHT of eight nodes that know each other, and returns the address of one.
func (w *world) dht(t *testing.T, lan *netlab.Switch) string {
	t.Helper()
	const nodes = 8
	host := w.lab.Host("dht")
	var addrs []string
	for i := range nodes {
		addrs = append(addrs, fmt.Sprintf("192.168.7.%d/24", 100+i))
	}
	host.Plug(lan, addrs...)
	silent := log.NewLogger()
	silent.SetHandlers()
	var servers []*mainline.Server
	var at []netip.AddrPort
	for i := range nodes {
		pc, err := host.ListenPacket("udp4", fmt.Sprintf("192.168.7.%d:6881", 100+i))
		if err != nil {
			t.Fatal(err)
		}
		server, err := mainline.NewServer(&mainline.ServerConfig{
			Conn: pc, NoSecurity: true, Store: bep44.NewMemory(), Exp: time.Hour, SendLimiter: rate.NewLimiter(rate.Inf, 1),
			Logger: silent,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		servers, at = append(servers, server), append(at, pc.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() {
			for j, to := range at {
				if i == j {
					continue
				}
				res := server.PingQueryInput(net.UDPAddrFromAddrPort(to), mainline.QueryInput{NumTries: 3})
				if res.Err != nil {
					t.Errorf("node %d of the DHT did not answer node %d: %v", j, i, res.Err)
				}
			}
		})
	}
	wg.Wait()
	return at[0].String()
}
