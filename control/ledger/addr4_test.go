package ledger

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/meshnet/meshnet/identity"
)

func TestChoice4IsFixed(t *testing.T) {
	prefix := netip.MustParsePrefix("100.88.0.0/16")
	for n, want := range []string{"100.88.233.25", "100.88.12.141"} {
		if got := choice4(prefix, seeded(1).ID(), uint32(n)); got.String() != want {
			t.Errorf("h(id, %d) = %v, want %s", n, got, want)
		}
	}
}

func TestAssign4(t *testing.T) {
	prefix := netip.MustParsePrefix("10.0.0.0/20")
	members := make([]Member, 4000)
	for i := range members {
		members[i].ID = identity.PeerID{byte(i), byte(i >> 8)}
	}
	assign4(prefix, members, nil)
	seen := map[netip.Addr]bool{}
	for i, m := range members {
		if full := i >= 4096-512; full != !m.IP4.IsValid() {
			t.Fatalf("member %d has %v", i, m.IP4)
		}
		if m.IP4.IsValid() && (seen[m.IP4] || !usable4(prefix, m.IP4)) {
			t.Fatalf("member %d has %v, taken or reserved", i, m.IP4)
		}
		seen[m.IP4] = true
	}
	fewer := make([]Member, 100)
	copy(fewer, members)
	assign4(prefix, fewer, nil)
	for i := range fewer {
		if fewer[i].IP4 != members[i].IP4 {
			t.Fatal("later members move earlier ones")
		}
	}
}

func TestLeases(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, 0)
	a, b := seeded(10), seeded(11)
	w.join(a, inv, w.founder)
	w.join(b, inv, w.founder)
	ip := func(n *identity.Identity) netip.Addr {
		m, _ := w.state().Member(n.ID())
		return m.IP4
	}
	a0, b0 := ip(a), ip(b)
	lease := func(n *identity.Identity, addr netip.Addr, want error) {
		t.Helper()
		if _, err := w.Lease(w.founder, n.ID(), addr, w.now); !errors.Is(err, want) {
			t.Errorf("lease %v: %v, want %v", addr, err, want)
		}
	}
	lease(b, a0, nil)
	if ip(b) != a0 || ip(a) == a0 || !ip(a).IsValid() {
		t.Errorf("b leased a's: a %v, b %v", ip(a), ip(b))
	}
	lease(a, a0, nil) // the later lease of one address counts
	if ip(a) != a0 || ip(b) != b0 {
		t.Errorf("a leased it back: a %v, b %v", ip(a), ip(b))
	}
	lease(a, netip.Addr{}, nil)
	if ip(b) != a0 {
		t.Error("a taken back lease still holds")
	}
	for _, s := range []string{"100.88.0.53", "100.88.255.1", "100.89.1.1", "fd00::1"} {
		lease(a, netip.MustParseAddr(s), ErrAddress)
	}
}
