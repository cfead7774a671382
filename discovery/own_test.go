package discovery

import (
	"context"
	"net/netip"
	"testing"

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
