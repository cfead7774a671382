package discovery

import (
	"context"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

func has(o *Own, addr string) bool {
	for _, e := range o.Endpoints() {
		if e.Addr == netip.MustParseAddrPort(addr) {
			return true
		}
	}
	return false
}

func TestBelief(t *testing.T) {
	o := NewOwn(nil)
	seen := netip.MustParseAddrPort("203.0.113.1:5000")
	o.Observed(identity.PeerID{1}, seen, false)
	if !has(o, "203.0.113.1:5000") {
		t.Error("with few members one's word counts")
	}
	o.Observed(identity.PeerID{2}, netip.MustParseAddrPort("203.0.113.2:1"), false)
	o.Observed(identity.PeerID{3}, netip.MustParseAddrPort("203.0.113.3:1"), false)
	if has(o, "203.0.113.1:5000") || has(o, "203.0.113.2:1") {
		t.Error("with three members, one's word does not count")
	}
	o.Observed(identity.PeerID{3}, seen, false)
	if !has(o, "203.0.113.1:5000") || has(o, "203.0.113.2:1") {
		t.Error("two that agree count, and only they")
	}
	o.Observed(identity.PeerID{2}, netip.MustParseAddrPort("203.0.113.2:1"), true)
	if !has(o, "203.0.113.2:1") {
		t.Error("an admin's word counts alone")
	}
	o.Forget(identity.PeerID{2})
	o.Forget(identity.PeerID{3})
	o.Forget(identity.PeerID{1})
	if len(o.Endpoints()) != 0 {
		t.Errorf("endpoints = %v", o.Endpoints())
	}
	o.Observed(identity.PeerID{2}, netip.MustParseAddrPort("127.0.0.1:1"), true)
	if len(o.Endpoints()) != 0 {
		t.Error("a loopback address that a member saw is of no use to others")
	}
}

func TestEndpointsOrderAndSources(t *testing.T) {
	o := NewOwn([]netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:9")})
	o.SetLocal([]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fe80::1%eth0")}, 41820)
	o.Observed(identity.PeerID{1}, netip.MustParseAddrPort("10.0.0.1:41820"), true)
	got := o.Endpoints()
	want := []netmap.Endpoint{
		{Addr: netip.MustParseAddrPort("198.51.100.1:9"), Source: netmap.SourceStatic},
		{Addr: netip.MustParseAddrPort("10.0.0.1:41820"), Source: netmap.SourceLocal},
		{Addr: netip.MustParseAddrPort("[fe80::1]:41820"), Source: netmap.SourceLocal},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("endpoint %d = %v, want %v", i, got[i], want[i])
		}
	}
	if o.Local()[1].Addr().Zone() != "eth0" {
		t.Error("our own view keeps the zone")
	}
}

func TestResolve(t *testing.T) {
	for _, bad := range []string{"", "host", "host:", "host:0", "host:70000", ":1:2"} {
		if _, err := Resolve(context.Background(), bad); err == nil {
			t.Errorf("%q was resolved", bad)
		}
	}
	got, err := Resolve(context.Background(), "[::ffff:192.0.2.1]:53")
	if err != nil || len(got) != 1 || got[0] != netip.MustParseAddrPort("192.0.2.1:53") {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := Resolve(context.Background(), "localhost:53"); err != nil || len(got) == 0 {
		t.Errorf("localhost: %v, %v", got, err)
	}
}

func told12(o *Own) (list string) {
	for i, e := range o.Endpoints() {
		if i == toldEndpoints {
			break
		}
		list += e.Addr.String() + " " + string(e.Source) + "\n"
	}
	return list
}

// What members would refuse the whole list for is not told.
func TestAdvertisedNonsense(t *testing.T) {
	o := NewOwn([]netip.AddrPort{
		ap("0.0.0.0:1"), ap("224.0.0.1:1"), ap("203.0.113.9:0"), ap("203.0.113.9:7"), ap("[::]:1"), ap("[ff02::1]:1"), ap("255.255.255.255:1"), {},
	})
	if got, want := told12(o), "203.0.113.9:7 static\n"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// Where everything is known, the likeliest address comes first, and every address once.
func TestEndpointsOfAllSources(t *testing.T) {
	o := NewOwn([]netip.AddrPort{ap("203.0.113.50:9")})
	o.SetLocal([]netip.Addr{
		netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr("2001:db8::1"),
		netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("fd01::2"), netip.MustParseAddr("100.64.0.2"),
	}, 41820)
	o.SetPortMap(ap("198.51.100.1:41820"))
	now := time.Unix(1000, 0)
	o.SetReport(Report{
		At: now, NAT: netmap.NATHard,
		Mapped: []netip.AddrPort{ap("198.51.100.1:7"), ap("[2001:db8::2]:41820"), ap("127.0.0.1:5"), ap("169.254.0.1:5")},
	})
	o.Observed(identity.PeerID{1}, ap("198.51.100.1:8"), true)
	o.Observed(identity.PeerID{2}, ap("192.168.1.2:41820"), true)
	want := `203.0.113.50:9 static
198.51.100.1:41820 portmap
198.51.100.1:7 stun
[2001:db8::2]:41820 local
[2001:db8::1]:41820 local
198.51.100.1:8 peer
192.168.1.2:41820 local
[fd01::2]:41820 local
100.64.0.2:41820 local
[fe80::1]:41820 local
`
	if got := told12(o); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	// Without the port mapping, the inside port is a guess.
	o.SetPortMap(netip.AddrPort{})
	if !has(o, "198.51.100.1:41820") {
		t.Error("the inside port is not guessed behind a hard NAT")
	}
	o.SetReport(Report{At: now, NAT: netmap.NATEasy, Mapped: []netip.AddrPort{ap("198.51.100.1:7")}})
	if has(o, "198.51.100.1:41820") {
		t.Error("the inside port is guessed behind an easy NAT")
	}
}

func TestSTUNMemory(t *testing.T) {
	o := NewOwn(nil)
	now := time.Unix(1000, 0)
	at := func(d time.Duration, mapped ...string) {
		r := Report{At: now.Add(d)}
		for _, m := range mapped {
			r.Mapped = append(r.Mapped, ap(m))
		}
		o.SetReport(r)
	}
	at(0, "198.51.100.1:7")
	at(time.Minute, "198.51.100.1:8")
	if got := told12(o); got != "198.51.100.1:8 stun\n198.51.100.1:7 stun\n" {
		t.Errorf("got %s", got)
	}
	at(stunLife-time.Second, "198.51.100.1:8")
	if !has(o, "198.51.100.1:7") {
		t.Error("forgotten too soon")
	}
	at(stunLife, "198.51.100.1:8")
	if has(o, "198.51.100.1:7") {
		t.Error("not forgotten")
	}
	at(stunLife + time.Second)
	if !has(o, "198.51.100.1:8") {
		t.Error("a round without answers proves nothing")
	}
	for i := range 100 {
		at(stunLife+time.Second, netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(1000+i)).String())
	}
	if n := len(o.Endpoints()); n != maxSeen {
		t.Errorf("%d addresses", n)
	}
	o.ForgetSTUN()
	if len(o.Endpoints()) != 0 {
		t.Error("not forgotten")
	}
}

// However many there are of each kind, the first twelve have some of all.
func TestTwelveOfAllKinds(t *testing.T) {
	addrs := func(prefix string, n int) (all []netip.Addr) {
		a := netip.MustParseAddr(prefix)
		for range n {
			a = a.Next()
			all = append(all, a)
		}
		return all
	}
	var static []netip.AddrPort
	for _, a := range addrs("203.0.113.0", 10) {
		static = append(static, netip.AddrPortFrom(a, 1))
	}
	o := NewOwn(static)
	o.SetLocal(append(append(addrs("2001:db8::", 10), addrs("192.168.0.0", 10)...), addrs("fe80::", 10)...), 41820)
	o.SetPortMap(ap("198.51.100.1:41820"))
	r := Report{At: time.Unix(1000, 0), NAT: netmap.NATHard}
	for i := range uint16(8) {
		r.Mapped = append(r.Mapped, netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), 1000+i))
	}
	o.SetReport(r)
	for i := range byte(2) {
		o.Observed(identity.PeerID{i + 1}, netip.AddrPortFrom(netip.MustParseAddr("198.51.100.3"), uint16(i+1)), true)
	}
	count := map[string]int{}
	for _, e := range o.Endpoints()[:toldEndpoints] {
		kind := string(e.Source)
		if e.Source == netmap.SourceLocal {
			kind += " " + [...]string{"host", "link", "site", "global"}[scopeOf(e.Addr.Addr())]
		}
		count[kind]++
	}
	want := map[string]int{"static": 3, "portmap": 1, "stun": 3, "local global": 1, "peer": 1, "local site": 2, "local link": 1}
	if !maps.Equal(count, want) {
		t.Errorf("got %v, want %v", count, want)
	}
	if n := len(o.Endpoints()); n != 10+30+1+8+1+2 {
		t.Errorf("%d in all", n)
	}
}
