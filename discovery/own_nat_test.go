package discovery

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// TestNATByMembers: what members see of us says how we are translated.
func TestNATByMembers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		local string
		seen  []string
		want  netmap.NAT
	}{
		{"nobody", "192.168.1.2", nil, netmap.NATUnknown},
		{"neighbours only", "192.168.1.2", []string{"192.168.1.2:41820", "100.64.1.1:41820"}, netmap.NATUnknown},
		{"none", "203.0.113.7", []string{"203.0.113.7:41820"}, netmap.NATNone},
		{"one from outside", "192.168.1.2", []string{"203.0.113.9:5000", "192.168.1.2:41820"}, netmap.NATEasy},
		{"all the same", "192.168.1.2", []string{"203.0.113.9:5000", "203.0.113.9:5000", "203.0.113.9:5000"}, netmap.NATEasy},
		{"two addresses", "192.168.1.2", []string{"203.0.113.9:5000", "[2001:db8::1]:5001"}, netmap.NATEasy},
		{"another port for each", "192.168.1.2", []string{"203.0.113.9:5000", "203.0.113.9:5001"}, netmap.NATHard},
	} {
		o := NewOwn(nil)
		o.SetLocal([]netip.Addr{netip.MustParseAddr(tt.local)}, 41820)
		for i, addr := range tt.seen {
			o.Observed(identity.PeerID{byte(i + 1)}, netip.MustParseAddrPort(addr), false)
		}
		if got := o.NAT(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A member that sees us by both families says what either does.
func TestObservedByBothFamilies(t *testing.T) {
	o := NewOwn(nil)
	o.SetLocal([]netip.Addr{netip.MustParseAddr("192.168.1.2"), netip.MustParseAddr("2001:db8::2")}, 41820)
	by := identity.PeerID{1}
	outside := netip.MustParseAddrPort("203.0.113.9:5000")
	o.Observed(by, outside, false)
	o.Observed(by, netip.MustParseAddrPort("[2001:db8::2]:41820"), false)
	if got := o.NAT(); got != netmap.NATEasy {
		t.Errorf("NAT %v, want the one of IPv4", got)
	}
	told := func() bool {
		return slices.ContainsFunc(o.Endpoints(), func(e netmap.Endpoint) bool { return e.Addr == outside })
	}
	if !told() {
		t.Errorf("%v without %v", o.Endpoints(), outside)
	}
	o.Forget(by)
	if told() || o.NAT() != netmap.NATUnknown {
		t.Errorf("%v, NAT %v of a member that is forgotten", o.Endpoints(), o.NAT())
	}
}
