package udp

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/datagram"
)

// readTrains reads until count datagrams are there or two seconds are over, and copies them.
func readTrains(t testing.TB, s *Socket, count, batch int) (got [][]byte, trains []datagram.Train) {
	t.Helper()
	s.SetReadDeadline(time.Now().Add(2 * time.Second))
	defer s.SetReadDeadline(time.Time{})
	room := make([]datagram.Train, batch)
	for len(got) < count {
		n, err := s.ReadTrains(room)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(got), count, err)
		}
		for _, train := range room[:n] {
			trains = append(trains, train)
			for data := train.Data; len(data) > 0; data = data[min(train.Size, len(data)):] {
				got = append(got, bytes.Clone(data[:min(train.Size, len(data))]))
			}
		}
	}
	return got, trains
}

// arena makes datagrams that lie one behind the other.
func arena(sizes ...int) [][]byte {
	pkts := datagrams(sizes...)
	all := bytes.Join(pkts, nil)
	for i, size := range sizes {
		pkts[i], all = all[:size:size], all[size:]
	}
	return pkts
}

func TestTrainsArriveWhole(t *testing.T) {
	for _, f := range families {
		for name, sizes := range map[string][]int{
			"one": {1200}, "train": repeat(1312, 40), "with a tail": append(repeat(1312, 20), 77),
			"mixed": {500, 500, 500, 20, 1400, 1, 2, 3, 900, 900},
		} {
			for _, batch := range []int{1, 16} {
				t.Run(fmt.Sprint(f.network, " ", name, " ", batch), func(t *testing.T) {
					a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
					pkts := datagrams(sizes...)
					if err := a.Write(netip.AddrPortFrom(f.loopback, b.Port()), Source{}, pkts); err != nil {
						t.Fatal(err)
					}
					got, trains := readTrains(t, b, len(pkts), batch)
					same(t, got, pkts)
					want := datagram.Source{
						Addr: netip.AddrPortFrom(f.loopback, a.Port()), Local: f.loopback, IfIndex: loopbackIndex(t),
					}
					for _, train := range trains {
						if train.From != want || train.Size < 1 || train.Size > len(train.Data) {
							t.Errorf("%d bytes of %d from %+v, want %+v", len(train.Data), train.Size, train.From, want)
						}
					}
					if name == "train" && b.Counters().GRO && len(trains) != 1 {
						t.Errorf("%d trains, want 1", len(trains))
					}
				})
			}
		}
	}
}

