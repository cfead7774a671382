package magicsock

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/netmap"
)

// wgResponse is the type of a handshake response.
const wgResponse = 2

// batch is one call of take, copied.
type batch struct {
	now    time.Time
	trains []datagram.Train
}

// side is one end of a test: a Conn whose legs are read as the data path does, and its events.
type side struct {
	id      *identity.Identity
	conn    *Conn
	events  chan Event
	past    []Event // events that an await passed over
	batches chan batch
	waiting [][]byte // received and not yet asked for
}

func newSide(t *testing.T, seed byte, cfg Config) *side {
	t.Helper()
	s := &side{
		id:     identity.FromSeed(identity.Secret{seed}),
		events: make(chan Event, 1000), batches: make(chan batch, 1000),
	}
	cfg.Identity, cfg.Events = s.id, func(e Event) { s.events <- e }
	var err error
	if s.conn, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { s.conn.Run(ctx) })
	for leg := range s.conn.Legs() {
		wg.Go(func() {
			if err := s.conn.Receive(ctx, leg, s.take); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return s
}

func (s *side) take(now time.Time, trains []datagram.Train) {
	b := batch{now: now, trains: slices.Clone(trains)}
	for i := range trains {
		b.trains[i].Data = bytes.Clone(trains[i].Data)
	}
	s.batches <- b
}

func (s *side) addr() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.conn.Port())
}

func (s *side) peer(addrs ...netip.AddrPort) netmap.Peer {
	return netmap.Peer{ID: s.id.ID(), WG: s.id.WG(), Disco: s.id.Disco(), Endpoints: addrs}
}

func (s *side) know(peers ...netmap.Peer) {
	slices.SortFunc(peers, func(a, b netmap.Peer) int { return a.ID.Compare(b.ID) })
	s.conn.SetMap(&netmap.Map{
		Network: netmap.Network{ID: identity.NetworkID{7}},
		Self:    s.peer(), Peers: peers, Keys: []identity.Secret{{9}},
	})
}

func (s *side) await(t *testing.T, what string, match func(Event) bool) Event {
	t.Helper()
	if i := slices.IndexFunc(s.past, match); i >= 0 {
		e := s.past[i]
		s.past = slices.Delete(s.past, i, i+1)
		return e
	}
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e := <-s.events:
			if match(e) {
				return e
			}
			s.past = append(s.past, e)
		case <-deadline:
			t.Fatalf("no event: %s", what)
		}
	}
}

func (s *side) handle(t *testing.T, of *side) *handle {
	t.Helper()
	h, ok := s.conn.PeerByKey(of.id.WG()).(*handle)
	if !ok {
		t.Fatal("no handle")
	}
	return h
}

func (s *side) send(t *testing.T, to *side, pkt []byte) {
	t.Helper()
	s.handle(t, to).Send(time.Now(), [][]byte{pkt})
}

func (s *side) batch(t *testing.T) batch {
	t.Helper()
	select {
	case b := <-s.batches:
		return b
	case <-time.After(10 * time.Second):
		t.Fatal("nothing received")
		return batch{}
	}
}

// receive is the next datagram.
func (s *side) receive(t *testing.T) []byte {
	t.Helper()
	for len(s.waiting) == 0 {
		for _, train := range s.batch(t).trains {
			s.waiting = slices.AppendSeq(s.waiting, slices.Chunk(train.Data, train.Size))
		}
	}
	pkt := s.waiting[0]
	s.waiting = s.waiting[1:]
	return pkt
}

func wgPacket(kind byte, size int) []byte {
	return append([]byte{kind, 0, 0, 0}, bytes.Repeat([]byte{kind}, size-4)...)
}

func isReachable(e *side) func(Event) bool {
	return func(got Event) bool { return got.Type == EventReachable && got.Peer == e.id.ID() }
}

// isPathTo matches that data to another side goes by its address.
func isPathTo(e *side) func(Event) bool {
	return func(got Event) bool {
		return got.Type == EventPathChanged && got.Peer == e.id.ID() && got.Path.Addr == e.addr()
	}
}

