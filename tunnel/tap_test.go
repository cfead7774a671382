package tunnel

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"testing"
)

// newTapTest is a tap over a fake TUN, with one member.
func newTapTest(t *testing.T) (x *side, me, peer *node) {
	x, peer = newSide(t, 1, false), addressesOf(2)
	x.know(peer)
	return x, x.node, peer
}

func TestFromOS(t *testing.T) {
	_, me, peer := newTapTest(t)
	n := testNetwork()
	stranger4, stranger6 := netip.MustParseAddr("100.77.3.3"), n.IdentitySubnet().Addr().Next()
	for _, tt := range []struct {
		name    string
		pkt     []byte
		super   bool
		want    outbound
		counter reason // reasons: none
		icmp    string // type/code of the answer
	}{
		{name: "to a member, v4", pkt: udpPacket(me.ip4, peer.ip4, 10), want: outMember, counter: reasons},
		{name: "to a member, v6", pkt: udpPacket(me.ip6, peer.ip6, 10), want: outMember, counter: reasons},
		{name: "to a control address", pkt: udpPacket(me.ip6, peer.ctl, 10), counter: outControl},
		{name: "to the own control address", pkt: udpPacket(me.ip6, me.ctl, 10), counter: outControl},
		{name: "from the control address", pkt: udpPacket(me.ctl, peer.ip6, 10), counter: outControl},
		{name: "control to control", pkt: udpPacket(me.ctl, peer.ctl, 10), counter: outControl},
		{name: "from elsewhere", pkt: udpPacket(stranger4, peer.ip4, 10), counter: outSource},
		{name: "link-local", pkt: udpPacket(netip.MustParseAddr("fe80::1"), peer.ip6, 10), counter: outSource},
		{name: "to the service, v4", pkt: udpPacket(me.ip4, n.Service4(), 10), counter: reasons, want: outStack},
		{name: "to the service, v6", pkt: udpPacket(me.ip6, n.Service6(), 10), counter: reasons, want: outStack},
		{name: "to nobody, v4", pkt: udpPacket(me.ip4, stranger4, 10), counter: outNoMember, icmp: "3/1"},
		{name: "to nobody, v6", pkt: udpPacket(me.ip6, stranger6, 10), counter: outNoMember, icmp: "1/3"},
		{name: "multicast", pkt: udpPacket(me.ip6, netip.MustParseAddr("ff02::1"), 10), counter: outNoMember},
		{name: "too big, v4", pkt: udpPacket(me.ip4, peer.ip4, 1300), counter: outTooBig, icmp: "3/4"},
		{name: "too big, v6", pkt: udpPacket(me.ip6, peer.ip6, 1300), counter: outTooBig, icmp: "2/0"},
		{name: "too big for one, but many", pkt: udpPacket(me.ip6, peer.ip6, 1300), super: true, want: outMember, counter: reasons},
		{name: "many to nobody", pkt: udpPacket(me.ip6, stranger6, 1300), super: true, counter: outNoMember},
		{name: "many to a control address", pkt: udpPacket(me.ip6, peer.ctl, 1300), super: true, counter: outControl},
		{name: "empty", counter: outMalformed},
		{name: "short", pkt: []byte{0x45, 0}, counter: outMalformed},
		{name: "cut", pkt: udpPacket(me.ip6, peer.ip6, 10)[:50], counter: outMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, _, peer := newTapTest(t)
			var answers icmpWriter
			size := len(tt.pkt)
			if tt.super {
				size = DefaultMTU
			}
			p, to := x.tap.fromOS(&answers, tt.pkt, size)
			if to != tt.want || (p == x.entry(peer)) != (to == outMember) {
				t.Errorf("goes to %v, %v", to, p)
			}
			want := map[reason]uint64{tt.counter: 1}
			delete(want, reasons)
			only(t, &x.c, want)
			checkICMP(t, x, tt.icmp, tt.pkt)
		})
	}
}

// checkICMP verifies the answer's addresses, checksums and quoted packet.
func checkICMP(t *testing.T, x *side, want string, cause []byte) {
	t.Helper()
	out := x.host.got()
	if want == "" {
		if len(out) != 0 {
			t.Errorf("answered")
		}
		return
	}
	if len(out) != 1 {
		t.Fatalf("%d answers", len(out))
	}
	p := out[0]
	src, dst, _, ok := addresses(p)
	if causeSrc, _, _, _ := addresses(cause); !ok || dst != causeSrc || !x.tap.self.Load().isService(src) {
		t.Errorf("answer from %s to %s", src, dst)
	}
	body, sum := p[ipv4HeaderLen:], uint16(0)
	if p[0]>>4 == 4 {
		if checksum(0, p[:ipv4HeaderLen]) != 0 {
			t.Error("bad header checksum")
		}
		sum = checksum(0, body)
	} else {
		body = p[ipv6HeaderLen:]
		sum = checksum(uint32(len(body))+58, p[8:40], body)
	}
	if sum != 0 {
		t.Error("bad checksum")
	}
	if got := string(rune('0'+body[0])) + "/" + string(rune('0'+body[1])); got != want {
		t.Errorf("answer %s, want %s", got, want)
	}
	if q := body[8:]; !slices.Equal(q, cause[:len(q)]) {
		t.Error("quotes something else")
	}
	if want == "3/4" && binary.BigEndian.Uint16(body[6:]) != DefaultMTU || want == "2/0" && binary.BigEndian.Uint32(body[4:]) != DefaultMTU {
		t.Error("without the MTU")
	}
}

