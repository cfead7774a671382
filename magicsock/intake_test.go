package magicsock

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/udp"
	"github.com/meshnet/meshnet/netmap"
)

// foreignPacket is as long as its neighbours and belongs to nobody.
func foreignPacket(size int) []byte { return bytes.Repeat([]byte{0x7f}, size) }

func TestSortKeepsOrderAndRuns(t *testing.T) {
	const size = 100
	wg, other := wgPacket(wgTransport, size), foreignPacket(size)
	ping := append([]byte{byte(disco.TypePing)}, make([]byte, size-1)...)
	stun := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, make([]byte, size-8)...)
	reserved := append([]byte{wgTransport, 1, 0, 0}, make([]byte, size-4)...)
	for name, c := range map[string]struct {
		pkts [][]byte
		want []int // bytes of each train that is handed on
	}{
		"all":                {[][]byte{wg, wg, wg}, []int{300}},
		"with a tail":        {[][]byte{wg, wg, wg[:50]}, []int{250}},
		"tail too short":     {[][]byte{wg, wg, wg[:31]}, []int{200}},
		"tail long enough":   {[][]byte{wg, wg, wg[:32]}, []int{232}},
		"only a tail":        {[][]byte{other, wg[:40]}, []int{40}},
		"ping between":       {[][]byte{wg, wg, ping, wg}, []int{200, 100}},
		"ping first":         {[][]byte{ping, wg, wg}, []int{200}},
		"ping last":          {[][]byte{wg, ping}, []int{100}},
		"every other":        {[][]byte{other, wg, stun, wg, other}, []int{100, 100}},
		"none":               {[][]byte{other, ping, stun}, nil},
		"reserved bytes set": {[][]byte{reserved, wg}, []int{100}},
		"all four types": {[][]byte{
			wgPacket(1, size), wgPacket(2, size), wgPacket(3, size), wgPacket(4, size), wgPacket(5, size),
		}, []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			in := intake{conn: conn}
			data := bytes.Join(c.pkts, nil)
			from := datagram.Source{Addr: netip.MustParseAddrPort("192.0.2.1:5")}
			in.sort(time.Now(), &datagram.Train{Data: data, Size: size, From: from})
			var got []int
			for _, train := range in.out {
				got = append(got, len(train.Data))
				if train.Size != min(size, len(train.Data)) || train.From != from || cap(train.Data) != len(train.Data) {
					t.Errorf("train of %d bytes: size %d, room %d, from %v", len(train.Data), train.Size, cap(train.Data), train.From)
				}
				train.Data[31] = 0xEE
			}
			if bytes.Count(data, []byte{0xEE}) != len(in.out) {
				t.Error("the datagrams were copied")
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("trains of %v bytes, want %v", got, c.want)
			}
			count := conn.Counters()
			dropped := count["drop_foreign"] + count["drop_stun"] + count["drop_unknown_tag"] + count["drop_malformed"]
			if len(in.out) == 0 && dropped != uint64(len(c.pkts)) {
				t.Errorf("%d counted, want %d", dropped, len(c.pkts))
			}
		})
	}
}

// TestReceiveMixedTrain sends one train in which a genuine ping of a member lies between WireGuard datagrams.
func TestReceiveMixedTrain(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	a.know(b.peer(b.addr()))
	b.know(a.peer())
	var ping []byte
	a.conn.do(func(now time.Time, core *core) {
		p := core.peer(now, b.id.ID())
		core.ping(now, p, p.paths[way{addr: b.addr()}])
		ping = core.sends[0].pkt
		core.sends = nil
	})
	wg := wgPacket(wgTransport, len(ping))
	if err := a.conn.write(line{way: way{addr: b.addr()}}, [][]byte{wg, wg, ping, wg, wg, wg, wg[:40]}); err != nil {
		t.Fatal(err)
	}
	total, now := 0, time.Time{}
	for total < 5*len(wg)+40 {
		one := b.batch(t)
		if one.now.Before(now) {
			t.Error("time went back")
		}
		now = one.now
		for _, train := range one.trains {
			total += len(train.Data)
			if !isWireGuard(train.Data) || train.From.Addr != a.addr() || train.From.Local != a.addr().Addr() {
				t.Errorf("received %x from %+v", train.Data[:4], train.From)
			}
		}
	}
	a.await(t, "the ping between was answered", func(e Event) bool { return e.Type == EventObserved })
}

