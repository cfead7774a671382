package relaytest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// numbered is n datagrams that differ.
func numbered(n int, size func(int) int) [][]byte {
	pkts := make([][]byte, n)
	for i := range pkts {
		pkts[i] = make([]byte, max(4, size(i)))
		binary.BigEndian.PutUint32(pkts[i], uint32(i))
	}
	return pkts
}

func ofSize(n int) func(int) int { return func(int) int { return n } }

// testCarries sends all kinds of datagrams in both directions.
func testCarries(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	a, b := Connect(t, r), Connect(t, r)
	for _, way := range []struct{ from, to *Node }{{a, b}, {b, a}} {
		for _, c := range []struct {
			pkts   [][]byte
			urgent bool
		}{
			{numbered(1, ofSize(100)), false},
			{numbered(1, ofSize(100)), true},
			{numbered(40, ofSize(1452)), false},
			{append(numbered(11, ofSize(1452)), []byte("short")), false},
			{numbered(5, ofSize(90)), true},
		} {
			before := len(way.to.Got())
			if err := way.from.Send(way.to.ID, c.pkts, c.urgent); err != nil {
				t.Fatal(err)
			}
			got := way.to.Await(t, before+len(c.pkts))[before:]
			if len(got) != len(c.pkts) {
				t.Fatalf("%d datagrams arrived, want %d", len(got), len(c.pkts))
			}
			for i := range got {
				if got[i].From != way.from.ID || !bytes.Equal(got[i].Data, c.pkts[i]) {
					t.Fatalf("datagram %d of %d arrived changed", i, len(got))
				}
			}
		}
	}
}

// testLargeBatches sends many datagrams of random sizes, to two nodes in turns, and loses none.
func testLargeBatches(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	a, b, c := Connect(t, r), Connect(t, r), Connect(t, r)
	random := rand.New(rand.NewPCG(1, 2))
	sent := 0
	for range 20 {
		pkts := numbered(150, func(int) int { return 20 + random.IntN(1400) })
		for len(pkts) > 0 {
			n := min(len(pkts), 1+random.IntN(20))
			for _, to := range []*Node{b, c} {
				if err := a.Send(to.ID, pkts[:n], false); err != nil {
					t.Fatal(err)
				}
			}
			pkts, sent = pkts[n:], sent+n
		}
		b.Await(t, sent)
		c.Await(t, sent)
	}
	for _, to := range []*Node{b, c} {
		for i, got := range to.Got() {
			if n := binary.BigEndian.Uint32(got.Data); int(n) != i%150 {
				t.Fatalf("datagram %d has number %d", i, n)
			}
		}
	}
}

// testAllSizes sends datagrams of every length class up to the greatest.
func testAllSizes(t *testing.T, start Start) {
	r := start(t, relayserver.Config{MaxFrame: 100_000})
	a, b := Connect(t, r), Connect(t, r)
	if a.MaxFrame() != 100_000 {
		t.Fatalf("greatest frame %d", a.MaxFrame())
	}
	sizes := []int{1, 2, 511, 512, 513, 2047, 16346, 16347, 16348, 16384, 32768, 65535}
	for i, n := range sizes {
		for _, urgent := range []bool{false, true} {
			pkt := bytes.Repeat([]byte{byte(i + 1)}, n)
			before := len(b.Got())
			if err := a.Send(b.ID, [][]byte{pkt}, urgent); urgent && n >= 65535 {
				continue // above what signals may take
			} else if err != nil {
				t.Fatal(err)
			}
			if got := b.Await(t, before+1)[before].Data; !bytes.Equal(got, pkt) {
				t.Fatalf("%d bytes arrived, want %d", len(got), n)
			}
		}
	}
	if err := a.Send(b.ID, [][]byte{make([]byte, 65536)}, false); err != relay.ErrDatagram {
		t.Fatalf("a datagram of 65536 bytes: %v", err)
	}
	if err := a.Send(b.ID, [][]byte{{}}, false); err != relay.ErrDatagram {
		t.Fatalf("an empty datagram: %v", err)
	}
}

