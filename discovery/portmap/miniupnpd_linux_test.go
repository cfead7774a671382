package portmap

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/netlab"
)

// home is a network behind a real router: miniupnpd with the kernel's NAT.
//
//	in 192.168.1.2 ── lan ── 192.168.1.1 router 5.5.5.1 ── wan ── out 5.5.5.2
//
// The outside addresses look public: miniupnpd gives no mapping of others.
type home struct {
	in, router, out *netlab.Host
	daemon          *netlab.Process
	bin, conf       string
}

func newHome(t *testing.T, options ...string) *home {
	t.Helper()
	bin, err := exec.LookPath("miniupnpd")
	netlab.Need(t, err == nil, "needs miniupnpd")
	lab := netlab.New(t)
	lan, wan := lab.Switch("lan"), lab.Switch("wan")
	h := &home{bin: bin, in: lab.Host("in"), router: lab.Router("router"), out: lab.Host("out")}
	h.in.Plug(lan, "192.168.1.2/24")
	inside := h.router.Plug(lan, "192.168.1.1/24")
	outside := h.router.Plug(wan, "5.5.5.1/24")
	h.out.Plug(wan, "5.5.5.2/24")
	h.in.DefaultRoute("192.168.1.1")
	if err := h.router.Do(func() error { return firewall(outside.Name()) }); err != nil {
		t.Fatal(err)
	}
	h.conf = filepath.Join(t.TempDir(), "miniupnpd.conf")
	conf := append([]string{
		"ext_ifname=" + outside.Name(), "listening_ip=" + inside.Name(), "http_port=0", "system_uptime=no",
		"secure_mode=yes", "min_lifetime=10", "max_lifetime=86400", "uuid=3ff8f0a4-b4ad-4c3a-9b4f-1b0f0c6d4f3e",
		"allow 1024-65535 192.168.1.0/24 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535",
	}, options...)
	if err := os.WriteFile(h.conf, []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	return h
}

// start runs the daemon and waits until it serves.
func (h *home) start(t *testing.T) {
	t.Helper()
	var err error
	pid := filepath.Join(t.TempDir(), "pid")
	h.daemon, err = h.router.Start(netlab.Proc{Path: h.bin, Args: []string{"-d", "-f", h.conf, "-P", pid}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conf, err := os.ReadFile(h.conf)
	if err != nil {
		t.Fatal(err)
	}
	for option, text := range map[string]string{
		"enable_upnp=yes": "HTTP listening on port", "enable_natpmp=yes": "Listening for NAT-PMP/PCP traffic",
	} {
		if !strings.Contains(string(conf), option) {
			continue
		}
		if err := h.daemon.WaitOutput(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
}

var daemonChains = []string{"miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"}

// firewall is what a distribution sets up for miniupnpd: masquerading, nothing unsolicited from outside, and the chains
// that the daemon fills.
func firewall(outside string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"})
	chain := func(name string) {
		c.AddChain(&nftables.Chain{Table: table, Name: name})
	}
	base := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Table: table, Name: name, Type: typ, Hooknum: hook, Priority: prio})
	}
	rule := func(ch *nftables.Chain, exprs ...[]expr.Any) {
		var all []expr.Any
		for _, e := range exprs {
			all = append(all, e...)
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: all})
	}
	verdict := func(kind expr.VerdictKind, to string) []expr.Any {
		return []expr.Any{&expr.Verdict{Kind: kind, Chain: to}}
	}
	iface := func(key expr.MetaKey) []expr.Any {
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, outside)
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
	}
	unsolicited := []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW | expr.CtStateBitINVALID),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
	for _, name := range daemonChains {
		chain(name)
	}
	in, out := iface(expr.MetaKeyIIFNAME), iface(expr.MetaKeyOIFNAME)
	forward := base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(forward, verdict(expr.VerdictJump, "miniupnpd"))
	rule(forward, in, unsolicited, verdict(expr.VerdictDrop, ""))
	input := base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	rule(input, in, unsolicited, verdict(expr.VerdictDrop, ""))
	pre := base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	rule(pre, verdict(expr.VerdictJump, "prerouting_miniupnpd"))
	post := base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	rule(post, verdict(expr.VerdictJump, "postrouting_miniupnpd"))
	rule(post, out, []expr.Any{&expr.Masq{}})
	return c.Flush()
}

