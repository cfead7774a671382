package magicsock

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/magicsock/disco"
)

// check fails where the maps, the heap and the deadlines of a core do not agree.
func check(t *testing.T, c *core, now time.Time) {
	t.Helper()
	if len(c.peers) != len(c.byWG) {
		t.Fatalf("%d peers and %d keys of theirs", len(c.peers), len(c.byWG))
	}
	for i, p := range c.timers {
		if c.peers[p.id] != p || p.index != i {
			t.Fatalf("at %d in the heap: index %d, a peer %v", i, p.index, c.peers[p.id] == p)
		}
		if i > 0 && c.timers.Less(i, (i-1)/2) {
			t.Fatalf("the heap is out of order at %d", i)
		}
	}
	for _, p := range c.peers {
		if c.byWG[p.handle.wg] != p {
			t.Fatal("a peer that its key does not find")
		}
		if p.index < 0 && !p.nextDue(now).IsZero() {
			t.Fatal("a deadline that no timer knows")
		}
	}
}

// TestForget lets time pass after something happened every five minutes for an hour.
func TestForget(t *testing.T) {
	data := datagram.Source{Addr: addrA}
	for name, c := range map[string]struct {
		leg    bool
		before func(b *bench)
		during func(b *bench)
		kept   bool
	}{
		"met only": {},
		"up":       {before: func(b *bench) { b.up(addrA) }},
		"relayed":  {leg: true, before: func(b *bench) { b.up(netip.AddrPort{}) }},
		"data comes": {
			before: func(b *bench) { b.up(addrA) }, kept: true,
			during: func(b *bench) { b.p.handle.Authenticated(b.now, &data, 100) },
		},
		"data comes from elsewhere": {
			before: func(b *bench) { b.up(addrA) }, kept: true,
			during: func(b *bench) { b.p.handle.Authenticated(b.now, &datagram.Source{Addr: addrB}, 100) },
		},
		"data goes": {
			before: func(b *bench) { b.up(addrA) }, kept: true,
			during: func(b *bench) {
				b.p.handle.Send(b.now, [][]byte{wgPacket(wgTransport, 40)})
				b.pong(addrA, time.Millisecond)
			},
		},
		"it is looked for": {during: func(b *bench) { b.core.contact(b.now, b.p.id) }, kept: true},
		"it looks for us": {kept: true, during: func(b *bench) {
			b.p.boot, b.p.clockKnown = disco.BootID{5}, true
			m := &disco.Message{Type: disco.TypePing, TxID: disco.NewTxID(), Boot: b.p.boot, Flags: disco.FlagWants, Time: b.now}
			b.core.handlePing(b.now, b.p, line{way: way{addr: addrA}}, m)
		}},
		"its links change": {before: func(b *bench) { b.up(addrA) }, during: func(b *bench) {
			b.core.linkChanged(b.now)
			b.pong(addrA, time.Millisecond)
		}},
		"its clock is off": {kept: true, before: func(b *bench) {
			b.core.setHours(b.p, 5*time.Hour)
			b.core.schedule(b.now, b.p)
		}},
		"provisional": {kept: true, before: func(b *bench) {
			b.p.known = false
			b.core.schedule(b.now, b.p)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.leg, addrA)
			if c.before != nil {
				c.before(b)
			}
			direct := b.best().IsValid()
			b.core.take()
			for range 12 {
				if c.during != nil && b.core.peers[b.p.id] == b.p {
					c.during(b)
				}
				b.pass(5 * time.Minute)
				check(t, b.core, b.now)
			}
			if kept := len(b.core.peers) == 1; kept != c.kept {
				t.Fatalf("kept %v, want %v", kept, c.kept)
			}
			_, events := b.core.take()
			told := slices.ContainsFunc(events, func(e Event) bool {
				return e.Type == EventPathChanged && e.Old.Addr == addrA && e.Path.Kind == PathNone
			})
			if told != (direct && !c.kept) {
				t.Errorf("told that the path is gone: %v", told)
			}
			if !c.kept && (len(b.core.timers) != 0 || b.p.handle.route.Load() != nil) {
				t.Errorf("%d timers, a route %v", len(b.core.timers), b.p.handle.route.Load())
			}
		})
	}
}

