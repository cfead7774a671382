package magicsock

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/netmap"
)

// TestSTUNMessages sends a STUN message from the socket, and hands on the answer.
func TestSTUNMessages(t *testing.T) {
	type message struct {
		from netip.AddrPort
		pkt  []byte
	}
	got := make(chan message, 10)
	s := newSide(t, 1, Config{STUN: func(from netip.AddrPort, pkt []byte) { got <- message{from, bytes.Clone(pkt)} }})
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	to := server.LocalAddr().(*net.UDPAddr).AddrPort()
	request := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, make([]byte, 12)...)
	s.conn.SendSTUN(to, request)
	server.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 100)
	n, from, err := server.ReadFromUDPAddrPort(buf)
	if err != nil || !bytes.Equal(buf[:n], request) || from.Port() != s.conn.Port() {
		t.Fatalf("%x from %v, %v", buf[:n], from, err)
	}
	answer := append([]byte{1, 1}, request[2:]...)
	server.WriteToUDPAddrPort(answer, s.addr())
	select {
	case m := <-got:
		if m.from != to || !bytes.Equal(m.pkt, answer) {
			t.Errorf("%x from %v", m.pkt, m.from)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the answer did not come through")
	}
}

// TestRendezvousByRelay lets two that do not know each other exchange packets of joining by a relay server: those, and
// nothing else.
func TestRendezvousByRelay(t *testing.T) {
	got := make(chan datagram.Place, 10)
	toB, toA := new(relayWire), new(relayWire)
	a := newSide(t, 1, Config{Relay: toB})
	b := newSide(t, 2, Config{Relay: toA, Rendezvous: func(from datagram.Place, _ []byte) { got <- from }})
	toB.from, toB.to, toA.from, toA.to = a.id.ID(), b, b.id.ID(), a
	intro := append([]byte{0xC1}, make([]byte, 1231)...)
	a.conn.SendRendezvous(datagram.Place{Relay: b.id.ID()}, intro)
	select {
	case from := <-got:
		if from != (datagram.Place{Relay: a.id.ID()}) {
			t.Errorf("from %v", from)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no Intro")
	}
	for i, pkt := range [][]byte{
		wgPacket(wgInitiation, 148), append([]byte{0xC4}, make([]byte, 200)...), foreignPacket(40), {},
	} {
		if err := toB.Send(b.id.ID(), [][]byte{pkt}, false); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); b.conn.Counters()["drop_relay_unknown"] != uint64(i+1); {
			if time.Now().After(deadline) {
				t.Fatalf("%x is not refused", pkt)
			}
		}
	}
	if len(b.batches) != 0 {
		t.Error("a stranger's datagrams come to the data path by a relay server")
	}
	b.conn.AddProvisional(a.id.ID(), a.id.WG(), datagram.Place{Relay: a.id.ID()})
	a.conn.AddProvisional(b.id.ID(), b.id.WG(), datagram.Place{Relay: b.id.ID()})
	a.send(t, b, wgPacket(wgInitiation, 148))
	if pkt := b.receive(t); pkt[0] != wgInitiation {
		t.Errorf("received %x", pkt[:4])
	}
}

// TestFoundByRelay looks for a member whose Intro came by a relay server: it answers there.
func TestFoundByRelay(t *testing.T) {
	a, b := relayedPair(t)
	a.know(b.peer())
	b.know(a.peer())
	a.conn.Found(b.id.ID(), datagram.Place{Relay: b.id.ID()}, 0)
	a.conn.Contact(b.id.ID())
	a.await(t, "it answers", func(e Event) bool { return e.Type == EventReachable && e.Path.Kind == PathRelay })
}

// TestCallsOverControl has two that know no address of each other, and a control session between that carries signals.
func TestCallsOverControl(t *testing.T) {
	var sides [2]*side
	var carried atomic.Int64
	carry := func(to int) func(identity.PeerID, []byte) bool {
		return func(_ identity.PeerID, pkt []byte) bool {
			carried.Add(1)
			go sides[to].conn.DeliverSignal(bytes.Clone(pkt)) // it must not call the Conn by itself
			return true
		}
	}
	ready := make(chan struct{})
	wait := func(to int) func(identity.PeerID, []byte) bool {
		f := carry(to)
		return func(id identity.PeerID, pkt []byte) bool {
			<-ready
			return f(id, pkt)
		}
	}
	sides[0], sides[1] = newSide(t, 1, Config{Signal: wait(1)}), newSide(t, 2, Config{Signal: wait(0)})
	close(ready)
	a, b := sides[0], sides[1]
	four := localAddr(t)
	for _, s := range sides {
		s.conn.SetEndpoints([]netip.AddrPort{netip.AddrPortFrom(four, s.conn.Port())}, netmap.NATNone)
	}
	a.know(b.peer())
	b.know(a.peer())
	a.conn.Contact(b.id.ID())
	a.await(t, "a direct path", func(e Event) bool {
		return e.Type == EventPathChanged && e.Path.Kind == PathDirect && e.Path.Addr.Addr() == four
	})
	for deadline := time.Now().Add(5 * time.Second); ; { // b answers by a call of its own
		info, _ := a.conn.Peer(b.id.ID())
		if info.NAT == netmap.NATNone && carried.Load() >= 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("NAT %v, %d signals", info.NAT, carried.Load())
		}
	}
}

