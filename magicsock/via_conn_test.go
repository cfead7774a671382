package magicsock

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/hop"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// viaRelay is two nodes that know no address of each other, and one that relays, on real sockets.
func viaRelay(t *testing.T, cfg MemberRelay) (a, b, relay *side) {
	t.Helper()
	a, b = newSide(t, 1, Config{}), newSide(t, 2, Config{})
	relay = newSide(t, 3, Config{MemberRelay: cfg})
	r := relay.peer(relay.addr())
	r.Relays = true
	a.know(b.peer(), r)
	b.know(a.peer(), r)
	relay.know(a.peer(), b.peer())
	for _, n := range []*side{a, b} {
		n.conn.Contact(relay.id.ID())
		n.await(t, "a path to the relay", isPathTo(relay))
	}
	return a, b, relay
}

func isMemberPath(to *side) func(Event) bool {
	return func(e Event) bool {
		return e.Type == EventPathChanged && e.Peer == to.id.ID() && e.Path.Kind == PathMember
	}
}

// TestMemberRelayOnSockets carries datagrams between two nodes, in their order.
func TestMemberRelayOnSockets(t *testing.T) {
	a, b, relay := viaRelay(t, MemberRelay{Serve: true})
	a.conn.Contact(b.id.ID())
	e := a.await(t, "a path by the relay", isMemberPath(b))
	b.await(t, "a path by the relay", isMemberPath(a))
	if e.Path.Via != relay.id.ID() || e.Path.Addr != relay.addr() {
		t.Fatalf("path %+v", e.Path)
	}
	for _, way := range [][2]*side{{a, b}, {b, a}} {
		var pkts [][]byte
		for i := range 30 {
			pkt := wgPacket(wgTransport, 1000)
			pkt[999] = byte(i)
			pkts = append(pkts, pkt)
		}
		pkts = append(pkts, wgPacket(wgTransport, 77))
		way[0].handle(t, way[1]).Send(time.Now(), pkts)
		for i, want := range pkts {
			if got := way[1].receive(t); !bytes.Equal(got, want) {
				t.Fatalf("datagram %d has %d bytes", i, len(got))
			}
		}
	}
	count := relay.conn.RelayCounters()
	if count.Sessions != 1 || count.Passed < 2*(30*1008+85) {
		t.Fatalf("relayed: %+v", count)
	}
	info, _ := a.conn.Peer(b.id.ID())
	if traffic := info.ByKind[PathMember]; traffic.Tx == 0 || info.Path.Kind != PathMember {
		t.Fatalf("%+v", info)
	}
	relay.conn.ServeRelay(false)
	if n := relay.conn.RelayCounters().Sessions; n != 0 {
		t.Fatalf("%d sessions at a node that does not relay any more", n)
	}
}

