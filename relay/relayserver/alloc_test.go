package relayserver_test

import (
	"context"
	"testing"

	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// TestForwardAllocs sends datagrams through a relay: nobody on their way allocates, neither the clients nor the server.
// crypto/tls does so for every record it reads, of which there are three or four to pass twice.
func TestForwardAllocs(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	m := relayserver.NewMemory(relayserver.Config{})
	t.Cleanup(func() { m.Close() })
	t.Run("memory", func(t *testing.T) { testAllocs(t, m.Dial, 0) })
	t.Run("tls", func(t *testing.T) { testAllocs(t, newTLSWorld(t, relayserver.Config{}).Dial, 8) })
}

func testAllocs(t *testing.T, dial func(context.Context) (relay.Stream, error), most float64) {
	const batch = 32
	arrived := make(chan int, batch)
	p := newPair(t, dial)
	p.tell = func(n int) { arrived <- n }
	pkts := make([][]byte, batch)
	for i := range pkts {
		pkts[i] = make([]byte, 1400-i%2) // trains and single ones
	}
	for _, urgent := range []bool{false, true} {
		pass := func() {
			if err := p.a.Send(p.bID, pkts, urgent); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < batch; {
				n += <-arrived
			}
		}
		for range 50 {
			pass()
		}
		if n := testing.AllocsPerRun(500, pass); n > most {
			t.Errorf("urgent %v: %v allocations for %d datagrams, want %v", urgent, n, batch, most)
		}
	}
}