// TestReceiveEndsAndBegins ends Receive by its context, many times on the same socket, and at last by closing.
func TestReceiveEndsAndBegins(t *testing.T) {
	c, err := New(Config{Identity: identity.FromSeed(identity.Secret{1}), Relay: new(relayWire)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if want := families + maxExtra + 1; c.Legs() != want {
		t.Fatalf("%d legs, want %d", c.Legs(), want)
	}
	if c.Receive(t.Context(), c.Legs(), nil) == nil || c.Receive(t.Context(), -1, nil) == nil {
		t.Error("a leg that is not there can be read")
	}
	run := func(ctx context.Context) (end chan error, got chan int) {
		end, got = make(chan error, c.Legs()), make(chan int, 100)
		for leg := range c.Legs() {
			go func() {
				end <- c.Receive(ctx, leg, func(_ time.Time, trains []datagram.Train) { got <- len(trains) })
			}()
		}
		return end, got
	}
	for i := range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		end, got := run(ctx)
		if i%2 == 0 {
			out, err := net.Dial("udp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.Port()).String())
			if err != nil {
				t.Fatal(err)
			}
			out.Write(wgPacket(wgTransport, 40))
			<-got
			out.Close()
		}
		cancel()
		for range c.Legs() {
			if err := <-end; err != nil {
				t.Fatal(err)
			}
		}
	}
	end, _ := run(t.Context())
	c.Close()
	for range c.Legs() {
		if err := <-end; err != nil {
			t.Fatal(err)
		}
	}
}

// TestReceiveRelayed hands on what the relay brings, with the sender's handle, and answers pings by it.
func TestReceiveRelayed(t *testing.T) {
	a, b := relayedPair(t)
	a.know(b.peer())
	b.know(a.peer())
	a.handle(t, b).SendAll(time.Now(), wgPacket(wgInitiation, 148))
	in := b.batch(t).trains[0]
	if in.Data[0] != wgInitiation || in.Size != 148 || in.From.Relay != datagram.Peer(b.handle(t, a)) || in.From.Addr.IsValid() {
		t.Fatalf("received %x from %+v", in.Data[:4], in.From)
	}
	b.conn.Reply(&in.From, wgPacket(wgResponse, 92))
	answer := a.batch(t).trains[0]
	if answer.Data[0] != wgResponse || answer.From.Relay != datagram.Peer(a.handle(t, b)) {
		t.Fatalf("received %x from %+v", answer.Data[:4], answer.From)
	}
	a.await(t, "the pong came by the relay", func(e Event) bool { return e.Type == EventClock })
	b.conn.DeliverRelayed([]datagram.Relayed{{From: identity.PeerID{99}, Data: wgPacket(wgTransport, 40)}}, nil)
	b.conn.DeliverRelayed([]datagram.Relayed{
		{From: a.id.ID(), Data: foreignPacket(40)}, {From: a.id.ID(), Data: wgPacket(wgTransport, 60)},
	}, nil)
	if in := b.batch(t).trains[0]; len(in.Data) != 60 {
		t.Fatalf("received %d bytes", len(in.Data))
	}
	if c := b.conn.Counters(); c["drop_relay_unknown"] != 1 || c["drop_foreign"] != 1 {
		t.Errorf("counters %v", c)
	}
}

// TestReply answers from the address that was asked.
func TestReply(t *testing.T) {
	b := newSide(t, 2, Config{})
	ask, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ask.Close()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), b.conn.Port())
	ask.WriteToUDPAddrPort(wgPacket(wgInitiation, 148), to)
	in := b.batch(t).trains[0]
	b.conn.Reply(&in.From, wgPacket(wgResponse, 92))
	buf := make([]byte, 200)
	ask.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := ask.ReadFromUDPAddrPort(buf)
	if err != nil || n != 92 || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != to {
		t.Fatalf("%d bytes from %v, %v; want 92 from %v", n, from, err, to)
	}
	b.conn.Reply(&datagram.Source{}, wgPacket(wgResponse, 92))
	b.conn.Reply(&datagram.Source{Relay: new(handle)}, wgPacket(wgResponse, 92))
	if c := b.conn.Counters(); c["drop_send_error"] != 1 || c["drop_no_route"] != 1 {
		t.Errorf("counters %v", c)
	}
}