// TestForgetMany talks to many members once. Later nothing is left of them but what the map says, and contact works.
func TestForgetMany(t *testing.T) {
	const count = 2000
	b := newBench(t, false)
	b.core.setMap(b.now, crowd(count))
	for i := range b.core.members.Peers {
		b.core.contact(b.now, b.core.members.Peers[i].ID)
		b.pass(10 * time.Millisecond)
		b.core.take()
	}
	check(t, b.core, b.now)
	if n := len(b.core.peers); n != count {
		t.Fatalf("%d peers, want %d", n, count)
	}
	b.pass(forgetAfter / 2)
	busy := b.core.peers[b.core.members.Peers[7].ID]
	busy.handle.use(busy.handle.stamp(b.now))
	b.pass(forgetAfter * 3 / 4)
	check(t, b.core, b.now)
	if len(b.core.peers) != 1 || b.core.peers[busy.id] != busy || len(b.core.timers) != 1 {
		t.Fatalf("%d peers and %d timers, want those of the busy one", len(b.core.peers), len(b.core.timers))
	}
	n := &b.core.members.Peers[500]
	tag := disco.TagOf(b.core.secrets[0], n.ID, b.now.Unix()/3600)
	if found := b.core.tags.lookup(b.now, b.core, tag); len(found) != 1 {
		t.Fatalf("the tag of a forgotten member names %v", found)
	}
	b.core.take()
	b.core.contact(b.now, n.ID)
	if sends, _ := b.core.take(); len(sends) != len(n.Endpoints) {
		t.Fatalf("%d pings to a forgotten member, want %d", len(sends), len(n.Endpoints))
	}
}

// TestSimForgottenMembersMeetAgain lets both sides forget each other, and a pong come too late for its ping.
func TestSimForgottenMembersMeetAgain(t *testing.T) {
	w, net, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	a.know(b.peer(b.addr))
	b.know(a.peer())
	for range 3 {
		a.events = nil
		a.contact(b)
		if !w.RunUntil(a.reaches(b), time.Second) {
			t.Fatal("no contact")
		}
		w.RunFor(time.Second)
		before := net.Counters().Sent
		w.RunFor(2 * forgetAfter)
		if len(a.core.peers) != 0 || len(b.core.peers) != 0 {
			t.Fatalf("%d and %d peers after a long time", len(a.core.peers), len(b.core.peers))
		}
		if sent := net.Counters().Sent - before; sent != 0 {
			t.Fatalf("%d datagrams to forget", sent)
		}
	}
}

// TestStaleHandle uses a handle whose peer was forgotten, in every way: nothing breaks, and packets leave again
// once there is a path.
func TestStaleHandle(t *testing.T) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	to := sink.LocalAddr().(*net.UDPAddr).AddrPort()
	source := datagram.Source{Addr: to}
	for name, use := range map[string]func(c *Conn, h datagram.Peer){
		"Send":          func(_ *Conn, h datagram.Peer) { h.Send(time.Now(), [][]byte{wgPacket(wgTransport, 40)}) },
		"SendAll":       func(_ *Conn, h datagram.Peer) { h.SendAll(time.Now(), wgPacket(wgInitiation, 148)) },
		"Authenticated": func(_ *Conn, h datagram.Peer) { h.Authenticated(time.Now(), &source, 40) },
		"Reply":         func(c *Conn, h datagram.Peer) { c.Reply(&datagram.Source{Relay: h}, wgPacket(wgResponse, 92)) },
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(Config{Identity: identity.FromSeed(identity.Secret{1})})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			m := crowd(3) // with addresses that lead nowhere
			for i := range m.Peers {
				m.Peers[i].Endpoints = nil
			}
			c.SetMap(m)
			stale := c.PeerByKey(m.Peers[1].WG)
			later := time.Now().Add(forgetAfter)
			c.doAt(later, func(core *core) { core.tick(later) })
			if len(c.core.peers) != 0 {
				t.Fatal("not forgotten")
			}
			use(c, stale)
			check(t, c.core, time.Now())
			info, _ := c.Peer(m.Peers[1].ID)
			if name == "Authenticated" && info.Path.Addr != to {
				t.Errorf("the path is %v, want %v", info.Path.Addr, to)
			}
			if sent := name == "Send" || name == "SendAll"; sent != info.Seeking {
				t.Errorf("looked for: %v", info.Seeking)
			}
			again := c.PeerByKey(m.Peers[1].WG)
			if again == stale {
				t.Fatal("the test proves nothing: the handle is that of the peer")
			}
			again.Authenticated(time.Now(), &source, 40)
			before := c.Counters()["drop_no_route"]
			stale.Send(time.Now(), [][]byte{wgPacket(wgTransport, 77)})
			sink.SetReadDeadline(time.Now().Add(10 * time.Second))
			buf := make([]byte, 200)
			for n := 0; n != 77; {
				if n, err = sink.Read(buf); err != nil {
					t.Fatal(err)
				}
			}
			if got := c.Counters()["drop_no_route"]; got != before {
				t.Errorf("%d drops without a route", got-before)
			}
		})
	}
}
