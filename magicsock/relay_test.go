package magicsock

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/netmap"
)

// relayWire is a relay in memory: it hands every datagram to the other side.
type relayWire struct {
	from identity.PeerID
	to   *side
	down atomic.Bool
}

func (w *relayWire) Send(_ identity.PeerID, pkts [][]byte, _ bool) error {
	batch := make([]datagram.Relayed, 0, len(pkts))
	for _, pkt := range pkts {
		batch = append(batch, datagram.Relayed{From: w.from, Data: bytes.Clone(pkt)})
	}
	w.to.conn.DeliverRelayed(batch, nil)
	return nil
}

func (w *relayWire) Reaches(identity.PeerID) bool { return !w.down.Load() }

func (w *relayWire) Via(identity.PeerID) string { return "https://relay.example" }

// relayedPair are two sides that share a relay.
func relayedPair(t *testing.T) (a, b *side) {
	t.Helper()
	toB, toA := new(relayWire), new(relayWire)
	a, b = newSide(t, 1, Config{Relay: toB}), newSide(t, 2, Config{Relay: toA})
	toB.from, toB.to, toA.from, toA.to = a.id.ID(), b, b.id.ID(), a
	return a, b
}

// TestRelayLeg has no direct path at first: everything goes by the relay. Then an address becomes known, and data moves.
func TestRelayLeg(t *testing.T) {
	a, b := relayedPair(t)
	a.know(b.peer())
	b.know(a.peer())
	a.conn.Contact(b.id.ID())
	a.await(t, "contact over the relay", isReachable(b))
	a.send(t, b, wgPacket(wgInitiation, 148))
	if got := b.receive(t); got[0] != wgInitiation {
		t.Fatalf("received %x", got[:4])
	}
	b.send(t, a, wgPacket(wgResponse, 92))
	if got := a.receive(t); got[0] != wgResponse {
		t.Fatalf("received %x", got[:4])
	}
	if info, _ := a.conn.Peer(b.id.ID()); info.Path.Kind != PathRelay {
		t.Fatalf("path = %+v", info.Path)
	}
	a.know(netmap.Peer{ID: b.id.ID(), WG: b.id.WG(), Disco: b.id.Disco(), Endpoints: []netip.AddrPort{b.addr()}})
	a.conn.Contact(b.id.ID())
	a.await(t, "the direct path takes over", func(e Event) bool {
		return e.Type == EventPathChanged && e.Path.Kind == PathDirect && e.Path.Addr == b.addr()
	})
	a.send(t, b, wgPacket(wgTransport, 100))
	if got := b.receive(t); got[0] != wgTransport {
		t.Fatalf("received %x", got[:4])
	}
}

// TestRelayQueueIsBounded fills the queue while nobody reads; the rest is dropped and counted.
func TestRelayQueueIsBounded(t *testing.T) {
	c, err := New(Config{Identity: identity.FromSeed(identity.Secret{1}), Relay: new(relayWire)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan struct{})
	var ended atomic.Int64
	go func() {
		for range relayQueue + 100 {
			c.DeliverRelayed([]datagram.Relayed{{From: identity.PeerID{2}, Data: wgPacket(wgTransport, 40)}}, func() { ended.Add(1) })
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a full queue blocks")
	}
	if got := c.Counters()["drop_relay_full"]; got != 100 {
		t.Fatalf("%d dropped, want 100", got)
	}
	if got := ended.Load(); got != 100 {
		t.Fatalf("%d buffers given back, want 100", got)
	}
}