// TestDataPathAllocatesNothing sends, receives, reports and replies in the steady state.
func TestDataPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	a, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	sink, err := udp.Listen(udp.Config{Network: "udp4"}) // nobody reads it: that might allocate
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), sink.Port())
	peer := netmap.Peer{ID: identity.PeerID{2}, WG: identity.WGKey{2}} // without a disco key: no pings
	a.SetMap(&netmap.Map{Peers: []netmap.Peer{peer}, Keys: []identity.Secret{{9}}})
	h := a.PeerByKey(peer.WG)
	now := time.Now()
	source := datagram.Source{Addr: to, Local: to.Addr(), IfIndex: 1}
	h.Authenticated(now, &source, 1)
	other := datagram.Source{Addr: netip.MustParseAddrPort("127.0.0.1:9")}
	pkts := [][]byte{wgPacket(wgTransport, 1312), wgPacket(wgTransport, 1312)}
	for name, f := range map[string]func(){
		"Send":                         func() { h.Send(now, pkts) },
		"Reply":                        func() { a.Reply(&source, pkts[0]) },
		"Authenticated":                func() { h.Authenticated(now, &source, 2624) },
		"Authenticated from elsewhere": func() { h.Authenticated(now, &other, 2624) },
	} {
		f()
		if allocs := testing.AllocsPerRun(200, func() {
			now = now.Add(time.Millisecond)
			f()
		}); allocs > 0 {
			t.Errorf("%s: %.1f allocations", name, allocs)
		}
	}
}

// TestReceiveAllocatesNothing reads trains while nothing but them arrives.
func TestReceiveAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	c, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	arrived, end := make(chan int, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		end <- c.Receive(ctx, family4, func(_ time.Time, trains []datagram.Train) {
			for i := range trains {
				arrived <- len(trains[i].Data)
			}
		})
	}()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.Port())
	pkts := slices.Repeat([][]byte{wgPacket(wgTransport, 1312)}, 40)
	round := func() {
		if err := c.write(line{way: way{addr: to}}, pkts); err != nil {
			t.Fatal(err)
		}
		for left := 40 * 1312; left > 0; {
			left -= <-arrived
		}
	}
	round()
	if allocs := testing.AllocsPerRun(200, round); allocs > 0 {
		t.Errorf("%.1f allocations a batch", allocs)
	}
	cancel()
	if err := <-end; err != nil {
		t.Fatal(err)
	}
}

// BenchmarkReceive sends runs of 48 datagrams by a handle and receives them at the other end.
func BenchmarkReceive(b *testing.B) {
	const size, many = 1312, 48
	c, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.Port())
	peer := netmap.Peer{ID: identity.PeerID{2}, WG: identity.WGKey{2}, Endpoints: []netip.AddrPort{to}}
	c.SetMap(&netmap.Map{Peers: []netmap.Peer{peer}, Keys: []identity.Secret{{9}}})
	h := c.PeerByKey(peer.WG)
	source := datagram.Source{Addr: to}
	h.Authenticated(time.Now(), &source, 1)
	arrived, end := make(chan int, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(b.Context())
	go func() {
		end <- c.Receive(ctx, family4, func(now time.Time, trains []datagram.Train) {
			for i := range trains {
				h.Authenticated(now, &trains[i].From, len(trains[i].Data))
				arrived <- len(trains[i].Data)
			}
		})
	}()
	all := make([]byte, size*many)
	pkts := make([][]byte, many)
	for i := range pkts {
		pkts[i] = all[i*size:][:size]
		copy(pkts[i], wgPacket(wgTransport, size))
	}
	b.SetBytes(size * many)
	b.ReportAllocs()
	for b.Loop() {
		h.Send(time.Now(), pkts)
		for left := size * many; left > 0; {
			left -= <-arrived
		}
	}
	cancel()
	<-end
}

func BenchmarkAuthenticated(b *testing.B) {
	c, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	source := datagram.Source{Addr: netip.MustParseAddrPort("127.0.0.1:9")}
	c.SetMap(&netmap.Map{Peers: []netmap.Peer{{ID: identity.PeerID{2}, WG: identity.WGKey{2}}}, Keys: []identity.Secret{{9}}})
	h, now := c.PeerByKey(identity.WGKey{2}), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		h.Authenticated(now, &source, 1)
	}
}
