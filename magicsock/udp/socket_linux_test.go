package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/datagram"
)

func TestTrainTellsWhereItArrived(t *testing.T) {
	for _, f := range families {
		t.Run(f.network, func(t *testing.T) {
			lo := loopbackIndex(t)
			a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
			for _, sizes := range [][]int{{100}, repeat(500, 5)} { // alone and as a train
				if err := a.Write(netip.AddrPortFrom(f.loopback, b.Port()), Source{}, datagrams(sizes...)); err != nil {
					t.Fatal(err)
				}
				_, sources := receive(t, b, len(sizes), 8)
				for _, from := range sources {
					want := datagram.Source{Addr: netip.AddrPortFrom(f.loopback, a.Port()), Local: f.loopback, IfIndex: lo}
					if from != want {
						t.Errorf("got %+v, want %+v", from, want)
					}
				}
			}
		})
	}
}

func loopbackIndex(t testing.TB) int {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 {
			return l.Index
		}
	}
	t.Fatal("no loopback")
	return 0
}

func TestSourceIsHonoured(t *testing.T) {
	lo := loopbackIndex(t)
	b := listen(t, Config{Network: "udp4"})
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), b.Port())
	for name, c := range map[string]struct {
		src  Source
		from string
		lost uint64
	}{
		"address":            {Source{Addr: netip.MustParseAddr("127.0.0.2")}, "127.0.0.2", 0},
		"address and link":   {Source{Addr: netip.MustParseAddr("127.0.0.2"), IfIndex: lo}, "127.0.0.2", 0},
		"link":               {Source{IfIndex: lo}, "127.0.0.1", 0},
		"not ours":           {Source{Addr: netip.MustParseAddr("192.0.2.77")}, "127.0.0.1", 1},
		"no such link":       {Source{IfIndex: 1 << 20}, "127.0.0.1", 1},
		"of another family":  {Source{Addr: netip.IPv6Loopback()}, "127.0.0.1", 0},
		"the kernel chooses": {Source{}, "127.0.0.1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := listen(t, Config{Network: "udp4"})
			if err := a.Write(to, c.src, datagrams(300, 300, 300, 7)); err != nil {
				t.Fatal(err)
			}
			_, sources := receive(t, b, 4, 8)
			for _, from := range sources {
				if from.Addr.Addr().String() != c.from || from.Local != to.Addr() {
					t.Errorf("from %v to %v, want from %s", from.Addr, from.Local, c.from)
				}
			}
			if got := a.Counters(); got.TxNoSource != c.lost || !got.GSO {
				t.Errorf("counters %+v, want TxNoSource %d and GSO still on", got, c.lost)
			}
		})
	}
}

func TestSourceIsHonoured6(t *testing.T) {
	a, b := listen(t, Config{Network: "udp6"}), listen(t, Config{Network: "udp6"})
	to := netip.AddrPortFrom(netip.IPv6Loopback(), b.Port())
	for _, src := range []Source{
		{Addr: netip.IPv6Loopback()},
		{Addr: netip.IPv6Loopback(), IfIndex: loopbackIndex(t)},
		{Addr: netip.MustParseAddr("2001:db8::77")},
	} {
		if err := a.Write(to, src, datagrams(300, 300)); err != nil {
			t.Fatal(err)
		}
		_, sources := receive(t, b, 2, 8)
		if sources[0].Addr.Addr() != netip.IPv6Loopback() {
			t.Errorf("from %v", sources[0].Addr)
		}
	}
	if got := a.Counters().TxNoSource; got != 1 {
		t.Errorf("TxNoSource = %d, want 1", got)
	}
}

func TestWithoutOffload(t *testing.T) {
	for _, f := range families {
		t.Run(f.network, func(t *testing.T) {
			a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
			a.gso.Store(false)
			pkts := datagrams(append(repeat(1312, 300), 5, 1312)...)
			if err := a.Write(netip.AddrPortFrom(f.loopback, b.Port()), Source{}, pkts); err != nil {
				t.Fatal(err)
			}
			got, _ := receive(t, b, len(pkts), 32)
			same(t, got, pkts)
		})
	}
}