// TestMemberRelayDropsOthersFrames answers frames of nobody's session with a hint, now and then.
func TestMemberRelayDropsOthersFrames(t *testing.T) {
	relay := newSide(t, 3, Config{MemberRelay: MemberRelay{Serve: true}})
	stranger, err := udp.Listen(udp.Config{Network: "udp4"})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	frame := append(binary.BigEndian.AppendUint64(nil, hop.Header(77)), wgPacket(wgTransport, 100)...)
	for range 100 {
		if err := stranger.WriteOne(relay.addr(), udp.Source{}, frame); err != nil {
			t.Fatal(err)
		}
	}
	trains := make([]datagram.Train, 8)
	_ = stranger.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := stranger.ReadTrains(trains)
	if err != nil || n == 0 {
		t.Fatalf("no hint: %v", err)
	}
	if sid, err := hop.SID(trains[0].Data[:min(trains[0].Size, len(trains[0].Data))]); err != nil || sid != 77 {
		t.Fatalf("%x, %v", trains[0].Data, err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for relay.conn.RelayCounters().Gone < 100*108 {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", relay.conn.RelayCounters())
		}
		time.Sleep(time.Millisecond)
	}
	if c := relay.conn.RelayCounters(); c.Limited < 70 {
		t.Fatalf("hints were not limited: %+v", c)
	}
}

// TestExtraSocketCarriesData opens sockets, which are met, has them carry data both ways, and closes them all.
func TestExtraSocketCarriesData(t *testing.T) {
	a, b := newSide(t, 1, Config{}), newSide(t, 2, Config{})
	a.know(b.peer())
	b.know(a.peer())
	now := time.Now()
	a.conn.doAt(now, func(core *core) { // as beginGuessing does, which leaves loopback addresses alone
		p := core.peer(now, b.id.ID())
		core.want(now, p)
		p.attempt = &attempt{target: b.addr(), giveUp: now.Add(time.Minute)}
		core.guesses.orders = append(core.guesses.orders, order{peer: p.id, open: 3})
	})
	e := a.await(t, "a path by an extra socket", isPathTo(b))
	if e.Path.Kind != PathDirect {
		t.Fatalf("path %+v", e.Path)
	}
	b.await(t, "the other side's path", func(e Event) bool {
		return e.Type == EventPathChanged && e.Peer == a.id.ID() && e.Path.Kind == PathDirect && e.Path.Addr != a.addr()
	})
	eventually(t, "the sockets are read by legs", func() bool {
		all := a.conn.extras.byID.Load()
		if all == nil || len(*all) == 0 || len(*all) > maxExtra {
			return false
		}
		for _, e := range *all {
			if e.full.Load() == nil {
				return false
			}
		}
		return true
	})
	for _, way := range [][2]*side{{a, b}, {b, a}} {
		var pkts [][]byte
		for i := range 20 {
			pkts = append(pkts, append(wgPacket(wgTransport, 900), byte(i)))
		}
		way[0].handle(t, way[1]).Send(time.Now(), pkts)
		for i, want := range pkts {
			if got := way[1].receive(t); !bytes.Equal(got, want) {
				t.Fatalf("datagram %d has %d bytes", i, len(got))
			}
		}
	}
	if err := a.conn.Rebind(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new sockets end the extra ones", func() bool { return len(*a.conn.extras.byID.Load()) == 0 })
}

// eventually polls a condition.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// BenchmarkMemberRelay carries trains of frames between two sockets by a Conn, and without one: the difference is what
// the relay costs. Sixteen trains are under way at a time.
func BenchmarkMemberRelay(b *testing.B) {
	const frame, perTrain, window = 1320, 40, 16
	loopback := netip.MustParseAddr("127.0.0.1")
	listen := func() (*udp.Socket, netip.AddrPort) {
		s, err := udp.Listen(udp.Config{Network: "udp4"})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return s, netip.AddrPortFrom(loopback, s.Port())
	}
	run := func(b *testing.B, from, at *udp.Socket, to netip.AddrPort, sid uint32) {
		pkts := make([][]byte, perTrain)
		for i := range pkts {
			pkts[i] = wgPacket(wgTransport, frame)
		}
		trains := make([]datagram.Train, 8)
		b.SetBytes(frame * perTrain)
		b.ReportAllocs()
		underway := 0
		for b.Loop() {
			if err := from.Write(to, udp.Source{Head: hop.Header(sid)}, pkts); err != nil {
				b.Fatal(err)
			}
			underway += perTrain * (frame + hop.HeaderSize)
			for underway > window*perTrain*(frame+hop.HeaderSize) {
				_ = at.SetReadDeadline(time.Now().Add(time.Second))
				n, err := at.ReadTrains(trains)
				if err != nil {
					b.Fatalf("%d bytes were lost: %v", underway, err)
				}
				for _, t := range trains[:n] {
					underway -= len(t.Data)
				}
			}
		}
	}
	b.Run("direct", func(b *testing.B) {
		from, _ := listen()
		at, to := listen()
		run(b, from, at, to, 1)
	})
	b.Run("relayed", func(b *testing.B) {
		from, atFrom := listen()
		at, atTo := listen()
		s, err := New(Config{Identity: identity.FromSeed(identity.Secret{1}), MemberRelay: MemberRelay{Serve: true}})
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Receive(b.Context(), family4, func(time.Time, []datagram.Train) {}) }()
		b.Cleanup(func() {
			s.Close()
			<-done
		})
		sid := bindBoth(b, s, map[*udp.Socket]netip.AddrPort{from: atFrom, at: atTo})
		run(b, from, at, netip.AddrPortFrom(loopback, s.Port()), sid)
	})
}

// bindBoth opens a session at a relay, and binds it to two sockets.
func bindBoth(b testing.TB, relay *Conn, ends map[*udp.Socket]netip.AddrPort) uint32 {
	table := relay.core.serving.table
	members := []identity.PeerID{{1}, {2}}
	opened, err := table.Open(time.Now(), members[0], members[1], hop.Nonce{1})
	if err != nil {
		b.Fatal(err)
	}
	nonces := []hop.Nonce{{1}, opened.Nonce}
	for s, at := range ends {
		client := hop.NewClient(time.Now(), opened.SID, nonces[0])
		nonces = slices.Delete(nonces, 0, 1)
		for pkt := client.Tick(time.Now()); pkt != nil; {
			pkt = client.Handle(time.Now(), table.HandleBind(time.Now(), hop.End{Addr: at}, pkt))
		}
		if client.State() != hop.Bound {
			b.Fatalf("socket %d is not bound", s.Port())
		}
	}
	return opened.SID
}

// TestForwardingAllocatesNothing passes on trains as the intake does.
func TestForwardingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	s, err := New(Config{Identity: identity.FromSeed(identity.Secret{1}), MemberRelay: MemberRelay{Serve: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ends [2]*udp.Socket
	var at [2]netip.AddrPort
	for i := range ends {
		if ends[i], err = udp.Listen(udp.Config{Network: "udp4"}); err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
		at[i] = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ends[i].Port())
	}
	sid := bindBoth(t, s, map[*udp.Socket]netip.AddrPort{ends[0]: at[0], ends[1]: at[1]})
	const size = 1000 + hop.HeaderSize
	var data []byte
	for range 20 {
		data = append(binary.BigEndian.AppendUint64(data, hop.Header(sid)), wgPacket(wgTransport, 1000)...)
	}
	train := datagram.Train{Data: data, Size: size, From: datagram.Source{Addr: at[0]}}
	in := intake{conn: s}
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() { in.sort(now, &train) }); n != 0 {
		t.Fatalf("%v allocations a train", n)
	}
	if c := s.RelayCounters(); c.Passed != 1001*uint64(len(data)) {
		t.Fatalf("%+v", c)
	}
}
