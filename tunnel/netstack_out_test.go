package tunnel

import (
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// counting is n bytes, none like its neighbour.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)
	}
	return b
}

func TestStackSegments(t *testing.T) {
	a, b := sidePair(t)
	w := newStackWriter(a.tap)
	for _, ips := range [][2]netip.Addr{{a.ip4, b.ip4}, {a.ip6, b.ip6}} {
		for _, size := range []int{0, 1, 999, 1000, 1001, 2000, 30_001, 64_999} {
			seq, data := 0xffff_fff0+uint32(size), counting(size)
			if err := hand(t, w, segmentOf(ips[0], ips[1], seq, data, 1000)); err != nil {
				t.Fatal(err)
			}
			sent := a.links[b.node].take()
			if want := max(1, (size+999)/1000); len(sent) != want {
				t.Errorf("%d bytes: %d packets, want %d", size, len(sent), want)
			}
			b.take(time.Now(), a.node, sent...)
			carries(t, b.got(), seq, data, DefaultMTU)
			if t.Failed() {
				t.Fatalf("%s, %d bytes", ips[0], size)
			}
		}
	}
	only(t, &a.c, nil)
	only(t, &b.c, nil)
}

// TestStackSegmentsWait: what comes before there is a session waits packet by packet, and nothing overtakes it.
func TestStackSegmentsWait(t *testing.T) {
	a, b := newSide(t, 1, false), newSide(t, 2, false)
	a.know(b.node)
	b.know(a.node)
	w, data := newStackWriter(a.tap), counting(60_000)
	part := func(from, to int) *stack.PacketBuffer {
		return segmentOf(a.ip4, b.ip4, uint32(from), data[from:to], 1200)
	}
	if err := hand(t, w, part(0, 20_000), part(20_000, 20_001)); err != nil {
		t.Fatal(err)
	}
	if err := hand(t, w, part(20_001, 40_000)); err != nil {
		t.Fatal(err)
	}
	if sent := a.links[b.node].take(); len(sent) != 0 {
		t.Fatalf("%d packets without a session", len(sent))
	}
	shake(t, sideEpoch, a, b)
	if err := hand(t, w, part(40_000, 60_000)); err != nil {
		t.Fatal(err)
	}
	b.take(time.Now(), a.node, a.links[b.node].take()...)
	carries(t, b.got(), 0, data, DefaultMTU)
}

// TestStackSegmentsBehindParked: with a session, packets still wait while others before them do.
func TestStackSegmentsBehindParked(t *testing.T) {
	a, b := sidePair(t)
	w, data := newStackWriter(a.tap), counting(50_000)
	p := a.entry(b.node)
	p.state.Store(parked)
	hand(t, w, segmentOf(a.ip6, b.ip6, 0, data[:30_000], 1100))
	if sent := a.links[b.node].take(); len(sent) != 0 {
		// The first finds that nothing waits and goes; whatever stays parked follows it.
		b.take(time.Now(), a.node, sent...)
	}
	a.open(time.Now(), b.node)
	hand(t, w, segmentOf(a.ip6, b.ip6, 30_000, data[30_000:], 1100))
	b.take(time.Now(), a.node, a.links[b.node].take()...)
	carries(t, b.got(), 0, data, DefaultMTU)
}

func TestStackSegmentsToHost(t *testing.T) {
	a := newSide(t, 1, false)
	w, data := newStackWriter(a.tap), counting(40_001)
	self := a.tap.self.Load()
	for _, ips := range [][2]netip.Addr{{self.service4, a.ip4}, {self.service6, a.ip6}} {
		if err := hand(t, w, segmentOf(ips[0], ips[1], 7, data, 1200)); err != nil {
			t.Fatal(err)
		}
		carries(t, a.got(), 7, data, DefaultMTU)
	}
}

// TestStackPolicy: a large segment is judged once.
func TestStackPolicy(t *testing.T) {
	a, b := sidePair(t)
	w, data := newStackWriter(a.tap), counting(12_000)
	asked, verdict := 0, true
	self := *a.tap.self.Load()
	self.filter = func(dir Direction, pkt []byte, _ *Member) bool {
		asked++
		if dir != Outbound || len(pkt) != 12_040 {
			t.Errorf("asked about %d bytes, direction %v", len(pkt), dir)
		}
		return verdict
	}
	a.tap.self.Store(&self)
	for _, verdict = range []bool{true, false} {
		asked = 0
		if err := hand(t, w, segmentOf(a.ip4, b.ip4, 0, data, 1200)); err != nil {
			t.Errorf("policy is no error: %v", err)
		}
		if n := len(a.links[b.node].take()); asked != 1 || (n == 10) != verdict || (n == 0) == verdict {
			t.Errorf("asked %d times, %d packets for %v", asked, n, verdict)
		}
	}
	only(t, &a.c, map[reason]uint64{outFilter: 1})
	stranger := netip.MustParseAddr("100.77.200.200")
	switch err := hand(t, w, segmentOf(a.ip4, stranger, 0, data, 1200)).(type) {
	case *tcpip.ErrHostUnreachable:
	default:
		t.Errorf("nobody has the address: %v", err)
	}
}

// TestStackAnswers: ICMP, which the stack itself makes, is right too.
func TestStackAnswers(t *testing.T) {
	a, b := sidePair(t)
	n, err := newNetstack(DefaultMTU, newStackWriter(a.tap).write)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	n.setAddresses([]netip.Addr{a.ip4, a.ip6})
	seen := make(map[string]int)
	for _, ips := range [][2]netip.Addr{{b.ip4, a.ip4}, {b.ip6, a.ip6}} {
		for _, size := range []int{0, 1, 7, 64, 501, 1201, 1232} {
			n.inject(echoRequest(ips[0], ips[1], counting(size)))
			n.inject(udpPacket(ips[0], ips[1], size)) // to a port nobody listens on
		}
	}
	eventually(t, "the answers", func() bool {
		b.take(time.Now(), a.node, a.links[b.node].take()...)
		for _, p := range b.got() {
			what, err := sound(p)
			if err != nil {
				t.Fatal(err)
			}
			seen[what]++
		}
		return seen["icmp4"] >= 14 && seen["icmp6"] >= 7
	})
}

// echoRequest asks for an answer with data.
func echoRequest(src, dst netip.Addr, data []byte) []byte {
	p := udpPacket(src, dst, len(data))
	l4 := p[len(p)-8-len(data):]
	clear(l4[:8])
	copy(l4[8:], data)
	if src.Is4() {
		l4[0], p[9] = 8, 1
		p[10], p[11] = 0, 0
		put16(p[10:], ^plainSum(p[:20]))
		put16(l4[2:], ^plainSum(l4))
		return p
	}
	l4[0], p[6] = 128, 58
	put16(l4[2:], ^plainSum(p[8:40], []byte{byte(len(l4) >> 8), byte(len(l4)), 0, 58}, l4))
	return p
}

func put16(b []byte, v uint16) { b[0], b[1] = byte(v>>8), byte(v) }
