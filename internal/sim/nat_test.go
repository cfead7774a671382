package sim

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	inside1 = netip.MustParseAddr("10.0.0.1")
	inside2 = netip.MustParseAddr("10.0.0.2")
)

// What each kind maps to and lets in, after one packet from inside to A's port 1000.
func TestNATKinds(t *testing.T) {
	for _, tt := range []struct {
		kind                         NATKind
		sameMapping                  bool // for a second destination
		fromPeer, fromPort, fromHost bool // let in: A:1000, A:1001, B:1000
	}{
		{NATNone, true, true, true, true},
		{FullCone, true, true, true, true},
		{AddressRestricted, true, true, true, false},
		{PortRestricted, true, true, false, false},
		{Symmetric, false, true, false, false},
	} {
		t.Run(tt.kind.String(), func(t *testing.T) {
			w := New(1)
			n := w.Network(Link{Delay: time.Millisecond})
			ha := n.Host(addrA)
			a, a2, b := bind(ha, 1000), bind(ha, 1001), bind(n.Host(addrB), 1000)
			nat := n.NAT(tt.kind, addrN)
			outside, inside := addrN, inside1
			if tt.kind == NATNone {
				outside, inside = addrC, addrC
			}
			in := bind(nat.Host(inside), 5000)
			a.send(outside, 5000, "unsolicited")
			w.RunFor(time.Second)
			if got := len(in.data) > 0; got != (tt.kind == NATNone) {
				t.Errorf("unsolicited packet got in: %v", got)
			}
			in.data = nil

			in.send(addrA, 1000, "hello")
			w.RunFor(time.Second)
			if len(a.from) != 1 || a.from[0].Addr() != outside {
				t.Fatalf("A saw %v, want one packet from %v", a.from, outside)
			}
			mapped := a.from[0]
			if keeps := mapped.Port() == 5000; keeps != (tt.kind != Symmetric) {
				t.Errorf("mapped to port %d", mapped.Port())
			}
			a.Send(mapped, []byte("peer"))
			a2.Send(mapped, []byte("port"))
			b.Send(mapped, []byte("host"))
			w.RunFor(time.Second)
			for _, c := range []struct {
				text string
				want bool
			}{{"peer", tt.fromPeer}, {"port", tt.fromPort}, {"host", tt.fromHost}} {
				if got := slices.Contains(in.data, c.text); got != c.want {
					t.Errorf("let %s in: %v, want %v", c.text, got, c.want)
				}
			}
			in.send(addrB, 1000, "second")
			w.RunFor(time.Second)
			if got := b.from[0] == mapped; got != tt.sameMapping {
				t.Errorf("second destination saw %v, the first %v", b.from[0], mapped)
			}
		})
	}
}

func TestNATMappingTimeout(t *testing.T) {
	w := New(1)
	n := w.Network(Link{})
	a := bind(n.Host(addrA), 1000)
	nat := n.NAT(FullCone, addrN)
	nat.Timeout = 30 * time.Second
	in := bind(nat.Host(inside1), 5000)
	try := func(after time.Duration, want bool) {
		t.Helper()
		in.data = nil
		w.RunFor(after)
		a.send(addrN, 5000, "in")
		w.RunFor(0)
		if got := len(in.data) == 1; got != want {
			t.Errorf("%v after: let in %v, want %v", after, got, want)
		}
	}
	in.send(addrA, 1000, "out")
	try(30*time.Second, true)
	try(time.Second, false) // packets from outside do not keep it alive
	in.send(addrA, 1000, "out")
	try(20*time.Second, true)
	in.send(addrA, 1000, "out")
	try(20*time.Second, true)
	nat.Forget()
	try(0, false)
}

// Two inside hosts want the same outside port: the second gets another, until the first has expired.
func TestNATPortCollision(t *testing.T) {
	w := New(1)
	n := w.Network(Link{})
	a := bind(n.Host(addrA), 1000)
	nat := n.NAT(PortRestricted, addrN)
	one, two := bind(nat.Host(inside1), 5000), bind(nat.Host(inside2), 5000)
	one.send(addrA, 1000, "one")
	two.send(addrA, 1000, "two")
	w.RunFor(0)
	if a.from[0].Port() != 5000 || a.from[1].Port() == 5000 {
		t.Fatalf("mapped to %v", a.from)
	}
	a.Send(a.from[1], []byte("for two"))
	w.RunFor(0)
	if len(one.data) != 0 || !slices.Equal(two.data, []string{"for two"}) {
		t.Errorf("one got %q, two got %q", one.data, two.data)
	}
	w.RunFor(nat.Timeout + time.Second)
	two.send(addrA, 1000, "two")
	w.RunFor(0)
	if a.from[2].Port() != 5000 {
		t.Errorf("after the first expired: mapped to %v", a.from[2])
	}
}

