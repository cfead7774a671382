package relayserver_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// pair is two clients of one relay.
type pair struct {
	a, b     *relay.Client
	bID      identity.PeerID
	received atomic.Uint64
	tell     func(arrived int) // nil: nobody
}

func newPair(b testing.TB, dial func(context.Context) (relay.Stream, error)) *pair {
	b.Helper()
	p := &pair{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	connect := func(deliver func([]datagram.Relayed, func())) (*relay.Client, identity.PeerID) {
		stream, err := dial(ctx)
		if err != nil {
			b.Fatal(err)
		}
		id := identity.New()
		c, err := relay.NewClient(ctx, stream, relay.ClientConfig{Identity: id, Deliver: deliver})
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() { c.Run(ctx) })
		return c, id.ID()
	}
	p.a, _ = connect(nil)
	p.b, p.bID = connect(func(batch []datagram.Relayed, done func()) {
		n := len(batch)
		done()
		p.received.Add(uint64(n))
		if p.tell != nil {
			p.tell(n)
		}
	})
	b.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return p
}

// BenchmarkForward sends datagrams from one client to another, 32 at a time, with at most 256 KiB on their way: full ones
// and small ones in trains, and full ones each in a frame of its own. The time of the processor is that of both clients
// and the relay.
func BenchmarkForward(b *testing.B) {
	for _, mode := range []string{"tls", "memory"} {
		b.Run(mode, func(b *testing.B) {
			var dial func(context.Context) (relay.Stream, error)
			if mode == "tls" {
				dial = newTLSWorld(b, relayserver.Config{}).Dial
			} else {
				m := relayserver.NewMemory(relayserver.Config{})
				b.Cleanup(func() { m.Close() })
				dial = m.Dial
			}
			b.Run("full", func(b *testing.B) { benchForward(b, newPair(b, dial), 1452, 0) })
			b.Run("single", func(b *testing.B) { benchForward(b, newPair(b, dial), 1452, 1) })
			b.Run("small", func(b *testing.B) { benchForward(b, newPair(b, dial), 100, 0) })
		})
	}
}

// benchForward sends datagrams of size bytes, and of less by what differs: then they make no trains.
func benchForward(b *testing.B, p *pair, size, differs int) {
	const batch = 32
	pkts := make([][]byte, batch)
	for i := range pkts {
		pkts[i] = make([]byte, size-differs*(batch-1-i))
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	began, cpu := time.Now(), cpuTime()
	window := uint64(256 << 10 / (size + 40))
	for sent := uint64(0); sent < uint64(b.N); sent += batch {
		for sent-p.received.Load() > window {
			time.Sleep(10 * time.Microsecond)
		}
		if err := p.a.Send(p.bID, pkts, false); err != nil {
			b.Fatal(err)
		}
	}
	for p.received.Load() < uint64(b.N) {
		time.Sleep(10 * time.Microsecond)
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "pkt/s")
	b.ReportMetric((cpuTime()-cpu).Seconds()/(float64(b.N)*float64(size)/1e9), "cpu-s/GB")
}