// TestContact goes the whole way: a wants b, only a knows an address; b learns a's from the ping.
func TestContact(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	a.conn.Contact(b.id.ID())
	a.await(t, "b is reachable", isReachable(b))
	b.await(t, "b confirms its path", isPathTo(a))
	a.send(t, b, wgPacket(wgInitiation, 148))
	if got := b.receive(t); got[0] != wgInitiation {
		t.Fatalf("received %x", got)
	}
	b.send(t, a, wgPacket(wgResponse, 92))
	if got := a.receive(t); got[0] != wgResponse {
		t.Fatalf("received %x", got)
	}
	info, ok := a.conn.Peer(b.id.ID())
	if !ok || info.Path.Kind != PathDirect || info.Path.Addr != b.addr() || info.Path.RTT <= 0 {
		t.Fatalf("path = %+v", info.Path)
	}
	if e := a.await(t, "observed", func(e Event) bool { return e.Type == EventObserved }); e.Observed != a.addr() {
		t.Fatalf("observed at %v, want %v", e.Observed, a.addr())
	}
}

// TestStrangers gives the data path what looks like WireGuard, and nothing else.
func TestStrangers(t *testing.T) {
	a := newSide(t, 1, Config{})
	a.know()
	stranger, err := net.Dial("udp4", a.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Write([]byte("garbage"))
	stranger.Write(append([]byte{0xC4}, make([]byte, 200)...))
	stranger.Write(wgPacket(wgTransport, 64))
	if got := a.receive(t); got[0] != wgTransport {
		t.Fatalf("received %x", got[:4])
	}
	count := a.conn.Counters()
	for _, name := range []string{"drop_foreign", "drop_unknown_tag"} {
		if count[name] != 1 {
			t.Errorf("%s = %d, want 1", name, count[name])
		}
	}
}

// TestRebindUnderReceivers swaps the sockets under the receivers many times while packets flow.
func TestRebindUnderReceivers(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	a.conn.Contact(b.id.ID())
	a.await(t, "a path", isPathTo(b))
	port := b.conn.Port()
	for range 20 {
		if err := b.conn.Rebind(); err != nil {
			t.Fatal(err)
		}
		if b.conn.Port() != port {
			t.Fatalf("port moved from %d to %d", port, b.conn.Port())
		}
		deadline := time.Now().Add(10 * time.Second)
		for arrived := false; !arrived; {
			a.send(t, b, wgPacket(wgTransport, 64))
			select {
			case <-b.batches:
				arrived = true
			case <-time.After(10 * time.Millisecond):
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing arrives after a rebind")
			}
		}
		for len(b.batches) > 0 {
			<-b.batches
		}
	}
}

// TestRebindTellsAtOnce rebinds right after a ping: the other side hears of the new socket all the same.
func TestRebindTellsAtOnce(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	a.conn.Contact(b.id.ID())
	a.await(t, "a path", isPathTo(b))
	before := a.conn.Counters()["pings_sent"]
	if err := a.conn.Rebind(); err != nil {
		t.Fatal(err)
	}
	if got := a.conn.Counters()["pings_sent"]; got != before+1 {
		t.Fatalf("%d pings after a rebind, want 1", got-before)
	}
}

func TestStrictPort(t *testing.T) {
	a := newSide(t, 1, Config{})
	id := identity.FromSeed(identity.Secret{2})
	if c, err := New(Config{Identity: id, Port: a.conn.Port(), Strict: true}); err == nil {
		c.Close()
		t.Fatal("an explicit port that is taken must fail")
	}
	c, err := New(Config{Identity: id, Port: a.conn.Port()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Port() == a.conn.Port() || c.Port() == 0 {
		t.Fatalf("port = %d", c.Port())
	}
}

// TestProvisionalMember lets a member in anew that lost its state and comes from another port.
func TestProvisionalMember(t *testing.T) {
	a, b, again := newSide(t, 1, Config{}), newSide(t, 2, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	a.conn.Contact(b.id.ID())
	a.await(t, "a path", isPathTo(b))
	a.conn.AddProvisional(b.id.ID(), b.id.WG(), datagram.Place{Addr: again.addr()})
	again.conn.AddProvisional(a.id.ID(), a.id.WG(), datagram.Place{Addr: a.addr()})
	again.send(t, a, wgPacket(wgInitiation, 148))
	if got := a.receive(t); got[0] != wgInitiation {
		t.Fatalf("received %x", got[:4])
	}
}
