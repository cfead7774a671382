package sim

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	addrA = netip.MustParseAddr("192.0.2.1")
	addrB = netip.MustParseAddr("192.0.2.2")
	addrC = netip.MustParseAddr("192.0.2.3")
	addrN = netip.MustParseAddr("198.51.100.1")
	addr6 = netip.MustParseAddr("2001:db8::1")
)

// inbox collects what a socket is given.
type inbox struct {
	*Socket
	from []netip.AddrPort
	data []string
}

func bind(h *Host, port uint16) *inbox {
	in := new(inbox)
	in.Socket = h.Bind(port, func(from netip.AddrPort, pkt []byte) {
		in.from = append(in.from, from)
		in.data = append(in.data, string(pkt))
	})
	return in
}

func (in *inbox) send(to netip.Addr, port uint16, text string) {
	in.Send(netip.AddrPortFrom(to, port), []byte(text))
}

func TestSendTakesDelay(t *testing.T) {
	w := New(1)
	n := w.Network(Link{Delay: 10 * time.Millisecond})
	a, b := bind(n.Host(addrA), 1000), bind(n.Host(addrB, addr6), 2000)
	pkt := []byte("hello")
	a.Send(netip.AddrPortFrom(addrB, 2000), pkt)
	copy(pkt, "XXXXX")
	w.RunFor(10*time.Millisecond - 1)
	if len(b.data) != 0 {
		t.Error("too early")
	}
	w.RunFor(1)
	if !slices.Equal(b.data, []string{"hello"}) || b.from[0] != netip.AddrPortFrom(addrA, 1000) {
		t.Errorf("got %q from %v", b.data, b.from)
	}
	b.host.SetLink(Link{Delay: 5 * time.Millisecond})
	a.send(addrB, 2000, "slow")
	w.RunFor(15*time.Millisecond - 1)
	if len(b.data) != 1 {
		t.Error("the host's own line costs nothing")
	}
	w.RunFor(1)
	if len(b.data) != 2 {
		t.Error("nothing came over the host's own line")
	}
	got, want := a.host.Counters(), Counters{Sent: 2, SentBytes: 9}
	if got != want {
		t.Errorf("sender's counters %+v, want %+v", got, want)
	}
	want = Counters{Sent: 2, SentBytes: 9, Delivered: 2, DeliveredBytes: 9}
	if got := n.Counters(); got != want {
		t.Errorf("network's counters %+v, want %+v", got, want)
	}
}

func TestLossAndJitter(t *testing.T) {
	w := New(3)
	n := w.Network(Link{Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.25})
	a := bind(n.Host(addrA), 1)
	var times []time.Duration
	sent := w.Now()
	n.Host(addrB).Bind(2, func(netip.AddrPort, []byte) { times = append(times, w.Now().Sub(sent)) })
	const total = 10000
	for range total {
		a.send(addrB, 2, "x")
	}
	w.RunFor(time.Second)
	if lost := 1 - float64(len(times))/total; math.Abs(lost-0.25) > 0.02 {
		t.Errorf("lost %.3f, want about 0.25", lost)
	}
	if lo, hi := slices.Min(times), slices.Max(times); lo < 10*time.Millisecond || hi >= 20*time.Millisecond || hi-lo < 9*time.Millisecond {
		t.Errorf("delays %v to %v, want 10 to 20 ms", lo, hi)
	}
	if c := n.Counters(); c.Dropped != c.Drops[DropLoss] || c.Sent != c.Delivered+c.Dropped {
		t.Errorf("counters do not add up: %+v", c)
	}
}

func TestDropReasons(t *testing.T) {
	for _, tt := range []struct {
		want Reason
		make func(n *Network, a, b *inbox)
	}{
		{DropMTU, func(n *Network, a, _ *inbox) {
			n.SetLink(Link{MTU: 1280})
			a.Send(netip.AddrPortFrom(addrB, 2), make([]byte, 1280-28+1))
		}},
		{DropDown, func(n *Network, a, b *inbox) { n.SetDown(b.host, true); a.send(addrB, 2, "x") }},
		{DropDown, func(n *Network, a, _ *inbox) { n.SetDown(a.host, true); a.send(addrB, 2, "x") }},
		{DropDown, func(n *Network, a, b *inbox) { a.send(addrB, 2, "x"); n.SetDown(b.host, true) }},
		{DropPartition, func(n *Network, a, b *inbox) {
			n.Partition([]*Host{b.host}, []*Host{a.host})
			a.send(addrB, 2, "x")
		}},
		{DropNoAddress, func(_ *Network, a, _ *inbox) { a.send(addr6, 2, "x") }},
		{DropUnreachable, func(_ *Network, a, _ *inbox) { a.send(addrC, 2, "x") }},
		{DropUnreachable, func(_ *Network, a, b *inbox) { a.send(addrB, 2, "x"); b.host.SetAddrs(addrC) }},
		{DropNoSocket, func(_ *Network, a, _ *inbox) { a.send(addrB, 3, "x") }},
		{DropNoSocket, func(_ *Network, a, b *inbox) { a.send(addrB, 2, "x"); b.Close() }},
	} {
		t.Run(tt.want.String(), func(t *testing.T) {
			w := New(1)
			n := w.Network(Link{Delay: time.Millisecond})
			a, b := bind(n.Host(addrA), 1), bind(n.Host(addrB), 2)
			tt.make(n, a, b)
			w.RunFor(time.Second)
			c := a.host.Counters()
			if len(b.data) != 0 || c.Dropped != 1 || c.Drops[tt.want] != 1 {
				t.Errorf("delivered %q, counters %+v, want one drop: %v", b.data, c, tt.want)
			}
		})
	}
}