// localAddr is an address of this host that is not its loopback.
func localAddr(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLoopback() {
			return prefix.Addr()
		}
	}
	t.Skip("this host has only its loopback")
	return netip.Addr{}
}

// TestRelayGoes takes the relay servers away and brings them back.
func TestRelayGoes(t *testing.T) {
	a, b := relayedPair(t)
	a.know(b.peer())
	b.know(a.peer())
	a.conn.Contact(b.id.ID())
	a.await(t, "contact over the relay", isReachable(b))
	wire := a.conn.cfg.Relay.(*relayWire)
	wire.down.Store(true)
	a.conn.RelayChanged()
	if info, _ := a.conn.Peer(b.id.ID()); info.Path.Kind != PathNone {
		t.Fatalf("the path is %+v", info.Path)
	}
	a.handle(t, b).Send(time.Now(), [][]byte{wgPacket(wgTransport, 40)})
	if a.conn.Counters()["drop_no_route"] == 0 {
		t.Error("a datagram left by a relay server that is no more")
	}
	wire.down.Store(false)
	a.conn.RelayChanged()
	info, _ := a.conn.Peer(b.id.ID())
	if info.Path.Kind != PathRelay || info.Path.Server == "" {
		t.Fatalf("the path is %+v", info.Path)
	}
	a.send(t, b, wgPacket(wgTransport, 40))
	if pkt := b.receive(t); pkt[0] != wgTransport {
		t.Errorf("received %x", pkt[:4])
	}
}

// TestRelayedAllocatesNothing takes batches of the relay leg to the data path.
func TestRelayedAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	c, err := New(Config{Identity: identity.FromSeed(identity.Secret{1}), Relay: relayEverybody{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer := netmap.Peer{ID: identity.PeerID{2}, WG: identity.WGKey{2}}
	c.SetMap(&netmap.Map{Peers: []netmap.Peer{peer}, Keys: []identity.Secret{{9}}})
	h := c.PeerByKey(peer.WG)
	arrived, done := make(chan int, 10), make(chan struct{}, 10)
	end := make(chan error, 1)
	go func() {
		end <- c.Receive(t.Context(), c.Legs()-1, func(now time.Time, trains []datagram.Train) {
			for i := range trains {
				h.Authenticated(now, &trains[i].From, len(trains[i].Data))
			}
			arrived <- len(trains)
		})
	}()
	data := wgPacket(wgTransport, 1312)
	batch := slices.Repeat([]datagram.Relayed{{From: peer.ID, Data: data}}, 50)
	pkts := slices.Repeat([][]byte{data}, 50)
	ended := func() { done <- struct{}{} }
	now := time.Now()
	round := func() {
		h.Send(now, pkts)
		c.DeliverRelayed(batch, ended)
		<-arrived
		<-done
	}
	round()
	if allocs := testing.AllocsPerRun(200, round); allocs > 0 {
		t.Errorf("%.1f allocations a batch", allocs)
	}
	c.Close()
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	c.DeliverRelayed(batch, ended)
	<-done // by a closed Conn too
}

// TestTrafficByPath splits what went and came by the kinds of paths, and by the paths.
func TestTrafficByPath(t *testing.T) {
	b := newBench(t, true, addrA)
	b.core.conn.core = b.core
	b.core.conn.cfg.Relay = relayEverybody{}
	h := b.p.handle
	from := datagram.Source{Addr: addrA}
	h.Send(b.now, [][]byte{wgPacket(wgTransport, 1000)})
	h.Authenticated(b.now, &datagram.Source{Relay: h}, 700)
	b.core.contact(b.now, b.p.id)
	b.pong(addrA, 10*time.Millisecond)
	if b.best() != addrA {
		t.Fatal("no direct path")
	}
	h.Authenticated(b.now, &from, 300)
	h.Authenticated(b.now, &datagram.Source{Relay: h}, 50)
	info := b.core.info(b.now, b.p)
	want := map[PathKind]Traffic{PathRelay: {Rx: 750, Tx: 1000}, PathDirect: {Rx: 300}}
	for kind, traffic := range want {
		if info.ByKind[kind] != traffic {
			t.Errorf("%s: %+v, want %+v", kind, info.ByKind[kind], traffic)
		}
	}
	if info.RxBytes != 1050 || info.TxBytes != 1000 || len(info.ByKind) != 2 {
		t.Errorf("%d received, %d sent, %v", info.RxBytes, info.TxBytes, info.ByKind)
	}
	for _, c := range info.Candidates {
		if c.Traffic != want[c.Kind] {
			t.Errorf("%s path: %+v", c.Kind, c.Traffic)
		}
	}
}
