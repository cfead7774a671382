package netlab

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reaches reports whether UDP from one host arrives at another's address.
func reaches(t *testing.T, from, to *Host, addr netip.Addr, wait time.Duration) bool {
	t.Helper()
	s, r := openUDP(t, from, addr.Is4()), openUDP(t, to, addr.Is4())
	at := netip.AddrPortFrom(addr, r.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	if _, err := s.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(at)); err != nil {
		return false
	}
	got, _ := recvUDP(t, r, wait)
	return got == "hello"
}

func openUDP(t *testing.T, h *Host, v4 bool) net.PacketConn {
	t.Helper()
	network, addr := "udp6", "[::]:0"
	if v4 {
		network, addr = "udp4", "0.0.0.0:0"
	}
	pc, err := h.ListenPacket(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc
}

// connects reports whether TCP from one host to another's address works.
func connects(t *testing.T, from, to *Host, addr netip.Addr, wait time.Duration) bool {
	t.Helper()
	ln, err := to.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := from.Dial(within(t, wait), "tcp", ln.Addr().String())
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Every kind of site reaches public hosts in the ways that it has, and nobody gets in unasked where that is refused.
func TestSiteKinds(t *testing.T) {
	w := New(t).Internet()
	relay := w.Public("relay")
	r4, r6 := relay.Card().Addr4(), relay.Card().Addr6()
	for _, kind := range Kinds() {
		start := time.Now()
		s := w.Site(kind)
		h := s.Host("inside")
		t.Logf("%v: made in %v", kind, time.Since(start).Round(time.Millisecond))
		has4, has6 := kind != IPv6Only, kind == IPv6Only
		udp := kind != UDPBlocked
		wait := func(works bool) time.Duration {
			if works {
				return soon
			}
			return never
		}
		if got := reaches(t, h, relay, r4, wait(has4 && udp)); got != (has4 && udp) {
			t.Errorf("%v: UDP over IPv4 arrives: %v", kind, got)
		}
		if got := reaches(t, h, relay, r6, wait(has6)); got != has6 {
			t.Errorf("%v: UDP over IPv6 arrives: %v", kind, got)
		}
		if got := connects(t, h, relay, r4, wait(has4)); got != has4 {
			t.Errorf("%v: TCP over IPv4 works: %v", kind, got)
		}
		if got := connects(t, h, relay, r6, wait(has6)); got != has6 {
			t.Errorf("%v: TCP over IPv6 works: %v", kind, got)
		}
		public := h.Card().Addr()
		if s.Outside != nil && kind != IPv6Only {
			public = s.Outside.Addr()
		}
		if s.Carrier != nil {
			public = s.Carrier.Outside.Addr()
		}
		if got := reaches(t, relay, h, public, wait(kind == None)); got != (kind == None) {
			t.Errorf("%v: unsolicited UDP gets in: %v", kind, got)
		}
	}
}

// TestPunching punches holes between all pairs as RFC 5128 §3.3 does: both learn their outside address from a public
// host, send to each other's, and answer whatever source they see.
func TestPunching(t *testing.T) {
	w := New(t).Internet()
	relay := w.Public("relay")
	kinds := []Kind{None, FullCone, AddressRestricted, PortRestricted, Symmetric, CGNAT, Firewalled}
	var left, right []*Host
	for _, k := range kinds {
		left, right = append(left, w.Site(k).Host("left")), append(right, w.Site(k).Host("right"))
	}
	byPort := map[Kind]bool{PortRestricted: true, CGNAT: true, Firewalled: true, Symmetric: true}
	for i, a := range kinds {
		for j, b := range kinds {
			want := !(a == Symmetric && byPort[b] || b == Symmetric && byPort[a])
			if got := punch(t, relay, left[i], right[j], want); got != want {
				t.Errorf("%v and %v: direct %v, want %v", a, b, got, want)
			}
		}
	}
}

func punch(t *testing.T, relay, a, b *Host, want bool) bool {
	t.Helper()
	type side struct {
		pc      net.PacketConn
		outside netip.AddrPort
	}
	var sides [2]side
	server := openUDP(t, relay, true)
	port := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	for i, h := range []*Host{a, b} {
		sides[i].pc = openUDP(t, h, true)
		sendUDP(t, sides[i].pc, netip.AddrPortFrom(relay.Card().Addr4(), port).String(), []byte("who am I"))
		_, sides[i].outside = recvUDP(t, server, soon)
	}
	answered := make(chan bool, 2)
	deadline := time.Now().Add(never)
	if want {
		deadline = time.Now().Add(soon)
	}
	for _, s := range sides {
		go func() { // ends with the deadline at the latest, which is awaited below
			got := false
			buf := make([]byte, 100)
			s.pc.SetReadDeadline(deadline)
			for !got {
				n, from, err := s.pc.ReadFrom(buf)
				if err != nil {
					break
				}
				if got = string(buf[:n]) == "answer"; !got {
					s.pc.WriteTo([]byte("answer"), from)
				}
			}
			answered <- got
		}()
	}
	for range 2 { // the first of one side opens the way for the second of the other
		for i, s := range sides {
			sendUDP(t, s.pc, sides[1-i].outside.String(), []byte("probe"))
		}
	}
	direct := <-answered
	for _, s := range sides {
		if direct {
			s.pc.SetReadDeadline(time.Now()) // one answer is proof enough
		}
	}
	return <-answered || direct
}

// Hosts of one site see each other, those of different ones share no segment, and IPv6 works beside IPv4 where asked
// for, through a NAT behind a NAT as well.
func TestSites(t *testing.T) {
	w := New(t).Internet()
	relay := w.Public("relay")
	home := w.AddSite(SiteConfig{Kind: FullCone, IPv6: true})
	inner := w.AddSite(SiteConfig{Kind: PortRestricted, IPv6: true, Behind: home})
	a, b, deep := home.Host("a"), home.Host("b"), inner.Host("deep")
	for _, to := range []netip.Addr{b.Card().Addr4(), b.Card().Addr6()} {
		if !reaches(t, a, b, to, soon) || !reaches(t, deep, b, to, soon) {
			t.Errorf("%v is not reached on its LAN", to)
		}
	}
	for _, h := range []*Host{a, deep} {
		for _, to := range []netip.Addr{relay.Card().Addr4(), relay.Card().Addr6()} {
			if !reaches(t, h, relay, to, soon) {
				t.Errorf("%v is not reached from %s", to, h.name)
			}
		}
		if reaches(t, relay, h, h.Card().Addr6(), never) {
			t.Errorf("%s lets unsolicited IPv6 in", h.name)
		}
	}
	one, two := w.Site(None).Host("one"), w.Site(None).Host("two")
	listener := openUDP(t, two, true)
	port := listener.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	s := openUDP(t, one, true)
	for _, group := range []string{"224.0.0.1", "198.51.100.255"} {
		s.WriteTo([]byte("anybody"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(group), port)))
	}
	if got, from := recvUDP(t, listener, never); got != "" {
		t.Errorf("a neighbour heard %q from %v", got, from)
	}
}

// Two customers of one carrier reach each other only where the carrier hairpins.
func TestCarrierHairpin(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		w := New(t).Internet()
		relay := w.Public("relay")
		first := w.AddSite(SiteConfig{Kind: CGNAT, Hairpin: hairpin})
		second := w.AddSite(SiteConfig{Kind: PortRestricted, Behind: first.Carrier})
		if got := punch(t, relay, first.Host("a"), second.Host("b"), hairpin); got != hairpin {
			t.Errorf("hairpin %v: direct %v", hairpin, got)
		}
	}
}