// Segmentation cannot work on a socket that sends no checksums: the kernel says EINVAL or EIO, as it does on a card
// that has none.
func TestOffloadFallsBackForEver(t *testing.T) {
	a, b := listen(t, Config{Network: "udp4"}), listen(t, Config{Network: "udp4"})
	if !a.Counters().GSO {
		t.Skip("kernel without UDP_SEGMENT")
	}
	a.raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) })
	to := netip.AddrPortFrom(families[0].loopback, b.Port())
	for range 2 {
		pkts := datagrams(900, 900, 900, 3, 700, 700)
		if err := a.Write(to, Source{}, pkts); err != nil {
			t.Fatal(err)
		}
		got, _ := receive(t, b, len(pkts), 32)
		same(t, got, pkts)
		if a.Counters().GSO {
			t.Fatal("GSO still on")
		}
	}
}

func TestTooLargeForTheLink(t *testing.T) {
	for _, f := range families {
		t.Run(f.network, func(t *testing.T) {
			a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
			to := netip.AddrPortFrom(f.loopback, b.Port())
			pkts := datagrams(400, 65529, 65529, 400, 400, 20)
			if err := a.Write(to, Source{}, pkts); !errors.Is(err, ErrTooLarge) {
				t.Fatalf("err = %v", err)
			}
			got, _ := receive(t, b, 4, 8)
			same(t, got, [][]byte{pkts[0], pkts[3], pkts[4], pkts[5]})
			if c := a.Counters(); c.TxTooLarge != 2 || !c.GSO {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

func TestFragmentsOnlyWhenAllowed(t *testing.T) {
	for _, f := range families {
		s := listen(t, Config{Network: f.network})
		level, option, probe, dont := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, unix.IP_PMTUDISC_DONT
		if s.v6 {
			level, option, probe, dont = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_PMTUDISC_DONT
		}
		mode := func() (v int) {
			s.raw.Control(func(fd uintptr) { v, _ = unix.GetsockoptInt(int(fd), level, option) })
			return v
		}
		if got := mode(); got != probe {
			t.Errorf("%s: after Listen %d, want %d", f.network, got, probe)
		}
		if err := s.SetDontFragment(false); err != nil || mode() != dont {
			t.Errorf("%s: off: %v, mode %d, want %d", f.network, err, mode(), dont)
		}
		if err := s.SetDontFragment(true); err != nil || mode() != probe {
			t.Errorf("%s: on again: %v, mode %d", f.network, err, mode())
		}
	}
}

// Nobody reads and the buffer is tiny: loopback counts unread datagrams against the sender.
func TestFullBufferDropsInBoundedTime(t *testing.T) {
	a, b, err := unixPair()
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(a)
	defer unix.Close(b)
	s := listen(t, Config{Network: "udp4"})
	w := newSender(s)
	w.pkts = datagrams(repeat(10, 5)...)
	w.pos = 2
	for unix.Sendto(a, make([]byte, 4096), unix.MSG_DONTWAIT, nil) == nil {
	}
	began := time.Now()
	for w.refused(uintptr(a), unix.EAGAIN) {
	}
	if took := time.Since(began); took < maxBlock || took > 50*maxBlock {
		t.Errorf("took %v", took)
	}
	if got := s.Counters().TxFull; got != 3 {
		t.Errorf("TxFull = %d, want 3", got)
	}
}

func unixPair() (a, b int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	return fds[0], fds[1], err
}

func TestKernelDropsAreCounted(t *testing.T) {
	a, b := listen(t, Config{Network: "udp4"}), listen(t, Config{Network: "udp4"})
	b.raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	a.gso.Store(false)
	to := netip.AddrPortFrom(families[0].loopback, b.Port())
	for range 4 {
		a.Write(to, Source{}, datagrams(repeat(1300, 100)...))
	}
	deadline := time.Now().Add(2 * time.Second)
	for b.Counters().RxOverflow == 0 && time.Now().Before(deadline) {
		a.Write(to, Source{}, datagrams(10)) // the total travels with what arrives
		receive(t, b, 1, 64)
	}
	if b.Counters().RxOverflow == 0 {
		t.Error("no overflow counted")
	}
}

func TestLinkLocalZones(t *testing.T) {
	addr, ok := linkLocal(t)
	if !ok {
		t.Skip("no link-local IPv6 address here")
	}
	a, b := listen(t, Config{Network: "udp6"}), listen(t, Config{Network: "udp6"})
	if err := a.Write(netip.AddrPortFrom(addr, b.Port()), Source{}, datagrams(100)); err != nil {
		t.Fatal(err)
	}
	_, sources := receive(t, b, 1, 1)
	if sources[0].Addr != netip.AddrPortFrom(addr, a.Port()) {
		t.Errorf("from %v, want %v", sources[0].Addr, addr)
	}
}

func linkLocal(t *testing.T) (netip.Addr, bool) {
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		addrs, _ := l.Addrs()
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() && l.Flags&net.FlagRunning != 0 {
				return p.Addr().WithZone(l.Name), true
			}
		}
	}
	return netip.Addr{}, false
}

func TestZones(t *testing.T) {
	var z zones
	lo := uint32(loopbackIndex(t))
	name := z.zone(lo)
	if z.scope(name) != lo || z.scope(fmt.Sprint(lo)) != lo {
		t.Errorf("zone %q: scope %d, want %d", name, z.scope(name), lo)
	}
	if got := z.zone(1 << 30); got != fmt.Sprint(1<<30) || z.scope(got) != 1<<30 {
		t.Errorf("unknown link: %q", got)
	}
	if z.scope("no such link") != 0 || z.zone(0) != "" {
		t.Error("nothing is something")
	}
}

// count is how many datagrams trains hold.
func count(trains []datagram.Train) (n int) {
	for _, t := range trains {
		n += (len(t.Data) + t.Size - 1) / t.Size
	}
	return n
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, f := range families {
		for _, gso := range []bool{true, false} {
			t.Run(fmt.Sprint(f.network, " gso ", gso), func(t *testing.T) {
				a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
				a.gso.Store(gso)
				pkts := datagrams(append(repeat(1280, 40), 50, 900)...)
				to := netip.AddrPortFrom(f.loopback, b.Port())
				trains := make([]datagram.Train, readMessages)
				allocs := testing.AllocsPerRun(200, func() {
					if err := a.Write(to, Source{Addr: f.loopback}, pkts); err != nil {
						t.Fatal(err)
					}
					for left := len(pkts); left > 0; {
						n, err := b.ReadTrains(trains)
						if err != nil {
							t.Fatal(err)
						}
						left -= count(trains[:n])
					}
				})
				if allocs != 0 {
					t.Errorf("%v allocations a batch", allocs)
				}
			})
		}
	}
}

func FuzzParseControl(f *testing.F) {
	var c controlBuffer
	at, data := appendControl(c.bytes(), 0, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	putSource4(data, Source{IfIndex: 3})
	f.Add(c.bytes()[:at])
	f.Fuzz(func(t *testing.T, b []byte) {
		var c controlBuffer // aligned
		n := copy(c.bytes(), b)
		parseControl(c.bytes()[:n])
	})
}

func BenchmarkLoopback(b *testing.B) {
	for _, gso := range []bool{true, false} {
		b.Run(fmt.Sprintf("gso=%v", gso), func(b *testing.B) {
			s, r := listen(b, Config{Network: "udp4"}), listen(b, Config{Network: "udp4"})
			s.gso.Store(gso)
			pkts := datagrams(repeat(1280, 128)...)
			to := netip.AddrPortFrom(families[0].loopback, r.Port())
			trains := make([]datagram.Train, readMessages)
			b.SetBytes(128 * 1280)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Write(to, Source{}, pkts); err != nil {
					b.Fatal(err)
				}
				for left := len(pkts); left > 0; {
					n, err := r.ReadTrains(trains)
					if err != nil {
						b.Fatal(err)
					}
					left -= count(trains[:n])
				}
			}
		})
	}
}
