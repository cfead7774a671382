package linux

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/platform"
)

// freshNamespace moves the test's thread into a network of its own; the thread dies with the test.
func freshNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("MESHNET_CI") == "1" {
			t.Fatal("needs root for a network namespace")
		}
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		if os.Getenv("MESHNET_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip("no network namespace: ", err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tun(t *testing.T, name string, nonPersist bool) *netlink.Tuntap {
	t.Helper()
	l := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE, NonPersist: nonPersist, Queues: 1,
	}
	must(t, netlink.LinkAdd(l))
	return l
}

// ethernet is a link that is up: an end of a pair, whose other end is up too.
func ethernet(t *testing.T, name string, addrs ...string) netlink.Link {
	t.Helper()
	l := &netlink.Veth{PeerName: name + "-peer", LinkAttrs: netlink.LinkAttrs{Name: name}}
	must(t, netlink.LinkAdd(l))
	peer, err := netlink.LinkByName(l.PeerName)
	must(t, err)
	must(t, netlink.LinkSetUp(peer))
	must(t, netlink.LinkSetUp(l))
	for _, s := range addrs {
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(s))}))
	}
	return l
}

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// state is what the interface has: addresses but for link-local ones, and unicast routes.
func state(t *testing.T, s *System, name string) (l platform.Link, addrs, routes []string) {
	t.Helper()
	host, err := s.Snapshot()
	must(t, err)
	for _, link := range host.Links {
		if link.Name == name {
			l = link
		}
	}
	for _, a := range l.Addrs {
		if !a.Addr().IsLinkLocalUnicast() {
			addrs = append(addrs, a.String())
		}
	}
	for _, r := range host.Routes {
		if r.Link == name && r.Prefix != netip.MustParsePrefix("fe80::/64") {
			routes = append(routes, r.Prefix.String())
		}
	}
	slices.Sort(addrs)
	slices.Sort(routes)
	return l, addrs, routes
}

func TestApply(t *testing.T) {
	freshNamespace(t)
	if l := tun(t, "meshnet0", true); l.Fds != nil {
		defer l.Fds[0].Close()
	}
	s := New(nil)
	want := func(step string, mtu int, up bool, addrs, routes []string) {
		t.Helper()
		l, a, r := state(t, s, "meshnet0")
		if l.MTU != mtu || l.Up != up || !slices.Equal(a, addrs) || !slices.Equal(r, routes) {
			t.Fatalf("%s: %+v\naddrs  %v\nroutes %v", step, l, a, r)
		}
	}
	d := platform.Desired{
		Interface: "meshnet0", MTU: 1280,
		Addrs:  prefixes("100.88.3.4/16", "fd00:1:0:1::5/64"),
		Routes: prefixes("100.88.0.0/16", "fd00:1::/48"),
	}
	for range 2 { // the second time it finds everything done
		must(t, s.Apply(d))
		want("applied", 1280, true, []string{"100.88.3.4/16", "fd00:1:0:1::5/64"}, []string{"100.88.0.0/16", "fd00:1::/48"})
	}
	if l, _, _ := state(t, s, "meshnet0"); !l.Tunnel() || l.Kind != "tun" {
		t.Errorf("not seen as a tunnel: %+v", l)
	}

	// Another address of the same subnet, one more route, and a route that is not ours.
	link, err := netlink.LinkByName("meshnet0")
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("192.0.2.0/24")), Scope: netlink.SCOPE_LINK}))
	d.MTU, d.Addrs = 1380, prefixes("100.88.3.5/16", "100.88.3.6/32")
	d.Routes = prefixes("100.88.0.0/16", "10.20.0.0/16", "2001:db8::/32")
	must(t, s.Apply(d))
	want("changed", 1380, true, []string{"100.88.3.5/16", "100.88.3.6/32"},
		[]string{"10.20.0.0/16", "100.88.0.0/16", "192.0.2.0/24", "2001:db8::/32"})

	// The primary address goes; the kernel takes the others of its subnet along, which must come back.
	d.Addrs = prefixes("100.88.3.5/16", "100.88.3.7/16")
	must(t, s.Apply(d))
	d.Addrs = prefixes("100.88.3.7/16")
	must(t, s.Apply(d))
	_, addrs, _ := state(t, s, "meshnet0")
	if !slices.Equal(addrs, []string{"100.88.3.7/16"}) {
		t.Fatalf("after the primary went: %v", addrs)
	}

	must(t, s.Clear())
	want("cleared", 1380, false, nil, nil)
	must(t, s.Clear())
	must(t, netlink.LinkDel(link))
	must(t, s.Clear()) // nothing left to clear
	if err := s.Apply(d); err == nil {
		t.Error("applied to an interface that is not there")
	}
}

