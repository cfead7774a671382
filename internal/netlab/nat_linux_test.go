package netlab

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// natWorld is an inside host behind a NAT and two hosts outside.
func natWorld(t *testing.T, kind Kind) (router, in, out1, out2 *Host) {
	t.Helper()
	lab := New(t)
	lan, wan := lab.Switch("lan"), lab.Switch("wan")
	router, in = lab.Router("router"), lab.Host("in")
	out1, out2 = lab.Host("out1"), lab.Host("out2")
	router.Plug(lan, "192.168.1.1/24", "fd01::1/64")
	outside := router.Plug(wan, "198.51.100.1/24", "fd02::1/64")
	in.Plug(lan, "192.168.1.2/24", "fd01::2/64")
	in.DefaultRoute("192.168.1.1")
	in.DefaultRoute("fd01::1")
	out1.Plug(wan, "198.51.100.2/24", "fd02::2/64")
	out2.Plug(wan, "198.51.100.3/24", "fd02::3/64")
	out1.Route("fd01::/64", "fd02::1")
	router.NAT(kind, outside)
	return router, in, out1, out2
}

// TestNATKinds checks mapping and filtering exactly: which source each of three destinations sees, and whose packets
// to that source get in.
func TestNATKinds(t *testing.T) {
	const known, samePort, sameAddr, stranger = "who was sent to", "another address", "another port", "a stranger"
	for _, tt := range []struct {
		kind    Kind
		admits  []string
		mapping int // distinct sources of one socket at three destinations
	}{
		{FullCone, []string{known, samePort, sameAddr, stranger}, 1},
		{AddressRestricted, []string{known, sameAddr}, 1},
		{PortRestricted, []string{known}, 1},
		{Symmetric, []string{known}, 3},
	} {
		t.Run(tt.kind.String(), func(t *testing.T) {
			router, in, out1, out2 := natWorld(t, tt.kind)
			client := listenUDP(t, in, "192.168.1.2:7777")
			sendUDP(t, listenUDP(t, out1, "198.51.100.2:8999"), "198.51.100.1:7777", []byte("unsolicited"))
			if got, _ := recvUDP(t, client, never); got != "" {
				t.Errorf("unsolicited packet got in: %q", got)
			}
			s := listenUDP(t, out1, "198.51.100.2:9000")
			seen := map[netip.AddrPort]bool{}
			source := exchange(t, client, s)
			seen[source] = true
			for _, from := range []struct {
				name string
				pc   net.PacketConn
			}{
				{known, s},
				{samePort, listenUDP(t, out2, "198.51.100.3:9000")},
				{sameAddr, listenUDP(t, out1, "198.51.100.2:9001")},
				{stranger, listenUDP(t, out2, "198.51.100.3:9001")},
			} {
				sendUDP(t, from.pc, source.String(), []byte(from.name))
				want := slices.Contains(tt.admits, from.name)
				got, by := recvUDP(t, client, map[bool]time.Duration{true: soon, false: never}[want])
				if (got == from.name) != want || want && by.String() != from.pc.LocalAddr().String() {
					t.Errorf("from %s: got %q from %v, want admitted %v", from.name, got, by, want)
				}
				if want { // the way back is the same flow's
					if again := exchange(t, client, from.pc); tt.mapping == 1 && again != source {
						t.Errorf("answer to %s came from %v, want %v", from.name, again, source)
					}
				}
			}
			for _, addr := range []string{"198.51.100.2:9100", "198.51.100.3:9100"} {
				seen[exchange(t, client, listenUDP(t, map[bool]*Host{true: out1, false: out2}[addr == "198.51.100.2:9100"], addr))] = true
			}
			if len(seen) != tt.mapping {
				t.Errorf("three destinations saw %v, want %d sources", seen, tt.mapping)
			}
			if want := netip.MustParseAddrPort("198.51.100.1:7777"); tt.mapping == 1 && source != want {
				t.Errorf("seen as %v, want the port kept: %v", source, want)
			}
			router.ForgetFlows()
			sendUDP(t, s, source.String(), []byte("late"))
			if got, _ := recvUDP(t, client, never); got != "" {
				t.Errorf("packet got in after the mappings were gone: %q", got)
			}
		})
	}
}

// exchange sends a packet from inside and returns which source the receiver saw.
func exchange(t *testing.T, client, s net.PacketConn) netip.AddrPort {
	t.Helper()
	sendUDP(t, client, s.LocalAddr().String(), []byte("hello"))
	got, from := recvUDP(t, s, soon)
	if got != "hello" || !from.IsValid() {
		t.Fatalf("%v got %q from %v", s.LocalAddr(), got, from)
	}
	return from
}

// Two inside hosts with the same port get two outside ports, each one for all destinations.
func TestNATSamePortInside(t *testing.T) {
	for _, kind := range []Kind{FullCone, AddressRestricted, PortRestricted} {
		t.Run(kind.String(), func(t *testing.T) {
			_, in, out1, out2 := natWorld(t, kind)
			in.links.AddrAdd(in.link("eth0"), netlinkAddr(netip.MustParsePrefix("192.168.1.3/24")))
			first, second := listenUDP(t, in, "192.168.1.2:7777"), listenUDP(t, in, "192.168.1.3:7777")
			s1, s2 := listenUDP(t, out1, "198.51.100.2:9000"), listenUDP(t, out2, "198.51.100.3:9000")
			a1, b1 := exchange(t, first, s1), exchange(t, second, s1)
			b2, a2 := exchange(t, second, s2), exchange(t, first, s2)
			if a1 != a2 || b1 != b2 || a1 == b1 {
				t.Errorf("one is seen as %v and %v, the other as %v and %v", a1, a2, b1, b2)
			}
			for _, s := range []net.PacketConn{s1, s2} {
				sendUDP(t, s, a1.String(), []byte("to the first"))
				sendUDP(t, s, b1.String(), []byte("to the second"))
				if got, _ := recvUDP(t, first, soon); got != "to the first" {
					t.Errorf("the first got %q", got)
				}
				if got, _ := recvUDP(t, second, soon); got != "to the second" {
					t.Errorf("the second got %q", got)
				}
			}
		})
	}
}