// testUnknownNode is told that a node is not here, a few times.
func testUnknownNode(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	raw := ConnectRaw(t, r, identity.New())
	nobody := identity.New().ID()
	const sends = 50
	for range sends {
		raw.Send(t, relay.TypeSend, append(nobody[:], "hello"...))
	}
	raw.Send(t, relay.TypePing, make([]byte, 8))
	answers := 0
	for f := raw.Next(t); f.Type != relay.TypePong; f = raw.Next(t) {
		if node, reason, err := relay.ParseGone(f.Payload()); f.Type != relay.TypeGone || node != nobody || reason != 0 || err != nil {
			t.Fatalf("frame of type %#x for %v, reason %v: %v", f.Type, node, reason, err)
		}
		answers++
	}
	if answers < 3 || answers > 5 {
		t.Errorf("%d answers to %d datagrams for a node that is not here, want 3", answers, sends)
	}
	n := r.Server.Counters()
	if n["drop_unknown_node"] != sends || n["gone_limited"]+uint64(answers) != sends {
		t.Errorf("dropped %d, not answered %d", n["drop_unknown_node"], n["gone_limited"])
	}
}

// testNodeLeft is told when a node leaves that was sent to.
func testNodeLeft(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	a, b, c := Connect(t, r), Connect(t, r), Connect(t, r)
	for _, n := range []*Node{b, c} {
		if err := a.Send(n.ID, [][]byte{[]byte("hello")}, false); err != nil {
			t.Fatal(err)
		}
		n.Await(t, 1)
	}
	b.Close()
	Until(t, func() bool { _, told := a.Gone(b.ID); return told })
	if reason, _ := a.Gone(b.ID); reason != relay.GoneLeft {
		t.Errorf("reason %v", reason)
	}
	if _, told := a.Gone(c.ID); told {
		t.Error("a node that is there was told to be gone")
	}
	if _, told := c.Gone(b.ID); told {
		t.Error("a node was told of another that it never sent to")
	}
	back := Connect(t, r, func(cfg *relay.ClientConfig) { cfg.Identity = b.Key })
	if err := a.Send(b.ID, [][]byte{[]byte("again")}, false); err != nil {
		t.Fatal(err)
	}
	back.Await(t, 1)
}

// testPings measures the way to the relay.
func testPings(t *testing.T, start Start) {
	r := start(t, relayserver.Config{STUNPort: 3478})
	a := Connect(t, r)
	Until(t, func() bool { return a.RTT() > 0 })
	heard := a.Heard()
	a.Ping()
	Until(t, func() bool { return a.Heard().After(heard) })
	if a.STUNPort() != 3478 || a.Server() != r.Server.ID() {
		t.Errorf("STUN port %d, server %x", a.STUNPort(), a.Server())
	}
}

// testCounts compares what was counted with what happened.
func testCounts(t *testing.T, start Start) {
	r := start(t, relayserver.Config{})
	a, b := Connect(t, r), Connect(t, r)
	const count, size = 1024, 1024
	pkts := numbered(count, ofSize(size))
	for i := 0; i < count; i += 64 {
		if err := a.Send(b.ID, pkts[i:i+64], false); err != nil {
			t.Fatal(err)
		}
		b.Await(t, i+64)
	}
	Until(t, func() bool { return r.Server.Stats().Packets >= count })
	s := r.Server.Stats()
	if s.Packets != count || s.Bytes != count*size || s.Dropped != 0 {
		t.Errorf("forwarded %d datagrams, %d bytes; dropped %d", s.Packets, s.Bytes, s.Dropped)
	}
	if s.Opened != 2 || s.Closed != 0 || s.Live != 2 {
		t.Errorf("sessions: %+v", s)
	}
	home := Connect(t, r, func(cfg *relay.ClientConfig) { cfg.Home = true })
	if n := r.Server.Counters(); n["homes_live"] != 1 || n["sessions_live"] != 3 {
		t.Errorf("with one whose home this is: %v", n)
	}
	home.Close()
	b.Close()
	Until(t, func() bool { return r.Server.Stats().Live == 1 })
	if n := r.Server.Counters(); n["homes_live"] != 0 {
		t.Errorf("without: %v", n)
	}
	if s := r.Server.Stats(); s.Opened-s.Closed != uint64(s.Live) {
		t.Errorf("sessions: %+v", s)
	}
	if n := a.Counters(); n["sent_packets"] != count || n["sent_bytes"] != count*size {
		t.Errorf("sender: %v", n)
	}
	if n := b.Counters(); n["received_packets"] != count || n["received_bytes"] != count*size {
		t.Errorf("receiver: %v", n)
	}
}