func TestApplyWithoutIPv6(t *testing.T) {
	freshNamespace(t)
	for _, f := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+f+"/disable_ipv6", []byte("1"), 0o644); err != nil {
			t.Skip("cannot disable ipv6: ", err)
		}
	}
	ethernet(t, "meshnet0")
	s := New(nil)
	d := platform.Desired{Interface: "meshnet0", Addrs: prefixes("100.88.0.5/16", "fd00::1/64"), Routes: prefixes("100.88.0.0/16", "fd00::/48")}
	must(t, s.Apply(d))
	if _, addrs, routes := state(t, s, "meshnet0"); len(addrs) != 1 || len(routes) != 1 {
		t.Errorf("addrs %v, routes %v", addrs, routes)
	}
	if !has(s.Problems(d, 0), "ipv6_disabled") {
		t.Error("no ipv6_disabled")
	}
}

func has(problems []platform.Problem, code string) bool {
	return slices.ContainsFunc(problems, func(p platform.Problem) bool {
		return p.Code == code && p.Text != "" && p.Hint != "" && p.Severity != ""
	})
}

func TestSnapshot(t *testing.T) {
	freshNamespace(t)
	eth := ethernet(t, "eth0", "192.168.7.2/24")
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: netip.MustParseAddr("192.168.7.1").AsSlice()}))
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Table: 52, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.MustParsePrefix("100.100.100.100/32"))}))
	l, addrs, routes := state(t, New(nil), "eth0")
	if !l.Up || l.Loopback || l.Kind != "veth" || l.MTU != 1500 || !slices.Equal(addrs, []string{"192.168.7.2/24"}) {
		t.Errorf("%+v", l)
	}
	if want := []string{"0.0.0.0/0", "100.100.100.100/32", "192.168.7.0/24"}; !slices.Equal(routes, want) {
		t.Errorf("routes %v, want %v", routes, want)
	}
	if lo, _, _ := state(t, New(nil), "lo"); !lo.Loopback || lo.Up {
		t.Errorf("lo: %+v", lo)
	}
}

