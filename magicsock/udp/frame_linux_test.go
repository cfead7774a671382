package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHeadStandsBeforeEach sends trains and single datagrams with a head: all arrive with it, alone or together.
func TestHeadStandsBeforeEach(t *testing.T) {
	const head = 0xC900000012345678
	for _, f := range families {
		for _, sizes := range [][]int{{1}, {1200}, repeat(1312, 40), repeat(100, 200), append(repeat(1312, 20), 77), {0, 5}} {
			a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
			for _, pkts := range [][][]byte{datagrams(sizes...), arena(sizes...)} {
				if err := a.Write(netip.AddrPortFrom(f.loopback, b.Port()), Source{Head: head}, pkts); err != nil {
					t.Fatal(err)
				}
				got, _ := readTrains(t, b, len(pkts), 8)
				for i := range pkts {
					want := append(binary.BigEndian.AppendUint64(nil, head), pkts[i]...)
					if !bytes.Equal(got[i], want) {
						t.Fatalf("%s: datagram %d of %d bytes is %x…, want %x…", f.network, i, len(pkts[i]), got[i][:min(16, len(got[i]))], want[:min(16, len(want))])
					}
				}
			}
			if c := a.Counters(); !c.GSO {
				t.Errorf("%s: heads cost segmentation offload", f.network)
			}
		}
	}
}

// TestFragmentIsForOneCall lets the datagrams of a call be fragmented, and only those.
func TestFragmentIsForOneCall(t *testing.T) {
	for _, f := range families {
		a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
		mode := func() (v int) {
			level, option := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
			if a.v6 {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
			}
			a.raw.Control(func(fd uintptr) { v, _ = unix.GetsockoptInt(int(fd), level, option) })
			return v
		}
		before := mode()
		to := netip.AddrPortFrom(f.loopback, b.Port())
		if err := a.Write(to, Source{Fragment: true}, datagrams(repeat(1400, 5)...)); err != nil {
			t.Fatal(err)
		}
		if got, _ := receive(t, b, 5, 8); len(got) != 5 {
			t.Errorf("%s: %d datagrams arrived", f.network, len(got))
		}
		if c := a.Counters(); mode() != before || !c.GSO {
			t.Errorf("%s: mode %d, before %d; segmentation offload %v", f.network, mode(), before, c.GSO)
		}
	}
}

// TestFragmentPassesSmallLinks sends what the link does not take in one piece.
func TestFragmentPassesSmallLinks(t *testing.T) {
	freshNamespace(t, 1280)
	for _, f := range families {
		a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
		to := netip.AddrPortFrom(f.loopback, b.Port())
		pkts := datagrams(repeat(1312, 20)...)
		if err := a.Write(to, Source{}, pkts); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("%s: err = %v", f.network, err)
		}
		if err := a.Write(to, Source{Fragment: true, Head: 7 << 32}, pkts); err != nil {
			t.Fatalf("%s: %v", f.network, err)
		}
		if got, _ := receive(t, b, len(pkts), 8); !bytes.Equal(got[19][headSize:], pkts[19]) {
			t.Errorf("%s: other datagrams arrived", f.network)
		}
		if err := a.Write(to, Source{}, pkts); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: the call after it: %v", f.network, err)
		}
	}
}