// A host keeps its sockets when its site gets a new address, and when it moves to another site.
func TestRoaming(t *testing.T) {
	w := New(t).Internet()
	relay := w.Public("relay")
	home, cafe := w.Site(PortRestricted), w.AddSite(SiteConfig{Kind: Symmetric, IPv6: true})
	h := home.Host("laptop")
	s, r := openUDP(t, h, true), openUDP(t, relay, true)
	at := netip.AddrPortFrom(relay.Card().Addr4(), r.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	seen := func() netip.Addr {
		t.Helper()
		sendUDP(t, s, at.String(), []byte("hello"))
		_, from := recvUDP(t, r, soon)
		return from.Addr()
	}
	was := home.Outside.Addr()
	if got := seen(); got != was {
		t.Errorf("seen as %v, want %v", got, was)
	}
	w.Renumber(home.Outside)
	if got := seen(); got == was || got != home.Outside.Addr() {
		t.Errorf("seen as %v after renumbering from %v to %v", got, was, home.Outside.Addr())
	}
	cafe.Move(h)
	if got := seen(); got != cafe.Outside.Addr() {
		t.Errorf("seen as %v, want %v", got, cafe.Outside.Addr())
	}
	if !reaches(t, h, relay, relay.Card().Addr6(), soon) {
		t.Error("no IPv6 at the new site")
	}
	home.Move(h)
	if got := seen(); got != home.Outside.Addr() || h.Card().Addr6().IsValid() {
		t.Errorf("seen as %v, want %v, with IPv6 %v", got, home.Outside.Addr(), h.Card().Addr6())
	}
	away := w.Site(None)
	card := away.Move(h)
	if got := seen(); got != card.Addr() {
		t.Errorf("seen as %v, want %v", got, card.Addr())
	}
	w.Renumber(card)
	if got := seen(); got != card.Addr() {
		t.Errorf("seen as %v, want %v", got, card.Addr())
	}
	card.Cut()
	if reaches(t, h, relay, at.Addr(), never) {
		t.Error("UDP through a cut cable")
	}
	card.Mend()
	if got := seen(); got != card.Addr() {
		t.Errorf("seen as %v after mending, want %v", got, card.Addr())
	}
	other := w.Site(None).Host("other").Card()
	other.Unplug()
	card.Unplug()
	if _, err := h.Ping(within(t, never), at.Addr()); err == nil {
		t.Error("ping through an unplugged cable")
	}
	card.Replug()
	if got := seen(); got != card.Addr() {
		t.Errorf("seen as %v after replugging, want %v", got, card.Addr())
	}
	card.Remove()
	other.Replug()
	if _, err := other.host.PingUntil(within(t, soon), at.Addr()); err != nil {
		t.Errorf("another host after replugging: %v", err)
	}
}

// Two sites that are parted reach everybody else.
func TestPart(t *testing.T) {
	w := New(t).Internet()
	relay, a, b := w.Public("relay"), w.Site(None).Host("a"), w.Site(None).Host("b")
	check := func(when string, want bool) {
		t.Helper()
		for _, hosts := range [][2]*Host{{a, b}, {b, a}} {
			if got := reaches(t, hosts[0], hosts[1], hosts[1].Card().Addr(), map[bool]time.Duration{true: soon, false: never}[want]); got != want {
				t.Errorf("%s: reached %v, want %v", when, got, want)
			}
			if !reaches(t, hosts[0], relay, relay.Card().Addr4(), soon) {
				t.Errorf("%s: the relay is not reached", when)
			}
		}
	}
	check("at first", true)
	heal := w.Part(a.Card().Addr(), b.Card().Addr())
	check("parted", false)
	heal()
	heal()
	check("healed", true)
}

// The largest packet that gets to a site is told to its sender, or not when it is a black hole.
func TestSiteMTU(t *testing.T) {
	for _, black := range []bool{false, true} {
		w := New(t).Internet()
		relay := w.Public("relay")
		for _, cfg := range []SiteConfig{
			{Kind: PortRestricted, Line: Line{MTU: 1280}, BlackHole: black, IPv6: true},
			{Kind: CGNAT, Line: Line{MTU: 1400}, BlackHole: black},
			{Kind: None, Line: Line{MTU: 1280}, BlackHole: black},
		} {
			h := w.AddSite(cfg).Host("inside")
			for _, to := range []netip.Addr{relay.Card().Addr4(), relay.Card().Addr6()} {
				if to.Is6() && !cfg.IPv6 {
					continue
				}
				up, down := bigPackets(t, h, relay, to, cfg.Line.MTU)
				if want := !black && cfg.Kind != None; up != want && cfg.Kind != None {
					t.Errorf("%v, MTU %d, black hole %v, %v: told so on the way up: %v", cfg.Kind, cfg.Line.MTU, black, to, up)
				}
				if down == black {
					t.Errorf("%v, MTU %d, black hole %v, %v: told so on the way down: %v", cfg.Kind, cfg.Line.MTU, black, to, down)
				}
			}
		}
	}
}

// bigPackets sends packets larger than an MTU both ways between an inside and a public host, checks that they are
// lost and that those just as large as the MTU arrive, and reports whether the senders learned about it.
func bigPackets(t *testing.T, h, relay *Host, to netip.Addr, mtu int) (up, down bool) {
	t.Helper()
	headers := 28
	if to.Is6() {
		headers = 48
	}
	inside, outside := openUDP(t, h, to.Is4()), openUDP(t, relay, to.Is4())
	at := netip.AddrPortFrom(to, outside.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	sendUDP(t, inside, at.String(), make([]byte, mtu-headers))
	got, from := recvUDP(t, outside, soon)
	if len(got) != mtu-headers {
		t.Fatalf("a packet of %d bytes: got %d", mtu-headers, len(got))
	}
	sendUDP(t, outside, from.String(), make([]byte, mtu-headers))
	if got, _ := recvUDP(t, inside, soon); len(got) != mtu-headers {
		t.Fatalf("a packet of %d bytes back: got %d", mtu-headers, len(got))
	}
	told := func(pc net.PacketConn, peer netip.AddrPort, receiver net.PacketConn) bool {
		discover(t, pc, to.Is4())
		pc.WriteTo(make([]byte, mtu-headers+1), net.UDPAddrFromAddrPort(peer))
		if got, _ := recvUDP(t, receiver, never); got != "" {
			t.Errorf("a packet of %d bytes passed", mtu+1)
		}
		_, err := pc.WriteTo(make([]byte, mtu-headers+1), net.UDPAddrFromAddrPort(peer))
		return err != nil
	}
	return told(inside, at, outside), told(outside, from, inside)
}

// discover makes a socket send whole packets only, and fail with those that are larger than the path is known to take.
func discover(t *testing.T, pc net.PacketConn, v4 bool) {
	t.Helper()
	rc, err := pc.(*net.UDPConn).SyscallConn()
	if err == nil {
		ctl := rc.Control(func(fd uintptr) {
			if v4 {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
			}
		})
		if err == nil {
			err = ctl
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkInternet makes and ends the world of a pair test: a relay and two hosts, each behind a NAT.
func BenchmarkInternet(b *testing.B) {
	for b.Loop() {
		world := &shortLived{TB: b}
		w := New(world).Internet()
		w.Public("relay")
		w.Site(PortRestricted).Host("a")
		w.Site(CGNAT).Host("b")
		world.end()
	}
}

// shortLived is a test that ends before the one that it is part of.
type shortLived struct {
	testing.TB
	cleanups []func()
}

func (s *shortLived) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *shortLived) end() {
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
}
