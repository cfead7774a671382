package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/localapi"
)

// forwarding is a pair behind two home routers, of which alice's lets in what it is told to:
//
//	alice 192.168.1.2 ── 192.168.1.1 router 5.5.5.1 ── wan ── 5.5.5.3 NAT 192.168.2.1 ── 192.168.2.2 bob
//
// The outside addresses look public, as miniupnpd gives no mapping of others. Nobody else is there.
type forwarding struct {
	*world
	a, b            *node
	router, out     *netlab.Host
	inside, outside *netlab.Iface // of alice's router
}

const meshPort = 41820

func newForwarding(t testing.TB, to ...netip.AddrPort) *forwarding {
	t.Helper()
	w := newWorld(t)
	lan, far, wan := w.lab.Switch("lan"), w.lab.Switch("far"), w.lab.Switch("wan")
	f := &forwarding{world: w, router: w.lab.Router("router"), out: w.lab.Host("out")}
	f.inside, f.outside = f.router.Plug(lan, "192.168.1.1/24"), f.router.Plug(wan, "5.5.5.1/24")
	f.out.Plug(wan, "5.5.5.2/24")
	nat := w.lab.Router("nat")
	nat.Plug(far, "192.168.2.1/24")
	nat.NAT(netlab.PortRestricted, nat.Plug(wan, "5.5.5.3/24"))
	f.a, f.b = w.plug(lan, "alice", "192.168.1.2/24"), w.plug(far, "bob", "192.168.2.2/24")
	f.a.host.DefaultRoute("192.168.1.1")
	f.b.host.DefaultRoute("192.168.2.1")
	if err := f.router.Do(func() error { return homeRouter(f.outside.Name(), to) }); err != nil {
		t.Fatal(err)
	}
	return f
}

// homeRouter sets up a router as for miniupnpd: masquerading, nothing unsolicited from outside, and the chains that the
// daemon fills. What comes from outside to the UDP port of the first address goes to the second, if there are two.
func homeRouter(outside string, forward []netip.AddrPort) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"})
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Table: table, Name: name, Type: typ, Hooknum: hook, Priority: prio})
	}
	rule := func(ch *nftables.Chain, exprs ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: exprs})
	}
	jump := func(to string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: to} }
	on := func(key expr.MetaKey) []expr.Any {
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, outside)
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
	}
	dropNew := append(on(expr.MetaKeyIIFNAME),
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW | expr.CtStateBitINVALID),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictDrop})
	for _, name := range []string{"miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"} {
		c.AddChain(&nftables.Chain{Table: table, Name: name})
	}
	pass := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	in := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	pre := chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	post := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	if len(forward) == 2 {
		rule(pre, append(on(expr.MetaKeyIIFNAME),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(forward[0].Port())},
			&expr.Immediate{Register: 1, Data: forward[1].Addr().AsSlice()},
			&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(forward[1].Port())},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2})...)
		rule(pass, &expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
				Mask: binaryutil.NativeEndian.PutUint32(1 << 5), // IPS_DST_NAT
			},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictAccept})
	}
	rule(pass, jump("miniupnpd"))
	rule(pass, dropNew...)
	rule(in, dropNew...)
	rule(pre, jump("prerouting_miniupnpd"))
	rule(post, jump("postrouting_miniupnpd"))
	rule(post, append(on(expr.MetaKeyOIFNAME), &expr.Masq{})...)
	return c.Flush()
}

// passes reports whether a datagram from a stranger outside comes to alice's host.
func (f *forwarding) passes(t testing.TB, to netip.AddrPort) bool {
	t.Helper()
	text := fmt.Sprintf("stranger %d", time.Now().UnixNano())
	capture := f.a.host.Capture(f.a.iface.Name())
	defer capture.Stop()
	pc, err := f.out.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return waitFor(time.Second, func() bool {
		if _, err := pc.WriteTo([]byte(text), net.UDPAddrFromAddrPort(to)); err != nil {
			t.Fatal(err)
		}
		return capture.Contains([]byte(text))
	})
}

// endpoint waits until the node has an address from a source, and returns it.
func (n *node) endpoint(t testing.TB, source string) (addr netip.AddrPort) {
	t.Helper()
	if !waitFor(settleTime, func() bool {
		s, err := asked(n, func(ctx context.Context, c *localapi.Client) (*meshnet.Status, error) { return c.Status(ctx) })
		if err != nil {
			return false
		}
		for _, e := range s.Self.Endpoints {
			if e.Source == source {
				addr = e.Addr
			}
		}
		return addr.IsValid()
	}) {
		t.Fatalf("%s has no endpoint by %s: %+v\n%s", n.name, source, n.status().Self.Endpoints, n.proc.Output())
	}
	return addr
}

