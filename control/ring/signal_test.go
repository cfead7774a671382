package ring

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

var update = flag.Bool("update", false, "write testdata/frames.txt anew")

func sampleSignal() *Signal {
	return &Signal{
		ID: ID{1, 2, 3}, Origin: seeded(1).ID(), Target: seeded(2).ID(), Type: Call, Time: time.UnixMilli(1_700_000_000_123).UTC(),
		Payload: []byte("sealed"),
	}
}

func sampleFrame(s *Signal) []byte {
	body := s.encode()
	return (&signalFrame{kindSignal, body, seeded(1).Sign(identity.PurposeRing, testNetwork, body), maxTTL, wayAfter}).encode()
}

// TestVectors compares all that goes over the wire with testdata/frames.txt: a format that changes by accident splits
// networks.
func TestVectors(t *testing.T) {
	where, here := sampleSignal(), sampleSignal()
	where.Type, where.Payload = WhereIs, nil
	here.Type, here.Payload = HereIs, bytes.Repeat([]byte{9}, 300)
	at := PositionOf(testNetwork, seeded(1).ID())
	var out strings.Builder
	for _, v := range []struct {
		name string
		data []byte
	}{
		{"network", testNetwork[:]},
		{"position", fmt.Appendf(nil, "%016x%016x", at.hi, at.lo)},
		{"call-body", sampleSignal().encode()},
		{"call", sampleFrame(sampleSignal())},
		{"call-aad", sampleSignal().AAD(testNetwork)},
		{"where-is", sampleFrame(where)},
		{"here-is", sampleFrame(here)},
		{"taken", (&answerFrame{kindTaken, ID{1, 2, 3}, seeded(1).ID(), wayBefore}).encode()},
		{"no-route", (&answerFrame{kindNoRoute, ID{1, 2, 3}, seeded(1).ID(), wayAfter}).encode()},
	} {
		text := hex.EncodeToString(v.data)
		if v.name == "position" {
			text = string(v.data)
		}
		fmt.Fprintf(&out, "%s %s\n", v.name, text)
	}
	const file = "testdata/frames.txt"
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("the wire format changed:\n%s", out.String())
	}
}

func TestRoundTrip(t *testing.T) {
	for _, edit := range []func(*Signal){
		func(*Signal) {},
		func(s *Signal) { s.Payload = nil },
		func(s *Signal) { s.Payload = make([]byte, MaxPayload) },
		func(s *Signal) { s.Type = 1 << 40 },
		func(s *Signal) { s.Time = time.UnixMilli(0).UTC() },
	} {
		s := sampleSignal()
		edit(s)
		frame := sampleFrame(s)
		f, got, newer, err := parseSignalFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != s.ID || got.Origin != s.Origin || got.Target != s.Target || got.Type != s.Type || !got.Time.Equal(s.Time) ||
			!bytes.Equal(got.Payload, s.Payload) || newer == s.Type.known() {
			t.Errorf("%v came back as %v", s, got)
		}
		if f.TTL != maxTTL || f.Way != wayAfter || len(frame) > MaxFrame {
			t.Errorf("frame of %d bytes, ttl %d, way %d", len(frame), f.TTL, f.Way)
		}
		if identity.Verify(s.Origin, identity.PurposeRing, testNetwork, f.Body, f.Sig) != nil {
			t.Error("the signature does not hold")
		}
	}
}