// forget empties the daemon's chains.
func forget() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"}
	for _, name := range daemonChains {
		c.FlushChain(&nftables.Chain{Table: table, Name: name})
	}
	return c.Flush()
}

// running is a Mapper of the host inside, under way.
type running struct {
	*Mapper
	changed chan netip.AddrPort
	stop    func()
}

const insidePort = 41820

func (h *home) mapper(t *testing.T, change func(*Config)) *running {
	t.Helper()
	r := &running{changed: make(chan netip.AddrPort, 16)}
	cfg := Config{
		Port: func() uint16 { return insidePort },
		Gateways: func() (gws []Gateway) {
			_ = h.in.Do(func() error {
				gws = Gateways()
				return nil
			})
			return gws
		},
		Listen: h.in.ListenPacket, Dial: h.in.Dial,
		Changed: func(a netip.AddrPort) { r.changed <- a },
		Logger:  slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	r.Mapper = New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	r.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(r.stop)
	return r
}

func (r *running) next(t *testing.T) netip.AddrPort {
	t.Helper()
	select {
	case a := <-r.changed:
		return a
	case <-time.After(10 * time.Second):
		t.Fatalf("no change; status %+v", r.Status())
		return netip.AddrPort{}
	}
}

// reaches reports whether a datagram from outside comes through the mapping.
func (h *home) reaches(t *testing.T, sock, from net.PacketConn, external netip.AddrPort) bool {
	t.Helper()
	text := fmt.Sprintf("hello %d", time.Now().UnixNano())
	for range 3 {
		if _, err := from.WriteTo([]byte(text), net.UDPAddrFromAddrPort(external)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for {
			if err := sock.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			n, _, err := sock.ReadFrom(buf)
			if err != nil {
				break
			}
			if string(buf[:n]) == text {
				return true
			}
		}
	}
	return false
}

func (h *home) sockets(t *testing.T) (in, out net.PacketConn) {
	t.Helper()
	in, err := h.in.ListenPacket("udp4", fmt.Sprintf(":%d", insidePort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	out, err = h.out.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return in, out
}

// without is a socket that does not send packets of a version to port 5351.
type without struct {
	net.PacketConn
	version byte
}

func (w without) WriteTo(b []byte, to net.Addr) (int, error) {
	if addrPort(to).Port() == serverPort && b[0] == w.version {
		return len(b), nil
	}
	return w.PacketConn.WriteTo(b, to)
}

// Each of the protocols makes a mapping that works, and gives it back.
func TestMiniupnpd(t *testing.T) {
	for _, tt := range []struct {
		protocol Protocol
		options  []string
		mute     int // a version of port 5351's protocols that is not spoken; -1: all are
	}{
		{PCP, []string{"enable_natpmp=yes", "enable_upnp=yes"}, -1},
		{NATPMP, []string{"enable_natpmp=yes", "enable_upnp=no"}, pcpVersion},
		{UPnP, []string{"enable_natpmp=no", "enable_upnp=yes"}, -1},
		{UPnP, []string{"enable_natpmp=no", "enable_upnp=yes", "force_igd_desc_v1=yes"}, -1},
	} {
		t.Run(string(tt.protocol), func(t *testing.T) {
			t.Parallel()
			h := newHome(t, tt.options...)
			in, out := h.sockets(t)
			start := time.Now()
			r := h.mapper(t, func(c *Config) {
				c.Listen = func(network, addr string) (net.PacketConn, error) {
					pc, err := h.in.ListenPacket(network, addr)
					if err != nil || tt.mute < 0 {
						return pc, err
					}
					return without{pc, byte(tt.mute)}, nil
				}
			})
			external := r.next(t)
			t.Logf("%s: %v after %v", tt.protocol, external, time.Since(start))
			if external != netip.MustParseAddrPort("5.5.5.1:41820") {
				t.Errorf("external = %v", external)
			}
			if s := r.Status(); s.Protocol != tt.protocol || s.Gateway.String() != "192.168.1.1" {
				t.Errorf("status %+v", s)
			}
			if !h.reaches(t, in, out, external) {
				t.Error("nothing comes through")
			}
			start = time.Now()
			r.stop()
			if took := time.Since(start); took > 1500*time.Millisecond {
				t.Errorf("ending took %v", took)
			}
			if h.reaches(t, in, out, external) {
				t.Error("it still comes through after the end")
			}
		})
	}
}

// What the router answers to all three is told.
func TestMiniupnpdStatus(t *testing.T) {
	t.Parallel()
	h := newHome(t, "enable_natpmp=yes", "enable_upnp=yes")
	r := h.mapper(t, nil)
	r.next(t)
	deadline := time.Now().Add(5 * time.Second)
	for s := r.Status(); s.PCP == nil || s.NATPMP == nil || s.UPnP == nil; s = r.Status() {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", s)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s := r.Status(); !*s.PCP || !*s.NATPMP || !*s.UPnP {
		t.Errorf("pcp %v, nat-pmp %v, upnp %v", *s.PCP, *s.NATPMP, *s.UPnP)
	}
}

// The router grants twenty seconds at a time: without renewals nothing would come through after half a minute.
func TestMiniupnpdRenewal(t *testing.T) {
	for _, tt := range []struct {
		protocol Protocol
		mute     byte
	}{{PCP, 99}, {NATPMP, pcpVersion}} {
		t.Run(string(tt.protocol), func(t *testing.T) {
			t.Parallel()
			h := newHome(t, "enable_natpmp=yes", "enable_upnp=no", "max_lifetime=20")
			in, _ := h.sockets(t)
			r := h.mapper(t, func(c *Config) {
				c.Listen = func(network, addr string) (net.PacketConn, error) {
					pc, err := h.in.ListenPacket(network, addr)
					return without{pc, tt.mute}, err
				}
			})
			external := r.next(t)
			for start := time.Now(); time.Since(start) < 32*time.Second; {
				// A new sender each time: what the router's connection tracking lets in is not asked.
				from, err := h.out.ListenPacket("udp4", ":0")
				if err != nil {
					t.Fatal(err)
				}
				if !h.reaches(t, in, from, external) {
					t.Fatalf("nothing comes through %v after mapping by %s", time.Since(start), r.Status().Protocol)
				}
				from.Close()
				select {
				case a := <-r.changed:
					t.Fatalf("changed to %v", a)
				case <-time.After(time.Second):
				}
			}
		})
	}
}

// A router that restarts says so, and is asked again at once.
func TestMiniupnpdRestart(t *testing.T) {
	t.Parallel()
	h := newHome(t, "enable_natpmp=yes", "enable_upnp=no")
	in, out := h.sockets(t)
	r := h.mapper(t, nil)
	external := r.next(t)
	<-time.After(4 * time.Second) // for the router's clock to have something to forget
	if err := h.daemon.Stop(); err != nil {
		t.Logf("daemon: %v", err)
	}
	if err := h.router.Do(forget); err != nil {
		t.Fatal(err)
	}
	h.router.ForgetFlows()
	if h.reaches(t, in, out, external) {
		t.Fatal("the mapping outlives the restart")
	}
	h.start(t)
	deadline := time.Now().Add(10 * time.Second)
	start := time.Now()
	for !h.reaches(t, in, out, external) {
		if time.Now().After(deadline) {
			t.Fatalf("it is not mapped again; status %+v", r.Status())
		}
	}
	t.Logf("mapped again after %v", time.Since(start))
}
