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

	"golang.zx2c4.com/wireguard/conn"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// side is one end of a test: a Conn, what it received for WireGuard, and its events.
type side struct {
	id     *identity.Identity
	conn   *Conn
	bind   conn.Bind
	events chan Event
	past   []Event // events that an await passed over
	got    chan []byte
}

func newSide(t *testing.T, seed byte, cfg Config) *side {
	t.Helper()
	s := &side{
		id:     identity.FromSeed(identity.Secret{seed}),
		events: make(chan Event, 1000), got: make(chan []byte, 1000),
	}
	cfg.Identity, cfg.Events = s.id, func(e Event) { s.events <- e }
	var err error
	if s.conn, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	s.bind = s.conn.Bind()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { s.conn.Run(ctx) })
	s.pump(t, &wg)
	t.Cleanup(func() {
		s.bind.Close()
		cancel()
		wg.Wait()
	})
	return s
}

// pump plays the device: it opens the bind and reads from all its functions.
func (s *side) pump(t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	funcs, _, err := s.bind.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, receive := range funcs {
		wg.Go(func() {
			bufs, sizes, eps := make([][]byte, batchSize), make([]int, batchSize), make([]conn.Endpoint, batchSize)
			for i := range bufs {
				bufs[i] = make([]byte, 2048)
			}
			for {
				n, err := receive(bufs, sizes, eps)
				if err != nil {
					return
				}
				for i := range n {
					if sizes[i] > 0 {
						s.got <- bytes.Clone(bufs[i][:sizes[i]])
					}
				}
			}
		})
	}
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

func (s *side) send(t *testing.T, to *side, pkt []byte) {
	t.Helper()
	ep, err := s.bind.ParseEndpoint(to.id.WG().Hex())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.bind.Send([][]byte{pkt}, ep); err != nil {
		t.Fatal(err)
	}
}

func (s *side) receive(t *testing.T) []byte {
	t.Helper()
	select {
	case pkt := <-s.got:
		return pkt
	case <-time.After(10 * time.Second):
		t.Fatal("nothing received")
		return nil
	}
}

func wgPacket(kind byte, size int) []byte {
	return append([]byte{kind, 0, 0, 0}, bytes.Repeat([]byte{kind}, size-4)...)
}

func isContact(from *side, initiate bool) func(Event) bool {
	return func(e Event) bool {
		return e.Type == EventContact && e.Peer == from.id.ID() && e.Initiate == initiate
	}
}

// TestContact goes the whole way: a wants b, only a knows an address; b learns a's from the ping.
func TestContact(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	a.conn.Contact(b.id.ID())
	b.await(t, "b learns that a wants it", isContact(a, false))
	b.conn.SetReady(a.id.ID(), true)
	a.await(t, "a is to initiate", isContact(b, true))
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

// TestBothWant checks that of two that want each other exactly one initiates.
func TestBothWant(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	a.know(b.peer(b.addr()))
	b.know(a.peer(a.addr()))
	a.conn.Contact(b.id.ID())
	b.conn.Contact(a.id.ID())
	low, high := a, b
	if b.id.ID().Compare(a.id.ID()) < 0 {
		low, high = b, a
	}
	low.conn.SetReady(high.id.ID(), true)
	high.conn.SetReady(low.id.ID(), true)
	low.await(t, "the lower id initiates", isContact(high, true))
	low.send(t, high, wgPacket(wgInitiation, 148))
	if got := high.receive(t); got[0] != wgInitiation {
		t.Fatalf("received %x", got)
	}
	high.send(t, low, wgPacket(wgInitiation, 148))
	high.send(t, low, wgPacket(wgTransport, 32))
	if got := low.receive(t); got[0] != wgTransport {
		t.Fatalf("the initiation of the higher id passed the lower one's: %x", got[:4])
	}
}

func TestStrangersInitiationIsDropped(t *testing.T) {
	a := newSide(t, 1, Config{})
	a.know()
	stranger, err := net.Dial("udp4", a.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Write(wgPacket(wgInitiation, 148))
	stranger.Write([]byte("garbage"))
	stranger.Write(append([]byte{0xC4}, make([]byte, 200)...))
	stranger.Write(wgPacket(wgTransport, 64))
	if got := a.receive(t); got[0] != wgTransport {
		t.Fatalf("received %x", got[:4])
	}
	count := a.conn.Counters()
	for _, name := range []string{"drop_unconfirmed_initiation", "drop_foreign", "drop_unknown_tag"} {
		if count[name] != 1 {
			t.Errorf("%s = %d, want 1", name, count[name])
		}
	}
}

// TestRebindUnderReceivers swaps the sockets many times while packets flow.
func TestRebindUnderReceivers(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	a.conn.Contact(b.id.ID())
	b.await(t, "contact", isContact(a, false))
	port := b.conn.Port()
	for range 20 {
		if err := b.conn.Rebind(); err != nil {
			t.Fatal(err)
		}
		if b.conn.Port() != port {
			t.Fatalf("port moved from %d to %d", port, b.conn.Port())
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		a.send(t, b, wgPacket(wgTransport, 64))
		select {
		case <-b.got:
			return
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing arrives after rebinds")
		}
	}
}

func TestBindReopens(t *testing.T) {
	s := &side{id: identity.FromSeed(identity.Secret{1}), got: make(chan []byte, 10)}
	var err error
	if s.conn, err = New(Config{Identity: s.id}); err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	s.bind = s.conn.Bind()
	if err := s.bind.Close(); err != nil {
		t.Fatalf("close before open: %v", err)
	}
	for range 10 {
		var wg sync.WaitGroup
		s.pump(t, &wg)
		if _, _, err := s.bind.Open(0); err != conn.ErrBindAlreadyOpen {
			t.Fatalf("second open: %v", err)
		}
		c, err := net.Dial("udp4", s.addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Write(wgPacket(wgTransport, 40))
		s.receive(t)
		c.Close()
		if err := s.bind.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait() // the receive functions have returned
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

func TestSendAllocatesNothing(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	a.conn.Contact(b.id.ID())
	b.await(t, "contact", isContact(a, false))
	a.await(t, "path", func(e Event) bool { return e.Type == EventPathChanged })
	ep, err := a.bind.ParseEndpoint(b.id.WG().Hex())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range b.got {
		}
	}()
	batch := [][]byte{wgPacket(wgTransport, 1312), wgPacket(wgTransport, 1312)}
	target := ep.(*endpoint)
	allocs := testing.AllocsPerRun(200, func() {
		target.trusted.Store(time.Now().UnixNano()) // verifying a path may allocate
		a.bind.Send(batch, ep)
	})
	if allocs > 0 {
		t.Fatalf("%.1f allocations per batch", allocs)
	}
}

// TestResponseSettlesInitiations counts initiations as unanswered only until the other side's own one is answered.
func TestResponseSettlesInitiations(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	ep, err := a.bind.ParseEndpoint(b.id.WG().Hex())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		a.send(t, b, wgPacket(wgInitiation, 148))
	}
	if got := ep.(*endpoint).unanswered.Load(); got != 3 {
		t.Fatalf("%d unanswered, want 3", got)
	}
	a.send(t, b, wgPacket(wgResponse, 92))
	if got := ep.(*endpoint).unanswered.Load(); got != 0 {
		t.Fatalf("%d unanswered after our response, want 0", got)
	}
}

// TestProvisionalMember lets a member in anew that lost its state and comes from another port.
func TestProvisionalMember(t *testing.T) {
	a, b, again := newSide(t, 1, Config{}), newSide(t, 2, Config{}), newSide(t, 2, Config{})
	b.know(a.peer())
	a.know(b.peer(b.addr()))
	a.conn.Contact(b.id.ID())
	b.await(t, "contact", isContact(a, false))
	a.conn.AddProvisional(b.id.ID(), b.id.WG(), again.addr())
	again.conn.AddProvisional(a.id.ID(), a.id.WG(), a.addr())
	again.send(t, a, wgPacket(wgInitiation, 148))
	if got := a.receive(t); got[0] != wgInitiation {
		t.Fatalf("received %x", got[:4])
	}
}

// TestCrossingInitiations lets two sides initiate at the same moment, in every order: exactly one initiation reaches a
// device.
func TestCrossingInitiations(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, order := range [][]string{
		{"low sends", "high sends", "low gets", "high gets"},
		{"low sends", "high sends", "high gets", "low gets"},
		{"high sends", "low gets", "low sends", "high gets"},
		{"low sends", "high gets", "high sends", "low gets"},
		{"high sends", "low sends", "low gets", "high gets"},
	} {
		var low, high gate
		var lowSent, highSent bool
		entered := 0
		for i, step := range order {
			at := now.Add(time.Duration(i) * time.Millisecond)
			switch step {
			case "low sends":
				lowSent = low.leave(at)
			case "high sends":
				highSent = high.leave(at)
			case "low gets":
				if highSent && low.enter(at, true) {
					entered++
				}
			case "high gets":
				if lowSent && high.enter(at, false) {
					entered++
				}
			}
		}
		if entered != 1 {
			t.Errorf("%v: %d initiations reach a device, want 1", order, entered)
		}
	}
}