func TestNATHairpin(t *testing.T) {
	for _, on := range []bool{false, true} {
		w := New(1)
		n := w.Network(Link{})
		nat := n.NAT(FullCone, addrN)
		nat.Hairpin = on
		one, two := bind(nat.Host(inside1), 5001), bind(nat.Host(inside2), 5002)
		two.send(addrA, 1, "opens a mapping")
		w.RunFor(0)
		one.send(addrN, 5002, "hairpin")
		w.RunFor(0)
		if got := len(two.data) == 1; got != on || on && two.from[0] != netip.AddrPortFrom(addrN, 5001) {
			t.Errorf("hairpin %v: got %q from %v", on, two.data, two.from)
		}
		one.send(inside2, 5002, "direct")
		w.RunFor(0)
		if k := len(two.from); k == 0 || two.from[k-1] != netip.AddrPortFrom(inside1, 5001) {
			t.Errorf("hosts of one inside do not reach each other: %v", two.from)
		}
	}
}

// The classic of hole punching: both send first, then both hear.
func TestHolePunching(t *testing.T) {
	punch := func(ka, kb NATKind) bool {
		w := New(1)
		n := w.Network(Link{Delay: 10 * time.Millisecond})
		server := bind(n.Host(addrC), 3478)
		a := bind(n.NAT(ka, addrA).Host(inside1), 5001)
		b := bind(n.NAT(kb, addrB).Host(inside1), 5002)
		a.send(addrC, 3478, "who am I")
		w.RunFor(time.Second)
		b.send(addrC, 3478, "who am I")
		w.RunFor(time.Second)
		for range 2 {
			a.Send(server.from[1], []byte("punch"))
			b.Send(server.from[0], []byte("punch"))
			w.RunFor(time.Second)
		}
		return len(a.data) > 0 && len(b.data) > 0
	}
	for _, tt := range []struct {
		a, b NATKind
		want bool
	}{
		{FullCone, Symmetric, false}, // B is heard by A, but nobody knows where B is heard from
		{PortRestricted, PortRestricted, true},
		{AddressRestricted, PortRestricted, true},
		{PortRestricted, Symmetric, false},
		{Symmetric, Symmetric, false},
	} {
		if got := punch(tt.a, tt.b); got != tt.want {
			t.Errorf("%v and %v: punched %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

// A NAT within a NAT; IPv6 goes round both.
func TestNestedNATAndIPv6(t *testing.T) {
	w := New(1)
	n := w.Network(Link{Delay: time.Millisecond})
	a := bind(n.Host(addrA, addr6), 1000)
	carrier := n.NAT(Symmetric, addrN)
	home := carrier.NAT(PortRestricted, netip.MustParseAddr("100.64.0.1"))
	home.SetLink(Link{Delay: 2 * time.Millisecond})
	in6 := netip.MustParseAddr("2001:db8::2")
	in := bind(home.Host(inside1, in6), 5000)
	in.send(addrA, 1000, "v4")
	w.RunFor(3*time.Millisecond - 1)
	if len(a.from) != 0 {
		t.Error("too early: the inside link costs nothing")
	}
	w.RunFor(1)
	if len(a.from) != 1 || a.from[0].Addr() != addrN {
		t.Fatalf("A saw %v, want the carrier's address", a.from)
	}
	a.Send(a.from[0], []byte("answer"))
	a.send(in6, 5000, "v6, unsolicited")
	w.RunFor(time.Second)
	if want := []string{"v6, unsolicited", "answer"}; !slices.Equal(in.data, want) {
		t.Errorf("inside got %q, want %q", in.data, want)
	}
	in.send(addr6, 1000, "v6")
	w.RunFor(time.Second)
	if k := len(a.from); k != 2 || a.from[1] != netip.AddrPortFrom(in6, 5000) {
		t.Errorf("A saw %v, want IPv6 untranslated", a.from)
	}
}
