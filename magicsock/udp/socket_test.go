package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meshnet/meshnet/internal/datagram"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// family is what the tests of both families differ in.
type family struct {
	network  string
	loopback netip.Addr
}

var families = []family{
	{"udp4", netip.MustParseAddr("127.0.0.1")},
	{"udp6", netip.MustParseAddr("::1")},
}

func listen(t testing.TB, c Config) *Socket {
	t.Helper()
	s, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// receive reads until count datagrams are there or two seconds are over, batch trains at a time.
func receive(t testing.TB, s *Socket, count, batch int) ([][]byte, []datagram.Source) {
	t.Helper()
	trains := make([]datagram.Train, batch)
	s.SetReadDeadline(time.Now().Add(2 * time.Second))
	defer s.SetReadDeadline(time.Time{})
	var got [][]byte
	var from []datagram.Source
	for len(got) < count {
		n, err := s.ReadTrains(trains)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(got), count, err)
		}
		for _, train := range trains[:n] {
			for pkt := range slices.Chunk(train.Data, train.Size) {
				got = append(got, bytes.Clone(pkt))
				from = append(from, train.From)
			}
		}
	}
	return got, from
}

// datagrams makes one datagram of each size, no two with the same content.
func datagrams(sizes ...int) [][]byte {
	pkts := make([][]byte, len(sizes))
	for i, size := range sizes {
		pkts[i] = bytes.Repeat([]byte{byte(i*7 + 1)}, size)
		if size >= 4 {
			binary.BigEndian.PutUint32(pkts[i], uint32(i))
		}
	}
	return pkts
}

func same(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d datagrams, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("datagram %d differs: %d bytes, want %d", i, len(got[i]), len(want[i]))
		}
	}
}

func repeat(size, count int) []int {
	sizes := make([]int, count)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

func TestBatchesArriveInOrder(t *testing.T) {
	mixed := append(repeat(1312, 70), 1, 2, 3, 700, 1312, 1312, 40, 1400, 1399, 1399, 9)
	for _, f := range families {
		for name, sizes := range map[string][]int{
			"one": {1200}, "equal": repeat(1280, 300), "mixed": mixed, "growing": {1, 2, 3, 4, 5}, "odd": repeat(333, 129),
			"large": {65000, 20, 65000}, "trains of the largest size": repeat(9000, 20),
		} {
			for _, batch := range []int{1, 7, 128} {
				t.Run(f.network+" "+name, func(t *testing.T) {
					a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
					pkts := datagrams(sizes...)
					copies := make([][]byte, len(pkts))
					for i := range pkts {
						copies[i] = bytes.Clone(pkts[i])
					}
					if err := a.Write(netip.AddrPortFrom(f.loopback, b.Port()), Source{}, pkts); err != nil {
						t.Fatal(err)
					}
					same(t, pkts, copies) // lent, not given
					got, sources := receive(t, b, len(pkts), batch)
					same(t, got, pkts)
					for _, from := range sources {
						if from.Addr != netip.AddrPortFrom(f.loopback, a.Port()) {
							t.Fatalf("from %v", from.Addr)
						}
					}
				})
			}
		}
	}
}

func TestDeadlineKicksBlockedRead(t *testing.T) {
	s := listen(t, Config{Network: "udp4"})
	done := make(chan error, 1)
	go func() {
		_, err := s.ReadTrains(make([]datagram.Train, 1))
		done <- err
	}()
	s.SetReadDeadline(time.Unix(1, 0))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("err = %v", err)
	}
	s.SetReadDeadline(time.Time{})
	to := netip.AddrPortFrom(families[0].loopback, s.Port())
	if err := s.Write(to, Source{}, datagrams(5)); err != nil {
		t.Fatal(err)
	}
	receive(t, s, 1, 1)
}

func TestCloseEndsBlockedRead(t *testing.T) {
	s := listen(t, Config{Network: "udp6"})
	done := make(chan error, 1)
	go func() {
		_, err := s.ReadTrains(make([]datagram.Train, 1))
		done <- err
	}()
	s.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("read: %v", err)
	}
	to := netip.AddrPortFrom(families[1].loopback, 9)
	if err := s.Write(to, Source{}, datagrams(5)); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("write: %v", err)
	}
}

func TestRefusalsOfTheOtherSideAreSilent(t *testing.T) {
	gone := listen(t, Config{Network: "udp4"})
	dead := netip.AddrPortFrom(families[0].loopback, gone.Port())
	gone.Close()
	s := listen(t, Config{Network: "udp4"})
	for range 3 {
		if err := s.Write(dead, Source{}, datagrams(10, 10, 10)); err != nil {
			t.Fatal(err)
		}
	}
	s.Write(netip.AddrPortFrom(families[0].loopback, s.Port()), Source{}, datagrams(20))
	receive(t, s, 1, 4)
}

func TestWrongUse(t *testing.T) {
	s := listen(t, Config{Network: "udp4"})
	if err := s.Write(netip.MustParseAddrPort("[::1]:9"), Source{}, datagrams(1)); !errors.Is(err, ErrFamily) {
		t.Errorf("other family: %v", err)
	}
	if err := s.Write(netip.AddrPort{}, Source{}, datagrams(1)); !errors.Is(err, ErrFamily) {
		t.Errorf("no address: %v", err)
	}
	if _, err := Listen(Config{Network: "tcp"}); err == nil {
		t.Error("tcp: no error")
	}
	if _, err := Listen(Config{Network: "udp4", Bind: netip.IPv6Loopback()}); !errors.Is(err, ErrFamily) {
		t.Errorf("bind: %v", err)
	}
	if _, err := Listen(Config{Network: "udp4", Port: s.Port()}); err == nil {
		t.Error("a taken port was shared")
	}
	six := listen(t, Config{Network: "udp6", Port: s.Port()}) // the same port of the other family is free
	if six.Port() != s.Port() {
		t.Errorf("port %d, want %d", six.Port(), s.Port())
	}
}

func TestConcurrentWriters(t *testing.T) {
	const writers, rounds, run = 8, 20, 10
	a, b := listen(t, Config{Network: "udp4"}), listen(t, Config{Network: "udp4"})
	to := netip.AddrPortFrom(families[0].loopback, b.Port())
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range rounds {
				pkts := make([][]byte, run)
				for i := range pkts {
					pkts[i] = bytes.Repeat([]byte{byte(w)}, 100+w)
				}
				if err := a.Write(to, Source{}, pkts); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[int]int{}
	got, _ := receive(t, b, writers*rounds*run, 64)
	wg.Wait()
	for _, p := range got {
		w := int(p[0])
		if len(p) != 100+w || bytes.Count(p, p[:1]) != len(p) {
			t.Fatalf("datagram of writer %d is torn", w)
		}
		seen[w]++
	}
	for w := range writers {
		if seen[w] != rounds*run {
			t.Errorf("writer %d: %d datagrams, want %d", w, seen[w], rounds*run)
		}
	}
}