func TestReadTrainsEnds(t *testing.T) {
	s := listen(t, Config{Network: "udp4"})
	if n, err := s.ReadTrains(nil); n != 0 || err != nil {
		t.Errorf("no room: %d, %v", n, err)
	}
	for _, c := range []struct {
		end  func()
		want error
	}{
		{func() { s.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{func() { s.Close() }, net.ErrClosed},
	} {
		done := make(chan error, 1)
		go func() {
			_, err := s.ReadTrains(make([]datagram.Train, 4))
			done <- err
		}()
		c.end()
		if err := <-done; !errors.Is(err, c.want) {
			t.Errorf("err = %v, want %v", err, c.want)
		}
		s.SetReadDeadline(time.Time{})
	}
}

func TestSourcesAreToldApart(t *testing.T) {
	b := listen(t, Config{Network: "udp4"})
	to := netip.AddrPortFrom(families[0].loopback, b.Port())
	var want []netip.AddrPort
	for range 4 {
		a := listen(t, Config{Network: "udp4"})
		for range 2 {
			a.Write(to, Source{}, datagrams(100))
			want = append(want, netip.AddrPortFrom(families[0].loopback, a.Port()))
		}
	}
	_, trains := readTrains(t, b, len(want), 16)
	for i, train := range trains {
		if train.From.Addr != want[i] {
			t.Errorf("train %d from %v, want %v", i, train.From.Addr, want[i])
		}
	}
}

func TestWriteOne(t *testing.T) {
	for _, f := range families {
		a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
		pkt := datagrams(148)[0]
		if err := a.WriteOne(netip.AddrPortFrom(f.loopback, b.Port()), Source{Addr: f.loopback}, pkt); err != nil {
			t.Fatal(err)
		}
		got, _ := receive(t, b, 1, 1)
		same(t, got, [][]byte{pkt})
	}
}

func TestGather(t *testing.T) {
	block := make([]byte, 100)
	for name, c := range map[string]struct {
		pkts [][]byte
		want []int
	}{
		"one":               {[][]byte{block[:10]}, []int{10}},
		"arena":             {[][]byte{block[:10], block[10:30], block[30:31]}, []int{31}},
		"a gap":             {[][]byte{block[:10], block[11:30]}, []int{10, 19}},
		"out of order":      {[][]byte{block[10:20], block[:10]}, []int{10, 10}},
		"the same twice":    {[][]byte{block[:10], block[:10]}, []int{10, 10}},
		"two arenas":        {[][]byte{block[:10], block[10:20], block[50:60], block[60:61]}, []int{20, 11}},
		"full slices":       {[][]byte{block[:10:10], block[10:20:20]}, []int{20}},
		"an empty one":      {[][]byte{{}}, []int{0}},
		"of other makings":  {[][]byte{make([]byte, 9), block[:5]}, []int{9, 5}},
		"apart, then joint": {[][]byte{block[50:60], block[:10], block[10:20]}, []int{10, 20}},
	} {
		t.Run(name, func(t *testing.T) {
			iovs := make([]unix.Iovec, len(c.pkts))
			n := gather(iovs, c.pkts)
			var got []int
			for i := range n {
				got = append(got, int(iovs[i].Len))
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("pieces %v, want %v", got, c.want)
			}
		})
	}
}

// TestArenaArrives sends arenas of every shape: more packets than pieces fit a plan, tails, several trains.
func TestArenaArrives(t *testing.T) {
	for _, sizes := range [][]int{
		repeat(300, 400), append(repeat(1312, 64), 64), append(repeat(1312, 200), 9, 1312, 1312), {1, 2, 3}, {65000, 400},
	} {
		for _, gso := range []bool{true, false} {
			a, b := listen(t, Config{Network: "udp4"}), listen(t, Config{Network: "udp4"})
			a.gso.Store(gso)
			pkts := arena(sizes...)
			if err := a.Write(netip.AddrPortFrom(families[0].loopback, b.Port()), Source{}, pkts); err != nil {
				t.Fatal(err)
			}
			got, _ := readTrains(t, b, len(pkts), 16)
			same(t, got, pkts)
		}
	}
}

func TestTrainsAllocateNothing(t *testing.T) {
	for _, f := range families {
		a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
		pkts := arena(append(repeat(1280, 40), 50)...)
		to := netip.AddrPortFrom(f.loopback, b.Port())
		trains := make([]datagram.Train, 16)
		allocs := testing.AllocsPerRun(200, func() {
			if a.Write(to, Source{Addr: f.loopback}, pkts) != nil || a.WriteOne(to, Source{}, pkts[0]) != nil {
				t.Fatal("not sent")
			}
			for left := 40*1280 + 50 + 1280; left > 0; {
				n, err := b.ReadTrains(trains)
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					left -= len(trains[i].Data)
				}
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations a batch", f.network, allocs)
		}
	}
}

// BenchmarkTrains moves trains of 64 datagrams, so many a write, and reads every byte of them.
func BenchmarkTrains(b *testing.B) {
	for _, many := range []int{1, 4, 8, 16} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			const size = 1312
			s, r := listen(b, Config{Network: "udp4"}), listen(b, Config{Network: "udp4"})
			pkts := arena(repeat(size, 48*many)...)
			to := netip.AddrPortFrom(families[0].loopback, r.Port())
			trains := make([]datagram.Train, 16)
			b.SetBytes(int64(len(pkts) * size))
			b.ReportAllocs()
			table, sum := crc32.MakeTable(crc32.Castagnoli), uint32(0)
			for b.Loop() {
				if err := s.Write(to, Source{}, pkts); err != nil {
					b.Fatal(err)
				}
				for left := len(pkts) * size; left > 0; {
					n, err := r.ReadTrains(trains)
					if err != nil {
						b.Fatal(err)
					}
					for i := range n {
						sum = crc32.Update(sum, table, trains[i].Data)
						left -= len(trains[i].Data)
					}
				}
			}
			b.Logf("checksum %x", sum)
		})
	}
}

// BenchmarkWrite sends a train whose datagrams lie one behind the other, or apart.
func BenchmarkWrite(b *testing.B) {
	for name, lay := range map[string]func(...int) [][]byte{"arena": arena, "apart": datagrams} {
		b.Run(name, func(b *testing.B) {
			s := listen(b, Config{Network: "udp4"})
			r := listen(b, Config{Network: "udp4"}) // reads nothing: its buffer is full soon, and the kernel drops
			pkts := lay(repeat(1312, 49)...)
			to := netip.AddrPortFrom(families[0].loopback, r.Port())
			b.SetBytes(49 * 1312)
			for b.Loop() {
				if err := s.Write(to, Source{}, pkts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
