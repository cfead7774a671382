//go:build !race

package relay_test

import (
	"testing"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// The way of a datagram through the pool, the client, the server and back to a pool costs no memory.
func TestPoolSendAllocates(t *testing.T) {
	w := newWorld(t)
	w.start("one", 0, relayserver.Config{})
	a := w.node("one")
	b := w.node("one", func(cfg *relay.PoolConfig) { cfg.Deliver = nil })
	until(t, "both are connected", func() bool { return len(a.Homes()) == 1 && len(b.Homes()) == 1 })
	a.knows(b, "one")
	pkts := [][]byte{make([]byte, 1280), make([]byte, 1280)}
	if n := testing.AllocsPerRun(2000, func() { a.Send(b.id, pkts, false) }); n != 0 {
		t.Errorf("%v allocations for two datagrams", n)
	}
	for what, f := range map[string]func(identity.PeerID){
		"Reaches": func(id identity.PeerID) { a.Reaches(id) },
		"Via":     func(id identity.PeerID) { a.Via(id) },
	} {
		if n := testing.AllocsPerRun(2000, func() { f(b.id) }); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}
