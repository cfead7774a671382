package relay_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// startRelay runs a relay with its front on loopback, until the test ends or stop is called.
func startRelay(t testing.TB) (url string, stop func()) {
	t.Helper()
	front, err := relayserver.Listen(relayserver.FrontConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	server := relayserver.New(relayserver.Config{STUNPort: front.STUNPort()})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := front.Run(ctx, server); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return front.URL().String(), stop
}

// startPool runs a pool over TLS until the test ends.
func startPool(t testing.TB, servers []string) *poolNode {
	t.Helper()
	key := identity.New()
	n := &poolNode{id: key.ID()}
	n.Pool = relay.NewPool(relay.PoolConfig{
		Identity: key, Deliver: n.deliver, Events: n.event,
		HomesOf: func(identity.PeerID) []string { return servers },
	})
	if err := n.SetServers(servers); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return n
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A home that dies under traffic: datagrams flow by the second one within two seconds.
func TestPoolOverTLS(t *testing.T) {
	first, stopFirst := startRelay(t)
	second, stopSecond := startRelay(t)
	stops := map[string]func(){first: stopFirst, second: stopSecond}
	servers := []string{first, second}
	a, b := startPool(t, servers), startPool(t, servers)
	until(t, "both have both homes", func() bool { return len(a.Homes()) == 2 && len(b.Homes()) == 2 })

	n := 0
	flows := func() {
		t.Helper()
		b.heard()
		until(t, "a datagram comes", func() bool {
			n++
			a.say(b, fmt.Sprint(n))
			return b.heard() != ""
		})
	}
	flows()
	via := a.Via(b.id)
	if !slices.Contains(servers, via) {
		t.Fatalf("it goes via %q", via)
	}
	began := time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(stops[via])
	until(t, "another server is chosen", func() bool { return a.Via(b.id) != via })
	flows()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	} else {
		t.Logf("by the second after %v", took)
	}
	until(t, "the loss is announced", func() bool { return len(a.Homes()) == 1 && a.Homes()[0] != via })
	for _, s := range a.Status() {
		if s.URL != via && (!s.Connected || !s.Home || s.Latency <= 0 || s.TxBytes == 0 || s.STUN == "" || !s.Seen.IsValid()) {
			t.Errorf("status %+v", s)
		}
	}
}

func BenchmarkPoolSend(b *testing.B) {
	url, _ := startRelay(b)
	from, to := startPool(b, []string{url}), startPool(b, []string{url})
	until(b, "both are connected", func() bool { return len(from.Homes()) == 1 && len(to.Homes()) == 1 })
	pkts := make([][]byte, 32)
	for i := range pkts {
		pkts[i] = make([]byte, 1280)
	}
	from.Send(to.id, pkts, false)
	b.SetBytes(32 * 1280)
	b.ReportAllocs()
	for b.Loop() {
		from.Send(to.id, pkts, false)
	}
}