func TestHealAndUp(t *testing.T) {
	w := New(1)
	n := w.Network(Link{})
	a, b, c := bind(n.Host(addrA), 1), bind(n.Host(addrB), 2), bind(n.Host(addrC), 3)
	n.Partition([]*Host{a.host}, []*Host{b.host, c.host})
	n.SetDown(c.host, true)
	b.send(addrA, 1, "cut")
	n.Heal()
	n.SetDown(c.host, false)
	w.RunFor(0)
	b.send(addrA, 1, "healed")
	c.send(addrA, 1, "up")
	w.RunFor(0)
	// A partition is looked at on arrival: what is on its way when it ends arrives.
	if want := []string{"cut", "healed", "up"}; !slices.Equal(a.data, want) {
		t.Errorf("got %q, want %q", a.data, want)
	}
}

func TestMove(t *testing.T) {
	w := New(1)
	n := w.Network(Link{})
	nat := n.NAT(PortRestricted, addrN)
	a, b := bind(n.Host(addrA), 1000), bind(n.Host(addrB), 2000)
	a.host.Move(nat, netip.MustParseAddr("10.0.0.1"))
	a.send(addrB, 2000, "from inside")
	w.RunFor(0)
	a.host.Move(nil, addrC)
	a.send(addrB, 2000, "from outside")
	w.RunFor(0)
	want := []netip.AddrPort{netip.AddrPortFrom(addrN, 1000), netip.AddrPortFrom(addrC, 1000)}
	if !slices.Equal(b.from, want) {
		t.Errorf("seen as %v, want %v", b.from, want)
	}
}

func TestPortsAndAddresses(t *testing.T) {
	n := New(1).Network(Link{})
	h := n.Host(addrA)
	s1, s2 := h.Bind(0, nil), h.Bind(0, nil)
	if s1.Port() == s2.Port() || s1.Port() < firstFreePort {
		t.Errorf("free ports %d and %d", s1.Port(), s2.Port())
	}
	for name, fn := range map[string]func(){
		"taken port":       func() { h.Bind(s1.Port(), nil) },
		"taken address":    func() { n.Host(addrA) },
		"no address":       func() { n.Host(netip.Addr{}) },
		"two of a family":  func() { n.Host(addrB, addrC) },
		"taken by the NAT": func() { n.NAT(FullCone, addrA) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			fn()
		}()
	}
}

// chatter is a world in which 20 hosts, some behind NATs, talk at random; it returns everything that happened.
func chatter(seed uint64) (trace []string) {
	w := New(seed)
	n := w.Network(Link{Delay: 20 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.1})
	n.Observe(func(p Packet) { trace = append(trace, fmt.Sprint(p)) })
	var hosts []*inbox
	for i := range 20 {
		pub := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		if kind := NATKind(i % 5); kind == NATNone {
			hosts = append(hosts, bind(n.Host(pub), 1000))
		} else {
			hosts = append(hosts, bind(n.NAT(kind, pub).Host(netip.AddrFrom4([4]byte{10, 0, 0, 1})), 1000))
		}
	}
	var talk func()
	talk = func() {
		from := hosts[w.Rand().IntN(len(hosts))]
		if k := len(from.from); k > 0 && w.Rand().IntN(2) == 0 {
			from.Send(from.from[k-1], []byte("answer"))
		} else {
			from.send(netip.AddrFrom4([4]byte{192, 0, 2, byte(w.Rand().IntN(20) + 1)}), 1000, "hello")
		}
		w.After(time.Duration(w.Rand().IntN(int(10*time.Millisecond))), talk)
	}
	talk()
	w.RunFor(10 * time.Second)
	return trace
}

func TestSameSeedSameTrace(t *testing.T) {
	one, same, other := chatter(42), chatter(42), chatter(43)
	if len(one) < 1000 || !slices.Equal(one, same) {
		t.Errorf("seed 42 gave %d and %d packets, not the same", len(one), len(same))
	}
	if slices.Equal(one, other) {
		t.Error("another seed gave the same trace")
	}
}

func BenchmarkPackets(b *testing.B) {
	w := New(1)
	n := w.Network(Link{Delay: time.Millisecond, Jitter: time.Millisecond})
	from, to := n.Host(addrA).Bind(1, nil), netip.AddrPortFrom(addrB, 2)
	n.Host(addrB).Bind(2, func(netip.AddrPort, []byte) {})
	pkt := make([]byte, 1280)
	b.ReportAllocs()
	for b.Loop() {
		from.Send(to, pkt)
		w.RunFor(100 * time.Microsecond)
	}
}