func TestWatch(t *testing.T) {
	ns := freshNamespace(t)
	eth := ethernet(t, "eth0", "192.168.7.2/24")
	own := ethernet(t, "meshnet0")
	s := New(nil)
	d := platform.Desired{Interface: "meshnet0", Addrs: prefixes("100.88.0.5/16"), Routes: prefixes("100.88.0.0/16")}
	must(t, s.Apply(d))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed, ended, began := make(chan time.Time, 100), make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			ended <- err
			return
		}
		close(began)
		ended <- s.Watch(ctx, func() { changed <- time.Now() })
	}()
	<-began
	add := func(l netlink.Link, a string) {
		t.Helper()
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a))}))
	}
	expect := func(what string, within time.Duration) {
		t.Helper()
		select {
		case <-changed:
		case err := <-ended:
			t.Fatalf("%s: watch ended: %v", what, err)
		case <-time.After(within):
			t.Fatalf("%s: not told within %v", what, within)
		}
	}
	// The subscription may come after the first change: change until it is seen.
	for i, seen := 10, false; !seen && i < 60; i++ {
		add(eth, netip.AddrFrom4([4]byte{192, 168, byte(i), 2}).String()+"/24")
		select {
		case <-changed:
			seen = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	settle(changed)
	add(eth, "192.168.200.2/24")
	expect("an address", 3*platform.QuietTime)
	add(eth, "192.168.201.2/24")
	must(t, netlink.LinkSetDown(eth))
	must(t, netlink.LinkSetUp(eth))
	expect("a burst", 3*platform.QuietTime)
	settle(changed)

	add(own, "100.88.0.6/16")
	must(t, s.Apply(d))
	must(t, netlink.LinkSetMTU(own, 1400))
	must(t, netlink.AddrReplace(eth, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.168.200.2/24")), ValidLft: 3000, PreferedLft: 3000}))
	select {
	case <-changed:
		t.Error("told of its own interface, or of a renewed lease")
	case <-time.After(2 * platform.QuietTime):
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
}

// settle waits until nothing was told for longer than a burst lasts.
func settle(changed <-chan time.Time) {
	for {
		select {
		case <-changed:
		case <-time.After(platform.QuietTime + platform.QuietTime/2):
			return
		}
	}
}

func TestCleanLeftovers(t *testing.T) {
	freshNamespace(t)
	s := New(nil)
	exists := func(name string) bool {
		_, err := netlink.LinkByName(name)
		return err == nil
	}
	must(t, s.CleanLeftovers("meshnet0")) // nothing there

	ethernet(t, "meshnet1")
	must(t, s.CleanLeftovers("meshnet1"))
	if !exists("meshnet1") {
		t.Error("removed a link that is no TUN")
	}
	live := tun(t, "meshnet2", false)
	must(t, netlink.LinkSetUp(live))
	must(t, s.CleanLeftovers("meshnet2"))
	if !exists("meshnet2") {
		t.Error("removed a TUN that is in use")
	}
	for _, f := range live.Fds {
		f.Close()
	}
	must(t, s.CleanLeftovers("meshnet2"))
	if exists("meshnet2") {
		t.Error("kept a left-over")
	}
}

func TestProblems(t *testing.T) {
	freshNamespace(t)
	ethernet(t, "eth0", "192.168.7.2/24", "100.88.9.1/24")
	ethernet(t, "meshnet0")
	s := New(nil)
	d := platform.Desired{Interface: "meshnet0", Addrs: prefixes("100.88.0.5/16"), Routes: prefixes("100.88.0.0/16")}
	got := s.Problems(d, 41820)
	if !has(got, "route_overlap") || has(got, "firewall_interface") || has(got, "firewall_port") {
		t.Errorf("without firewall: %+v", got)
	}
	conn, err := nftables.New()
	must(t, err)
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"})
	drop := nftables.ChainPolicyDrop
	input := conn.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	accept := func(exprs ...expr.Any) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: append(exprs, &expr.Verdict{Kind: expr.VerdictAccept})})
	}
	accept(established()...)
	accept(fromLink("lo")...)
	accept(toPort(unix.IPPROTO_TCP, 22)...)
	if err := conn.Flush(); err != nil {
		t.Skip("no nf_tables here: ", err)
	}
	got = s.Problems(d, 41820)
	if !has(got, "firewall_interface") || !has(got, "firewall_port") {
		t.Errorf("policy drop: %+v", got)
	}
	accept(fromLink("meshnet0")...)
	ports := &nftables.Set{Table: table, Anonymous: true, Constant: true, KeyType: nftables.TypeInetService}
	must(t, conn.AddSet(ports, []nftables.SetElement{{Key: port(53)}, {Key: port(41820)}}))
	accept(toPortOf(ports)...)
	must(t, conn.Flush())
	got = s.Problems(d, 41820)
	if has(got, "firewall_interface") || has(got, "firewall_port") {
		t.Errorf("accepted: %+v", got)
	}
	if got = s.Problems(d, 41821); !has(got, "firewall_port") {
		t.Errorf("another port: %+v", got)
	}
}
