package dht

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/dht/v2/bep44"
)

// id20 is a bencoded id.
const id20 = "20:abcdefghij0123456789"

// deadly are packets that would end a program in which the DHT library reads them, or cost it 100 MB.
var deadly = map[string]string{
	"put without arguments":           "d1:q3:put1:t1:x1:y1:qe",
	"announce_peer without arguments": "d1:q13:announce_peer1:t1:x1:y1:qe",
	"address without port":            "d2:ip0:1:rd2:id" + id20 + "e1:t1:x1:y1:re",
	"values without port":             "d1:rd2:id" + id20 + "6:valuesl0:ee1:t1:x1:y1:re",
	"length beyond the packet":        "d1:v99999999:",
}

func TestGuardStopsDeadlyPackets(t *testing.T) {
	for _, serve := range []bool{false, true} {
		g := newGuard(nil, serve)
		from := at("192.0.2.1:6881")
		defer g.asking(from)()
		for name, pkt := range deadly {
			if g.pass([]byte(pkt), from, testTime) {
				t.Errorf("%s passed", name)
			}
		}
	}
}

func TestGuardPass(t *testing.T) {
	const (
		answer = "d1:rd2:id" + id20 + "e1:t1:x1:y1:re"
		ping   = "d1:ad2:id" + id20 + "e1:q4:ping1:t1:x1:y1:qe"
		put    = "d1:ad2:id" + id20 + "1:k32:abcdefghij0123456789abcdefghij013:seqi1e5:token1:x1:v1:ve1:q3:put1:t1:x1:y1:qe"
	)
	big := strings.Replace(put, "1:v1:v", "1:v1200:"+strings.Repeat("v", 1200), 1)
	for _, c := range []struct {
		name, pkt         string
		serve, asked, yes bool
	}{
		{"answer of one asked", answer, false, true, true},
		{"answer of another", answer, false, false, false},
		{"answer of another to one that serves", answer, true, false, false},
		{"query", ping, true, false, true},
		{"query to one that does not serve", ping, false, false, false},
		{"query of one asked, to one that does not serve", ping, false, true, false},
		{"put", put, true, false, true},
		{"put of too much", big, true, false, false},
		{"put without value", strings.Replace(put, "1:v1:v", "", 1), true, false, false},
		{"put without seq", strings.Replace(put, "3:seqi1e", "", 1), true, false, false},
		{"announce", strings.Replace(ping, "4:ping", "13:announce_peer", 1), true, false, false},
		{"unknown query", strings.Replace(ping, "4:ping", "4:pong", 1), true, false, false},
		{"something behind", answer + "x", false, true, false},
		{"short id", strings.Replace(answer, id20, "19:abcdefghij012345678", 1), false, true, false},
		{"deep", "d1:v" + strings.Repeat("l", 500) + strings.Repeat("e", 500) + "e", true, true, false},
		{"no number", "d1:vi-ee", true, true, false},
		{"no dictionary", "4:ping", true, true, false},
		{"empty", "", true, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuard(nil, c.serve)
			if c.asked {
				defer g.asking(at("192.0.2.1:6881"))()
			}
			if got := g.pass([]byte(c.pkt), at("192.0.2.1:6881"), testTime); got != c.yes {
				t.Errorf("passed: %v", got)
			}
		})
	}
}

func TestGuardBoundsFloods(t *testing.T) {
	g := newGuard(nil, true)
	defer g.asking(at("192.0.2.1:6881"))()
	ping := []byte("d1:ad2:id" + id20 + "e1:q4:ping1:t1:x1:y1:qe")
	passed := 0
	for i := range 5000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), 1)
		if g.pass(ping, from, testTime.Add(time.Duration(i)*200*time.Microsecond)) {
			passed++
		}
	}
	if passed > queriesPerSec+queriesBurst+1 {
		t.Errorf("%d queries of a flood passed in a second", passed)
	}
	if !g.pass([]byte("d1:rd2:id"+id20+"e1:t1:x1:y1:re"), at("192.0.2.1:6881"), testTime.Add(time.Second)) {
		t.Error("an answer did not pass during a flood of queries")
	}
}

// badConn fails to read, as a socket does whose network went.
type badConn struct{ net.PacketConn }

func (badConn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errors.New("gone") }
func (badConn) Close() error                           { return nil }
func (badConn) LocalAddr() net.Addr                    { return &net.UDPAddr{} }

func TestRunEndsWhenTheSocketFails(t *testing.T) {
	t.Parallel()
	n := New(Config{Open: func() (net.PacketConn, error) { return badConn{}, nil }})
	start := time.Now()
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Fatalf("Run: %v", err)
	}
	if took := time.Since(start); took < 4*time.Second || took > 10*time.Second {
		t.Errorf("after %v", took)
	}
	if _, err := n.Lookup(t.Context(), secretOf(1), testTime); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Lookup: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, pkt := range deadly {
		f.Add([]byte(pkt))
	}
	f.Add([]byte("d1:ad2:id" + id20 + "1:k32:abcdefghij0123456789abcdefghij013:seqi1e5:token1:x1:vli1eee1:q3:put1:t1:x1:y1:qe"))
	f.Add([]byte("d1:ad2:id" + id20 + "1:vi99999999999999999999ee1:q3:put1:t1:x1:y1:qe"))
	f.Add([]byte("d1:eli201e4:spame1:t1:x1:y1:ee"))
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := decode(b)
		if err != nil || msg.Y != "q" || !answerable(msg) || msg.Q != "put" {
			return
		}
		item := &bep44.Item{V: msg.A.V, K: msg.A.K, Salt: msg.A.Salt, Sig: msg.A.Sig, Seq: *msg.A.Seq}
		_ = bep44.NewWrapper(newStore(), time.Hour).Put(item)
	})
}

func TestStoreIsBoundedAndComparesSequences(t *testing.T) {
	s := newStore()
	put := func(i int, seq, cas int64) error {
		item := &bep44.Item{V: "v", K: [32]byte{1, byte(i >> 8), byte(i)}, Seq: seq, Cas: cas}
		return s.Put(item)
	}
	for _, c := range []struct {
		seq, cas int64
		ok       bool
	}{{5, 0, true}, {6, 5, true}, {7, 6, true}, {8, 6, false}, {8, 7, true}, {9, 0, true}, {10, 9, true}} {
		if err := put(0, c.seq, c.cas); (err == nil) != c.ok {
			t.Errorf("seq %d over %d: %v", c.seq, c.cas, err)
		}
	}
	for i := range 3 * maxStored {
		if err := put(i, 1, 0); err != nil {
			t.Fatal(fmt.Errorf("item %d: %w", i, err))
		}
	}
	if len(s.items) > maxStored || len(s.wrote) != len(s.items) {
		t.Errorf("%d items", len(s.items))
	}
	item := &bep44.Item{V: "v", K: [32]byte{1, byte((3*maxStored - 1) >> 8), byte((3*maxStored - 1) & 255)}}
	if _, err := s.Get(item.Target()); err != nil {
		t.Errorf("the newest one: %v", err)
	}
}
