package udp

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/datagram"
)

// poll looks until there is something, or for two seconds.
func poll(t *testing.T, s *Socket, trains []datagram.Train) int {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Second); ; {
		n, err := s.PollTrains(trains)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing arrived")
		}
	}
}

func TestPollTrainsDoesNotWait(t *testing.T) {
	for _, f := range families {
		a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
		trains := make([]datagram.Train, 8)
		began := time.Now()
		for range 100 {
			if n, err := b.PollTrains(trains); n != 0 || err != nil {
				t.Fatalf("%s: %d trains, %v from an empty socket", f.network, n, err)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: 100 looks took %v", f.network, took)
		}
		pkts := datagrams(repeat(1200, 12)...)
		if err := a.Write(netip.AddrPortFrom(f.loopback, b.Port()), Source{}, pkts); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for len(got) < 12*1200 {
			for _, train := range trains[:poll(t, b, trains)] {
				got = append(got, train.Data...)
			}
		}
		if !bytes.Equal(got, bytes.Join(pkts, nil)) {
			t.Errorf("%s: other datagrams than were sent", f.network)
		}
		b.Close()
		if _, err := b.PollTrains(trains); err == nil {
			t.Errorf("%s: no word of the closed socket", f.network)
		}
	}
}

// TestKeptTrainsStay keeps what arrives, while more arrives in its place.
func TestKeptTrainsStay(t *testing.T) {
	a, b := listen(t, Config{Network: "udp4"}), listen(t, Config{Network: "udp4"})
	to := netip.AddrPortFrom(families[0].loopback, b.Port())
	trains := make([]datagram.Train, 8)
	type kept struct{ train, memory, want []byte }
	var all []kept
	fresh := make(map[*byte]bool)
	for round := range 40 {
		pkt := bytes.Repeat([]byte{byte(round + 1)}, 1000)
		if err := a.Write(to, Source{}, [][]byte{pkt}); err != nil {
			t.Fatal(err)
		}
		n := poll(t, b, trains)
		for i := range n {
			buf := make([]byte, TrainSize)
			fresh[&buf[0]] = true
			all = append(all, kept{trains[i].Data, b.Keep(i, buf), pkt})
		}
	}
	reused := 0
	for i, k := range all {
		if !bytes.Equal(k.train, k.want) {
			t.Fatalf("train %d changed after it was kept", i)
		}
		if len(k.memory) != TrainSize || &k.memory[0] != &k.train[0] {
			t.Fatalf("train %d lies elsewhere than in the memory that was left", i)
		}
		if fresh[&k.memory[0]] {
			reused++
		}
	}
	if reused == 0 {
		t.Error("what was given is never received into")
	}
}

// TestAheadIsTold marks some datagrams and sees which the receiver takes for marked.
func TestAheadIsTold(t *testing.T) {
	for _, f := range families {
		for _, ahead := range []bool{true, false} {
			a, b := listen(t, Config{Network: f.network}), listen(t, Config{Network: f.network})
			to := netip.AddrPortFrom(f.loopback, b.Port())
			src := Source{Ahead: ahead, Addr: f.loopback} // beside another control message
			if err := a.Write(to, src, datagrams(repeat(1200, 5)...)); err != nil {
				t.Fatal(err)
			}
			if err := a.WriteOne(to, Source{Ahead: ahead}, []byte("alone")); err != nil {
				t.Fatal(err)
			}
			trains := make([]datagram.Train, 8)
			for size := 0; size < 5*1200+5; {
				for _, train := range trains[:poll(t, b, trains)] {
					size += len(train.Data)
					if train.Ahead != ahead || train.From.Local != f.loopback {
						t.Errorf("%s: sent ahead %v, received %v at %v", f.network, ahead, train.Ahead, train.From.Local)
					}
				}
			}
		}
	}
}

// TestECNIsNotTheMark has the two bits of ECN set beside the mark, and alone.
func TestECNIsNotTheMark(t *testing.T) {
	for _, f := range families {
		for _, c := range []struct {
			class int
			ahead bool
		}{{aheadTOS, true}, {aheadTOS | 1, true}, {aheadTOS | 3, true}, {3, false}, {0xb8, false}, {0x80, false}} {
			b := listen(t, Config{Network: f.network})
			domain, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TOS
			if b.v6 {
				domain, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_TCLASS
			}
			fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.SetsockoptInt(fd, level, option, c.class); err != nil {
				t.Fatal(err)
			}
			var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(b.Port()), Addr: [4]byte{127, 0, 0, 1}}
			if b.v6 {
				to = &unix.SockaddrInet6{Port: int(b.Port()), Addr: f.loopback.As16()}
			}
			err = unix.Sendto(fd, []byte("marked"), 0, to)
			unix.Close(fd)
			if err != nil {
				t.Fatal(err)
			}
			trains := make([]datagram.Train, 1)
			if poll(t, b, trains); trains[0].Ahead != c.ahead {
				t.Errorf("%s: traffic class %#x is ahead: %v", f.network, c.class, trains[0].Ahead)
			}
		}
	}
}