func TestICMPErrorsAreLimited(t *testing.T) {
	x, me, _ := newTapTest(t)
	nobody := netip.MustParseAddr("100.77.3.3")
	pkt := udpPacket(me.ip4, nobody, 1)
	var answers icmpWriter
	for range 1000 {
		x.tap.fromOS(&answers, pkt, len(pkt))
	}
	if sent, held := len(x.host.got()), x.c[icmpLimited].Load(); sent < icmpBurst || sent > 500 || sent+int(held) != 1000 {
		t.Errorf("%d answers, %d held back", sent, held)
	}
	y, _, _ := newTapTest(t)
	unreachable := slices.Clone(x.host.got()[0])
	putAddresses(unreachable[12:], me.ip4, nobody)
	if y.tap.fromOS(new(icmpWriter), unreachable, len(unreachable)); len(y.host.got()) != 0 {
		t.Error("an ICMP error is answered with one")
	}
	y.host.refuse = os.ErrClosed
	y.tap.fromOS(new(icmpWriter), pkt, len(pkt))
	only(t, &y.c, map[reason]uint64{outNoMember: 2, inTUNWrite: 1})
}

func TestFromMember(t *testing.T) {
	_, me, peer := newTapTest(t)
	third, n := addressesOf(3), testNetwork()
	for _, tt := range []struct {
		name      string
		src, dst  netip.Addr
		userspace bool
		counter   reason
		want      inbound
	}{
		{"to us", peer.ip4, me.ip4, false, reasons, inTUN},
		{"to us, userspace", peer.ip6, me.ip6, true, reasons, inStack},
		{"control", peer.ctl, me.ctl, false, reasons, inStack},
		{"control, not ours", peer.ctl, n.ControlSubnet().Addr().Next(), false, inDestination, inDropped},
		{"control of a third", peer.ctl, third.ctl, false, inDestination, inDropped},
		{"identity to control", peer.ip6, me.ctl, false, inControl, inDropped},
		{"control to identity", peer.ctl, me.ip6, false, inControl, inDropped},
		{"to the service, v6", peer.ip6, n.Service6(), false, inDestination, inDropped},
		{"to the service, v4", peer.ip4, n.Service4(), true, inDestination, inDropped},
		{"to somebody else", peer.ip4, netip.MustParseAddr("100.77.9.9"), false, inDestination, inDropped},
		{"to another member", peer.ip4, third.ip4, false, inDestination, inDropped},
		{"from nobody", netip.MustParseAddr("100.77.9.9"), me.ip4, false, inSource, inDropped},
		{"from another member, v4", third.ip4, me.ip4, false, inSource, inDropped},
		{"from another member, v6", third.ip6, me.ip6, false, inSource, inDropped},
		{"from another member's control address", third.ctl, me.ctl, false, inSource, inDropped},
		{"from us", me.ip4, me.ip4, false, inSource, inDropped},
		{"from our control address", me.ctl, me.ctl, false, inSource, inDropped},
		{"from the service", n.Service6(), me.ip6, false, inSource, inDropped},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newSide(t, 1, tt.userspace)
			x.know(peer, third)
			pkt := udpPacket(tt.src, tt.dst, 5)
			padded := append(slices.Clone(pkt), make([]byte, 15)...)
			got, to := x.tap.fromMember(x.tap.self.Load(), x.tap.table.Load(), x.entry(peer), padded)
			if to != tt.want || to != inDropped && !slices.Equal(got, pkt) {
				t.Errorf("goes to %v with %d bytes", to, len(got))
			}
			want := map[reason]uint64{tt.counter: 1}
			delete(want, reasons)
			only(t, &x.c, want)
		})
	}
	x, _, _ := newTapTest(t)
	whole := udpPacket(peer.ip6, me.ip6, 30)
	for _, bad := range [][]byte{whole[:69], whole[:39], {0x45}, make([]byte, 64), udpPacket(peer.ip4, me.ip4, 30)[:57]} {
		if _, to := x.tap.fromMember(x.tap.self.Load(), x.tap.table.Load(), x.entry(peer), bad); to != inDropped {
			t.Errorf("%x is taken", bad)
		}
	}
	only(t, &x.c, map[reason]uint64{inMalformed: 5})
}

