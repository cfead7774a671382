package discovery

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/netmap"
)

// stunWorld is a host behind a router, with a STUN server of two addresses outside.
//
//	in 192.168.1.2 ── lan ── 192.168.1.1 router 198.51.100.1 ── wan ── 198.51.100.2 and .3 server
type stunWorld struct {
	in, router, server *netlab.Host
	outside            *netlab.Iface
	log                *netlab.Process
}

func newSTUNWorld(t *testing.T) *stunWorld {
	t.Helper()
	bin, err := exec.LookPath("turnserver")
	netlab.Need(t, err == nil, "needs coturn's turnserver")
	lab := netlab.New(t)
	lan, wan := lab.Switch("lan"), lab.Switch("wan")
	w := &stunWorld{in: lab.Host("in"), router: lab.Router("router"), server: lab.Host("server")}
	w.in.Plug(lan, "192.168.1.2/24", "fd01::2/64")
	w.router.Plug(lan, "192.168.1.1/24", "fd01::1/64")
	w.outside = w.router.Plug(wan, "198.51.100.1/24", "fd02::1/64")
	w.server.Plug(wan, "198.51.100.2/24", "198.51.100.3/24", "fd02::2/64")
	w.in.DefaultRoute("192.168.1.1")
	w.in.DefaultRoute("fd01::1")
	w.server.Route("192.168.1.0/24", "198.51.100.1") // for a router that does not translate
	w.server.DefaultRoute("fd02::1")
	dir := t.TempDir()
	w.log, err = w.server.Start(netlab.Proc{Path: bin, Dir: dir, Args: []string{
		"-n", "--stun-only", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log",
		"--pidfile=" + filepath.Join(dir, "pid"), "--userdb=" + filepath.Join(dir, "db"), "--realm=test",
		"--listening-ip=198.51.100.2", "--listening-ip=198.51.100.3", "--listening-ip=fd02::2",
		"--listening-port=3478", "--alt-listening-port=3479", "--relay-threads=1",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// ready waits until the server answers on all its IPv4 addresses and ports.
func (w *stunWorld) ready(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// It says so last, and never answers a client that was there before.
	if err := w.log.WaitOutput(ctx, "DB connection success"); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"198.51.100.2:3478", "198.51.100.2:3479", "198.51.100.3:3478", "198.51.100.3:3479"} {
		for !w.answers(t, netip.MustParseAddrPort(at)) {
			if ctx.Err() != nil {
				t.Fatalf("no answer from %s", at)
			}
		}
	}
}

// answers asks once, by a new socket.
func (w *stunWorld) answers(t *testing.T, at netip.AddrPort) bool {
	t.Helper()
	pc, err := w.server.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, err := pc.WriteTo(bindingRequest(newTxID(), 0), net.UDPAddrFromAddrPort(at)); err != nil {
		t.Fatal(err)
	}
	if err := pc.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, _, err = pc.ReadFrom(make([]byte, 1500))
	return err == nil
}

// check makes a full report from the host inside.
func (w *stunWorld) check(t *testing.T, servers ...string) Report {
	t.Helper()
	pc, err := w.in.ListenPacket("udp", ":41820")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	rep := NewReporter(Config{
		Send: func(to netip.AddrPort, pkt []byte) { _, _ = pc.WriteTo(pkt, net.UDPAddrFromAddrPort(to)) },
		Open: func() (net.PacketConn, error) { return w.in.ListenPacket("udp", ":0") },
		Servers: func() []string {
			return servers
		},
		Local: func() []netip.AddrPort {
			return []netip.AddrPort{netip.MustParseAddrPort("192.168.1.2:41820"), netip.MustParseAddrPort("[fd01::2]:41820")}
		},
	})
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			rep.HandleSTUN(from.(*net.UDPAddr).AddrPort(), buf[:n])
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = rep.Run(ctx) }()
	start := time.Now()
	r, err := rep.Check(ctx)
	if took := time.Since(start); err != nil || took > 5*time.Second {
		t.Errorf("check: %v after %v", err, took)
	}
	return r
}

// A foreign server tells every kind of NAT, and what is none.
func TestCoturn(t *testing.T) {
	nat := func(kind netlab.Kind) func(*stunWorld) {
		return func(w *stunWorld) { w.router.NAT(kind, w.outside) }
	}
	for _, tt := range []struct {
		name      string
		router    func(*stunWorld)
		mapped    string // "": any port of the router
		mapping   Mapping
		filtering Filtering
		nat       netmap.NAT
		hairpin   string
	}{
		{"no NAT", func(*stunWorld) {}, "192.168.1.2:41820", MappingNone, FilteringIndependent, netmap.NATNone, "unknown"},
		{
			"firewall", func(w *stunWorld) { w.router.Firewall(w.outside) },
			"192.168.1.2:41820", MappingNone, FilteringAddressAndPort, netmap.NATNone, "unknown",
		},
		{"full cone", nat(netlab.FullCone), "198.51.100.1:41820", MappingIndependent, FilteringIndependent, netmap.NATEasy, "no"},
		{
			"address-restricted", nat(netlab.AddressRestricted),
			"198.51.100.1:41820", MappingIndependent, FilteringAddress, netmap.NATEasy, "no",
		},
		{
			"port-restricted", nat(netlab.PortRestricted),
			"198.51.100.1:41820", MappingIndependent, FilteringAddressAndPort, netmap.NATEasy, "no",
		},
		{
			"port-restricted with hairpin", func(w *stunWorld) {
				w.router.NAT(netlab.PortRestricted, w.outside)
				w.router.Hairpin()
			},
			"198.51.100.1:41820", MappingIndependent, FilteringAddressAndPort, netmap.NATEasy, "yes",
		},
		{"symmetric", nat(netlab.Symmetric), "", MappingAddressAndPort, FilteringAddressAndPort, netmap.NATHard, "no"},
		{"UDP blocked", func(w *stunWorld) { w.router.BlockUDP() }, "invalid AddrPort", "", "", netmap.NATBlocked, "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newSTUNWorld(t)
			w.ready(t)
			tt.router(w)
			r := w.check(t, "198.51.100.2:3478")
			t.Logf("took %v", r.Took)
			if r.Mapping != tt.mapping || r.Filtering != tt.filtering || r.NAT != tt.nat || r.UDP != (tt.nat != netmap.NATBlocked) {
				t.Errorf("udp %v, mapping %q, filtering %q, nat %d", r.UDP, r.Mapping, r.Filtering, r.NAT)
			}
			if tt.mapped == "" && r.IPv4.Addr() != w.outside.Addr() || tt.mapped != "" && r.IPv4.String() != tt.mapped {
				t.Errorf("mapped %v, want %q", r.IPv4, tt.mapped)
			}
			hairpin := "unknown"
			if r.Hairpin != nil {
				hairpin = map[bool]string{true: "yes", false: "no"}[*r.Hairpin]
			}
			if hairpin != tt.hairpin {
				t.Errorf("hairpin %s, want %s", hairpin, tt.hairpin)
			}
		})
	}
}

// IPv6 beside a NAT: both families are told, and it is IPv4 that has the NAT.
func TestCoturnIPv6(t *testing.T) {
	t.Parallel()
	w := newSTUNWorld(t)
	w.ready(t)
	w.router.NAT(netlab.Symmetric, w.outside)
	r := w.check(t, "198.51.100.2:3478", "[fd02::2]:3478", "198.51.100.77:3478")
	if r.IPv6 != netip.MustParseAddrPort("[fd01::2]:41820") || r.IPv4.Addr() != w.outside.Addr() || r.NAT != netmap.NATHard {
		t.Errorf("got %+v", r)
	}
	if len(r.STUN) != 3 || r.STUN[2].Err != "no answer within 3s" || r.STUN[1].Err != "" || r.STUN[1].Latency <= 0 {
		t.Errorf("servers: %+v", r.STUN)
	}
	r = w.check(t, "[fd02::2]:3478")
	if r.IPv6 != netip.MustParseAddrPort("[fd01::2]:41820") || r.IPv4.IsValid() || r.NAT != netmap.NATNone || !r.UDP {
		t.Errorf("alone: %+v", r)
	}
}