// TestBodies are forms that a body must not have, and some that a newer version may give it.
func TestBodies(t *testing.T) {
	id, a, b := ID{1}, seeded(1).ID(), seeded(2).ID()
	type m map[int]any
	whole := func(edit func(m)) m {
		x := m{0: id[:], 1: a[:], 2: b[:], 3: 1, 4: 5, 5: []byte("p")}
		edit(x)
		return x
	}
	for _, tt := range []struct {
		name      string
		body      m
		ok, newer bool
	}{
		{"whole", whole(func(m) {}), true, false},
		{"no payload", whole(func(x m) { delete(x, 5) }), true, false},
		{"an ignorable key", whole(func(x m) { x[-1] = 7 }), true, false},
		{"a critical key", whole(func(x m) { x[6] = 7 }), true, true},
		{"a type to come", whole(func(x m) { x[3] = 4 }), true, true},
		{"no type", whole(func(x m) { x[3] = 0 }), false, false},
		{"empty payload", whole(func(x m) { x[5] = []byte{} }), false, false},
		{"null payload", whole(func(x m) { x[5] = nil }), false, false},
		{"large payload", whole(func(x m) { x[5] = make([]byte, MaxPayload+1) }), false, false},
		{"large", whole(func(x m) { x[-1] = make([]byte, 200); x[5] = make([]byte, MaxPayload) }), false, false},
		{"to itself", whole(func(x m) { x[2] = a[:] }), false, false},
		{"short id", whole(func(x m) { x[0] = id[:15] }), false, false},
		{"no target", whole(func(x m) { delete(x, 2) }), false, false},
		{"no time", whole(func(x m) { delete(x, 4) }), false, false},
		{"late for ever", whole(func(x m) { x[4] = uint64(maxTime) }), false, false},
		{"payload as text", whole(func(x m) { x[5] = "p" }), false, false},
		{"empty", m{}, false, false},
	} {
		_, newer, err := parseBody(dcbor.Marshal(tt.body))
		if (err == nil) != tt.ok || newer != tt.newer {
			t.Errorf("%s: newer %v, err %v", tt.name, newer, err)
		}
	}
}

func FuzzSignalFrame(f *testing.F) {
	f.Add(sampleFrame(sampleSignal()))
	plain := sampleSignal()
	plain.Payload = nil
	f.Add(sampleFrame(plain))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, s, newer, err := parseSignalFrame(data)
		if err != nil {
			return
		}
		if !bytes.Equal(x.encode(), data) {
			t.Errorf("%x re-encodes as %x", data, x.encode())
		}
		if _, extra := bytes.CutPrefix(x.Body[1:], s.encode()[1:]); !extra {
			t.Errorf("body %x re-encodes as %x", x.Body, s.encode())
		}
		if !newer && !s.Type.known() {
			t.Error("an unknown type would be acted on")
		}
	})
}

func FuzzAnswerFrame(f *testing.F) {
	f.Add((&answerFrame{kindTaken, ID{1, 2, 3}, seeded(1).ID(), wayBefore}).encode())
	f.Add((&answerFrame{kindNoRoute, ID{1, 2, 3}, seeded(1).ID(), wayAfter}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if x, err := parseAnswerFrame(data); err == nil && !bytes.Equal(x.encode(), data) {
			t.Errorf("%x re-encodes as %x", data, x.encode())
		}
	})
}

// FuzzHandle throws bytes at a router as several neighbours would.
func FuzzHandle(f *testing.F) {
	f.Add(sampleFrame(sampleSignal()), sampleFrame(sampleSignal()))
	f.Add((&answerFrame{kindTaken, ID{1, 2, 3}, seeded(1).ID(), 0}).encode(), sampleFrame(sampleSignal()))
	self, members := seeded(0), []identity.PeerID{seeded(0).ID(), seeded(1).ID(), seeded(2).ID(), seeded(3).ID()}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r := NewRouter(Config{
			Self: self, Network: testNetwork, Rand: rand.New(rand.NewPCG(1, 1)),
			Verify: func(identity.PeerID, []byte, []byte) bool { return true },
		})
		r.SetView(View{Ring: New(testNetwork, members), Mode: Ringed, Sessions: members[1:]})
		now, mesh := testStart, time.UnixMilli(1_700_000_000_000)
		for i, data := range [][]byte{a, b, a} {
			for _, s := range r.Handle(now, mesh, members[1+i%3], data).Sends {
				if k := kindOf(s.Frame); k == 0 || k > kindNoRoute || s.To == members[0] {
					t.Errorf("sends %x", s.Frame)
				}
			}
		}
		r.Tick(now.Add(time.Second))
	})
}

func BenchmarkHandle(b *testing.B) {
	members := []identity.PeerID{seeded(0).ID(), seeded(1).ID(), seeded(2).ID(), seeded(3).ID()}
	r := NewRouter(Config{Self: seeded(0), Network: testNetwork})
	r.SetView(View{Ring: New(testNetwork, members), Mode: Ringed, Sessions: members[1:]})
	frame := sampleFrame(sampleSignal())
	now, mesh := testStart, time.UnixMilli(1_700_000_000_000)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		r.seen = seen{}
		r.memory = memory{}
		if a := r.Handle(now, mesh, members[3], frame); len(a.Sends) != 2 {
			b.Fatal(r.Counters())
		}
	}
}