func TestFromStack(t *testing.T) {
	_, me, peer := newTapTest(t)
	n := testNetwork()
	for _, tt := range []struct {
		name     string
		src, dst netip.Addr
		want     error
		counter  reason
	}{
		{"control to control", me.ctl, peer.ctl, nil, reasons},
		{"identity to identity", me.ip4, peer.ip4, nil, reasons},
		{"the service answers a program", n.Service4(), me.ip4, errForHost, reasons},
		{"the service talks to a member", n.Service6(), peer.ip6, errDropped, outStackSource},
		{"to a service", me.ip6, n.Service6(), errDropped, outStackSource},
		{"control to identity", me.ctl, peer.ip6, errDropped, outStackSource},
		{"identity to control", me.ip6, peer.ctl, errDropped, outStackSource},
		{"to nobody", me.ip4, netip.MustParseAddr("100.77.9.9"), errNoMember, outNoMember},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, _, _ := newTapTest(t)
			p, err := x.tap.fromStack(udpPacket(tt.src, tt.dst, 5))
			if err != tt.want || (err == nil) != (p == x.entry(peer)) {
				t.Errorf("goes to %v, %v", p, err)
			}
			want := map[reason]uint64{tt.counter: 1}
			delete(want, reasons)
			only(t, &x.c, want)
		})
	}
	x, _, _ := newTapTest(t)
	if _, err := x.tap.fromStack([]byte{0x60}); err != errDropped {
		t.Errorf("half a packet: %v", err)
	}
}

// TestFilterJudges: the filter sees packets between identity addresses with the member at the other end, and nothing
// else.
func TestFilterJudges(t *testing.T) {
	x, me, peer := newTapTest(t)
	var seen []Direction
	self := *x.tap.self.Load()
	self.filter = func(dir Direction, pkt []byte, m *Member) bool {
		seen = append(seen, dir)
		return m.ID != peer.id.ID() || len(pkt) < 100
	}
	x.tap.self.Store(&self)
	out := func(size int) outbound {
		_, to := x.tap.fromOS(new(icmpWriter), udpPacket(me.ip4, peer.ip4, size), size+28)
		return to
	}
	in := func(size int) inbound {
		_, to := x.tap.fromMember(&self, x.tap.table.Load(), x.entry(peer), udpPacket(peer.ip6, me.ip6, size))
		return to
	}
	if out(1) != outMember || out(100) != outDropped || in(1) != inTUN || in(100) != inDropped {
		t.Error("the filter does not decide")
	}
	if _, err := x.tap.fromStack(udpPacket(me.ip4, peer.ip4, 100)); err != errFiltered {
		t.Errorf("the netstack's packet: %v", err)
	}
	if want := []Direction{Outbound, Outbound, Inbound, Inbound, Outbound}; !slices.Equal(seen, want) {
		t.Errorf("saw %v", seen)
	}
	if _, err := x.tap.fromStack(udpPacket(me.ctl, peer.ctl, 100)); err != nil {
		t.Errorf("control: %v", err)
	}
	_, to := x.tap.fromMember(&self, x.tap.table.Load(), x.entry(peer), udpPacket(peer.ctl, me.ctl, 100))
	if to != inStack || len(seen) != 5 {
		t.Error("control packets are shown to the filter")
	}
	if _, to := x.tap.fromOS(new(icmpWriter), udpPacket(me.ip4, x.tap.self.Load().service4, 100), 128); to != outStack || len(seen) != 5 {
		t.Error("service packets are shown to the filter")
	}
	only(t, &x.c, map[reason]uint64{outFilter: 2, inFilter: 1})
}

// TestFromOSTooBigForThePath: where the path to a member carries less than the interface does, programs are told what it
// carries, though never less than IPv6 is promised.
func TestFromOSTooBigForThePath(t *testing.T) {
	for _, tt := range []struct {
		size, limit int // MaxSize of the link; longest packet
	}{
		{0, 1500}, {9000, 1500}, {1432, 1400}, {1312, 1280}, {1000, 1280},
	} {
		x, me, peer := newTapTest(t)
		x.tap.mtu, x.links[peer].size = 1500, tt.size
		largest := udpPacket(me.ip6, peer.ip6, tt.limit-48)
		if _, to := x.tap.fromOS(new(icmpWriter), largest, len(largest)); to != outMember || len(largest) != tt.limit {
			t.Errorf("MaxSize %d: a packet of %d bytes goes to %v", tt.size, len(largest), to)
		}
		tooBig := udpPacket(me.ip6, peer.ip6, tt.limit-47)
		if _, to := x.tap.fromOS(new(icmpWriter), tooBig, len(tooBig)); to != outDropped {
			t.Errorf("MaxSize %d: a packet of %d bytes goes to %v", tt.size, len(tooBig), to)
		}
		if out := x.host.got(); len(out) != 1 || binary.BigEndian.Uint32(out[0][ipv6HeaderLen+4:]) != uint32(tt.limit) {
			t.Errorf("MaxSize %d: answers %x", tt.size, out)
		}
	}
}
