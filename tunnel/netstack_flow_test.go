package tunnel

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/meshnet/meshnet/tunnel/noise"
)

// witness looks at every packet that leaves a's netstack, as it arrives at b, and at what a's policy is asked.
type witness struct {
	mu      sync.Mutex
	arrived map[string]int // by protocol
	large   int            // outbound packets above the MTU
	wrong   []error
}

func newWitness(a, b *node) *witness {
	w := &witness{arrived: make(map[string]int)}
	a.SetFilter(func(dir Direction, pkt []byte, _ *Member) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if dir == Outbound && len(pkt) > DefaultMTU {
			w.large++
		}
		return true
	})
	b.SetFilter(func(dir Direction, pkt []byte, _ *Member) bool {
		if dir == Outbound {
			return true
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		what, err := sound(pkt)
		if err != nil || len(pkt) > DefaultMTU {
			w.wrong = append(w.wrong, err)
		}
		w.arrived[what]++
		return true
	})
	return w
}

// check fails unless packets of a protocol arrived and all were right.
func (w *witness) check(t *testing.T, protocol string) (large, arrived int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrong) > 0 || w.arrived[protocol] == 0 {
		t.Errorf("%v arrived; %d are wrong: %v", w.arrived, len(w.wrong), w.wrong[:min(3, len(w.wrong))])
	}
	return w.large, w.arrived[protocol]
}

// connected is a TCP connection between two nodes: from a to an address of b's.
func connected(t *testing.T, a, b *node, to netip.Addr) (x, y net.Conn) {
	t.Helper()
	l, err := b.Listen("tcp", netip.AddrPortFrom(to, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if x, err = a.Dial(t.Context(), "tcp", l.Addr().(*net.TCPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	if y, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = x.Close()
		_ = y.Close()
	})
	return x, y
}

// TestStackFlows: packets of every size that leave a netstack are right, whatever it leaves to others.
func TestStackFlows(t *testing.T) {
	a, b, _ := pair(t)
	var arrived uint64
	for _, tt := range []struct {
		protocol string
		to       netip.Addr
	}{{"tcp4", b.ip4}, {"tcp6", b.ip6}} {
		w := newWitness(a, b)
		x, y := connected(t, a, b, tt.to)
		for i, size := range []int{1, 2, 3, 1199, 1200, 1201, 2401, 65_535, 100_001, 1 << 20} {
			data, got := counting(size), make([]byte, size)
			from, to := x, y
			if i%2 == 1 {
				from, to = y, x
			}
			for range 2 {
				go func() { _, _ = from.Write(data) }()
				if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes over %s: %v", size, tt.protocol, err)
				}
				from, to = to, from
			}
		}
		large, packets := w.check(t, tt.protocol)
		if large == 0 {
			t.Errorf("%s: no large segments", tt.protocol)
		}
		arrived += uint64(packets)
	}
	s := b.stack.Stats().TCP
	if n := s.ChecksumErrors.Value(); n > 0 {
		t.Errorf("%d checksum errors", n)
	}
	if n := s.ValidSegmentsReceived.Value(); n >= arrived {
		t.Errorf("%d packets came as %d segments", arrived, n)
	}
}

// TestStackDatagrams: UDP is neither joined nor cut, and its checksum is there.
func TestStackDatagrams(t *testing.T) {
	a, b, _ := pair(t)
	for _, tt := range []struct {
		protocol string
		to       netip.Addr
	}{{"udp4", b.ip4}, {"udp6", b.ip6}} {
		w := newWitness(a, b)
		got := receiveUDP(t, b, netip.AddrPortFrom(tt.to, 9))
		c, err := a.Dial(t.Context(), "udp", netip.AddrPortFrom(tt.to, 9))
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, size := range []int{1, 2, 3, 99, 100, 501, 1000, 1231, 1232} {
			for range 3 {
				want = append(want, string(counting(size)))
				_, _ = c.Write(counting(size))
			}
		}
		expect(t, got, want...)
		w.check(t, tt.protocol)
		_ = c.Close()
	}
}

// TestStackFlowsWithLoss: both directions at once arrive whole although datagrams are lost and change places.
func TestStackFlowsWithLoss(t *testing.T) {
	a, b, sky := pair(t)
	const seed = 5
	r := rand.New(rand.NewPCG(seed, seed)) // guarded by the air's lock
	sky.setScript(func(f *flight) fate {
		if f.kind() != noise.TypeData {
			return fate{}
		}
		return fate{drop: r.IntN(100) == 0, hold: r.IntN(100) == 0}
	})
	for _, to := range []netip.Addr{b.ip4, b.ip6} {
		x, y := connected(t, a, b, to)
		data := make([]byte, 4<<20)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
		want := sha256.Sum256(data)
		var wg sync.WaitGroup
		for _, ends := range [][2]net.Conn{{x, y}, {y, x}} {
			wg.Go(func() {
				if _, err := ends[0].Write(data); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				h := sha256.New()
				if n, err := io.CopyN(h, ends[1], int64(len(data))); err != nil || [32]byte(h.Sum(nil)) != want {
					t.Errorf("%d bytes to %s: %v", n, to, err)
				}
			})
		}
		wg.Wait()
	}
}
