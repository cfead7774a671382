package e2e

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/netlab"
)

// The bars are a second; tests on a busy machine assert with a guard, the benchmark prints the figures.
const firstGuard = 3 * time.Second

// firstPacket is a way in which a pair comes to talk, and the time until a first packet came through.
type firstPacket struct {
	name string
	time func(a, b *node) time.Duration
}

// lose drops the first WireGuard message of a type that arrives at either of two hosts.
func lose(kind byte, nodes ...*node) {
	for _, n := range nodes {
		n.host.DropRule(netlab.Match{Proto: unix.IPPROTO_UDP, Payload: []byte{kind, 0, 0, 0}, First: 1})
	}
}

// restart stops a node and starts it anew; the time counts from its ready line.
func restart(n *node) {
	n.w.t.Helper()
	if err := n.proc.Stop(); err != nil {
		n.w.t.Fatal(err)
	}
	n.up()
}

var firstPackets = []firstPacket{
	{"restart", func(a, b *node) time.Duration {
		restart(b)
		return b.ping(a.ip4, 20*time.Second)
	}},
	{"first initiation lost", func(a, b *node) time.Duration {
		lose(1, a, b)
		restart(b)
		return b.ping(a.ip4, 20*time.Second)
	}},
	{"first response lost", func(a, b *node) time.Duration {
		lose(2, a, b)
		restart(b)
		return b.ping(a.ip4, 20*time.Second)
	}},
	{"both dial at once", func(a, b *node) time.Duration {
		for _, n := range []*node{a, b} {
			if err := n.proc.Stop(); err != nil {
				n.w.t.Fatal(err)
			}
		}
		a.begin()
		b.begin()
		a.awaitReady(20 * time.Second)
		b.awaitReady(20 * time.Second)
		var ab, ba time.Duration
		var wg sync.WaitGroup
		wg.Go(func() { ab, _ = a.tryPing(b.ip4, 20*time.Second) })
		wg.Go(func() { ba, _ = b.tryPing(a.ip4, 20*time.Second) })
		wg.Wait()
		return max(ab, ba)
	}},
	{"killed and restarted mid-traffic", func(a, b *node) time.Duration {
		a.ping(b.ip4, 20*time.Second)
		b.proc.Kill()
		to := b.ip4
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for { // traffic goes on while b is dead
				select {
				case <-done:
					return
				default:
					a.tryPing(to, 100*time.Millisecond)
				}
			}
		})
		b.up()
		took := a.ping(b.ip4, 20*time.Second)
		close(done)
		wg.Wait()
		return took
	}},
}

func TestFirstPacket(t *testing.T) {
	w := newWorld(t)
	a, b := w.pair(nil, nil)
	b.ping(a.ip4, 5*time.Second)
	for _, c := range firstPackets {
		t.Run(c.name, func(t *testing.T) {
			took := c.time(a, b)
			if took > firstGuard {
				t.Errorf("first packet after %v", took)
			}
			t.Logf("first packet after %v", took)
		})
	}
}

// BenchmarkBarFirstPacket prints the time from readiness to the first ping reply: at most a second each.
func BenchmarkBarFirstPacket(b *testing.B) {
	for _, c := range firstPackets {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b)
			alice, bob := w.pair(nil, nil)
			bob.ping(alice.ip4, 5*time.Second)
			report(b, 10, func() time.Duration { return c.time(alice, bob) })
		})
	}
}

// report measures a few times and reports the median and the worst.
func report(b *testing.B, times int, measure func() time.Duration) {
	b.Helper()
	var all []time.Duration
	for range times {
		all = append(all, measure())
	}
	slices.Sort(all)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(all[len(all)/2]), "ms-median")
	b.ReportMetric(ms(all[len(all)-1]), "ms-worst")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// coldJoin is the time from the start of `up --join` to the first reply of a ping from the new host.
func coldJoin(w *world, sw *netlab.Switch, founder *node, token string, i int) time.Duration {
	n := w.plug(sw, fmt.Sprintf("joiner%d", i), fmt.Sprintf("192.168.7.%d/24", 10+i))
	start := time.Now()
	n.begin("--join", "@"+token)
	for {
		if _, err := n.tryPing(founder.ip4, 20*time.Millisecond); err == nil {
			return time.Since(start)
		}
		if time.Since(start) > 20*time.Second {
			w.t.Fatalf("no ping from a joiner\n%s", n.proc.Output())
		}
	}
}

func TestColdJoin(t *testing.T) {
	w := newWorld(t)
	sw := w.lab.Switch("lan")
	founder := w.plug(sw, "founder", "192.168.7.1/24").up()
	took := coldJoin(w, sw, founder, founder.invite("--uses", "0"), 0)
	if took > firstGuard {
		t.Errorf("first ping reply %v after the start", took)
	}
	t.Logf("first ping reply %v after the start", took)
}

// BenchmarkBarColdJoin prints the median of ten joins on a LAN, from the start of the program to the first ping
// reply: at most a second.
func BenchmarkBarColdJoin(b *testing.B) {
	w := newWorld(b)
	sw := w.lab.Switch("lan")
	founder := w.plug(sw, "founder", "192.168.7.1/24").up()
	token := founder.invite("--uses", "0")
	i := 0
	report(b, 10, func() time.Duration {
		i++
		return coldJoin(w, sw, founder, token, i)
	})
}