// Hairpinning reaches the other inside host, with the sender's outside address and port as the source.
func TestHairpin(t *testing.T) {
	for _, kind := range []Kind{FullCone, AddressRestricted, PortRestricted, Symmetric} {
		t.Run(kind.String(), func(t *testing.T) {
			router, in, out1, _ := natWorld(t, kind)
			in.links.AddrAdd(in.link("eth0"), netlinkAddr(netip.MustParsePrefix("192.168.1.3/24")))
			// They talk to each other through the router only, as two hosts on two ports of it would.
			first, second := listenUDP(t, in, "192.168.1.2:7777"), listenUDP(t, in, "192.168.1.3:7777")
			s := listenUDP(t, out1, "198.51.100.2:9000")
			for _, hairpin := range []bool{false, true} {
				if hairpin {
					router.Hairpin()
				}
				a, b := exchange(t, first, s), exchange(t, second, s)
				works := hairpin && kind != Symmetric
				wait := map[bool]time.Duration{true: soon, false: never}[works]
				sendUDP(t, first, b.String(), []byte("there"))
				if got, from := recvUDP(t, second, wait); (got == "there") != works || works && from != a {
					t.Errorf("hairpin %v: got %q from %v, want it from %v", hairpin, got, from, a)
				}
				sendUDP(t, second, a.String(), []byte("back"))
				if got, from := recvUDP(t, first, wait); (got == "back") != works || works && from != b {
					t.Errorf("hairpin %v: got %q back from %v, want it from %v", hairpin, got, from, b)
				}
			}
		})
	}
}

// A new outside address ends the mappings to the old one.
func TestNATOutsideAddressChanges(t *testing.T) {
	for _, kind := range []Kind{FullCone, PortRestricted, Symmetric} {
		t.Run(kind.String(), func(t *testing.T) {
			router, in, out1, _ := natWorld(t, kind)
			client, s := listenUDP(t, in, "192.168.1.2:7777"), listenUDP(t, out1, "198.51.100.2:9000")
			exchange(t, client, s)
			router.nats[0].outside.SetAddr("198.51.100.77/24")
			if from := exchange(t, client, s); from.Addr() != netip.MustParseAddr("198.51.100.77") {
				t.Errorf("seen as %v after the change", from)
			}
		})
	}
}

// A firewall lets nothing in but answers.
func TestFirewall(t *testing.T) {
	a, b, _, ib := pair(t)
	b.Firewall(ib)
	from, to := listenUDP(t, a, "10.1.0.1:7000"), listenUDP(t, b, "10.1.0.2:7001")
	sendUDP(t, from, "10.1.0.2:7001", []byte("unsolicited"))
	if got, _ := recvUDP(t, to, never); got != "" {
		t.Errorf("got %q", got)
	}
	sendUDP(t, to, "10.1.0.1:7000", []byte("question"))
	recvUDP(t, from, soon)
	sendUDP(t, from, "10.1.0.2:7001", []byte("answer"))
	if got, _ := recvUDP(t, to, soon); got != "answer" {
		t.Errorf("got %q", got)
	}
}

// IPv6 passes untranslated, and only what was asked for.
func TestNATRoutesIPv6(t *testing.T) {
	_, in, out1, _ := natWorld(t, PortRestricted)
	s, client := listenUDP(t, out1, "[fd02::2]:9000"), listenUDP(t, in, "[fd01::2]:7777")
	sendUDP(t, s, "[fd01::2]:7777", []byte("unsolicited"))
	if got, _ := recvUDP(t, client, never); got != "" {
		t.Errorf("unsolicited packet got in: %q", got)
	}
	sendUDP(t, client, "[fd02::2]:9000", []byte("hello"))
	if _, from := recvUDP(t, s, soon); from != netip.MustParseAddrPort("[fd01::2]:7777") {
		t.Errorf("seen as %v, want the address inside", from)
	}
}

func TestNATTimeout(t *testing.T) {
	for _, kind := range []Kind{FullCone, PortRestricted} {
		t.Run(kind.String(), func(t *testing.T) {
			router, in, out1, _ := natWorld(t, kind)
			router.UDPTimeout(time.Second)
			s, client := listenUDP(t, out1, "198.51.100.2:9000"), listenUDP(t, in, "192.168.1.2:7777")
			exchange(t, client, s)
			sendUDP(t, s, "198.51.100.1:7777", []byte("in time"))
			if got, _ := recvUDP(t, client, soon); got != "in time" {
				t.Fatalf("got %q", got)
			}
			deadline := time.Now().Add(10 * time.Second)
			for time.Now().Before(deadline) {
				// Silent for longer than the timeout, so that the probe itself does not refresh the mapping.
				if got, _ := recvUDP(t, client, 1500*time.Millisecond); got != "" {
					t.Fatalf("unexpected %q", got)
				}
				sendUDP(t, s, "198.51.100.1:7777", []byte("late"))
				if got, _ := recvUDP(t, client, never); got == "" {
					return
				}
			}
			t.Error("the mapping does not expire")
		})
	}
}