// directBy waits until the path to another node is the direct one by an address.
func (n *node) directBy(t testing.TB, to *node, addr netip.AddrPort) {
	t.Helper()
	if !waitFor(settleTime, func() bool { p := n.path(to); return p.Kind == "direct" && text(p.Addr) == addr.String() }) {
		t.Errorf("path from %s: %+v, want %v\n%s", n.name, n.path(to), addr, n.why(to))
	}
}

// TestPortMapping has a real router open the port: a node elsewhere joins by that alone, and it is shut in the end.
func TestPortMapping(t *testing.T) {
	miniupnpd := tool(t, "miniupnpd")
	f := newForwarding(t)
	conf := f.file("ext_ifname=" + f.outside.Name() + "\nlistening_ip=" + f.inside.Name() + `
http_port=0
system_uptime=no
secure_mode=yes
min_lifetime=10
max_lifetime=86400
uuid=3ff8f0a4-b4ad-4c3a-9b4f-1b0f0c6d4f3e
enable_natpmp=yes
enable_upnp=yes
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`)
	daemon, err := f.router.Start(netlab.Proc{Path: miniupnpd, Args: []string{"-d", "-f", conf, "-P", filepath.Join(f.dir, "pid")}})
	if err != nil {
		t.Fatal(err)
	}
	says(t, daemon, "HTTP listening on port")
	says(t, daemon, "Listening for NAT-PMP/PCP traffic")
	outside := netip.MustParseAddrPort("5.5.5.1:41820")
	if f.passes(t, outside) {
		t.Fatal("the port is open before anything began")
	}
	f.a.up()
	if got := f.a.endpoint(t, "portmap"); got != outside {
		t.Fatalf("mapped to %v, want %v", got, outside)
	}
	if !f.passes(t, outside) {
		t.Error("the port is shut")
	}
	check := f.a.netcheck(t)
	if p := check.PortMap; p.External == nil || *p.External != outside || p.Protocol == nil {
		t.Errorf("netcheck: port mapping %+v", p)
	}
	f.b.up("--join", "@"+f.a.invite())
	f.b.ping(f.a.ip4, settleTime)
	f.a.ping(f.b.ip6, settleTime)
	f.b.directBy(t, f.a, outside)
	if p := f.b.netcheck(t).PortMap; p.External != nil {
		t.Errorf("netcheck of a node whose router maps nothing: %+v", p)
	}
	f.a.must("down")
	if err := f.a.proc.Wait(); err != nil {
		t.Fatal(err)
	}
	if f.passes(t, outside) {
		t.Error("the port stays open after the node has ended")
	}
}

// TestAdvertise tells others of a port that the router forwards, whatever number it has.
func TestAdvertise(t *testing.T) {
	outside := netip.MustParseAddrPort("5.5.5.1:5000")
	f := newForwarding(t, outside, netip.MustParseAddrPort("192.168.1.2:41820"))
	f.a.up("--portmap=false", "--advertise", outside.String())
	if got := f.a.endpoint(t, "static"); got != outside {
		t.Errorf("endpoint %v", got)
	}
	f.b.up("--join", "@"+f.a.invite())
	f.b.ping(f.a.ip4, settleTime)
	f.a.ping(f.b.ip6, settleTime)
	f.b.directBy(t, f.a, outside)
}

// TestObserved: a node that nobody but a member can tell its address learns it by one handshake, and a third one reaches
// it there.
func TestObserved(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	a := w.on(inet.Public("alice"))
	site := inet.Site(netlab.FullCone)
	b, c := w.on(site.Host("bob")), w.on(inet.Site(netlab.PortRestricted).Host("carol"))
	a.up()
	token := a.invite("--uses", "0")
	b.up("--join", "@"+token)
	want := netip.AddrPortFrom(site.Outside.Addr4(), meshPort)
	if got := b.endpoint(t, "peer"); got != want {
		t.Errorf("seen at %v, want %v", got, want)
	}
	c.up("--join", "@"+token)
	c.ping(b.ip4, settleTime)
	c.directBy(t, b, want)
	b.ping(c.ip4, settleTime)
}
