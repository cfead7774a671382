package ring

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

var testStart = time.Unix(1_000_000, 0)

// seat is one router with what stands around it on the ring.
type seat struct {
	*Router
	t      *testing.T
	now    time.Time
	nodes  []*identity.Identity // in the order of the ring; [0] is the router's
	prefer []identity.PeerID
}

// newSeat makes a router among n members, in session with those at the given places after it.
func newSeat(t *testing.T, n int, mode Mode, sessions ...int) *seat {
	s := &seat{t: t, now: testStart}
	for i := range n {
		s.nodes = append(s.nodes, seeded(i))
	}
	slices.SortFunc(s.nodes, func(a, b *identity.Identity) int {
		return PositionOf(testNetwork, a.ID()).Compare(PositionOf(testNetwork, b.ID()))
	})
	s.Router = NewRouter(Config{Self: s.nodes[0], Network: testNetwork, Rand: rand.New(rand.NewPCG(1, 1))})
	s.sit(mode, sessions...)
	return s
}

func (s *seat) sit(mode Mode, sessions ...int) {
	v := View{Mode: mode, Prefer: func(identity.PeerID) []identity.PeerID { return s.prefer }}
	var members []identity.PeerID
	for _, n := range s.nodes {
		members = append(members, n.ID())
	}
	v.Ring = New(testNetwork, members)
	for _, i := range sessions {
		v.Sessions = append(v.Sessions, s.id(i))
	}
	s.SetView(v)
}

func (s *seat) id(i int) identity.PeerID { return s.nodes[i].ID() }

// from is a signal as its origin makes it.
func (s *seat) from(origin, target int, number byte) *Signal {
	return &Signal{
		ID: ID{number, byte(origin)}, Origin: s.id(origin), Target: s.id(target), Type: Call, Time: s.now, Payload: []byte("sealed"),
	}
}

func (s *seat) frame(by int, sig *Signal, ttl uint64, w way) []byte {
	body := sig.encode()
	return (&signalFrame{kindSignal, body, s.nodes[by].Sign(identity.PurposeRing, testNetwork, body), ttl, w}).encode()
}

func (s *seat) answerOf(k kind, sig *Signal, w way) []byte {
	return (&answerFrame{k, sig.ID, sig.Origin, w}).encode()
}

func (s *seat) handle(from int, frame []byte) Actions {
	return s.Handle(s.now, s.now, s.id(from), frame)
}

func (s *seat) originate(target int) (*Signal, Actions) {
	s.t.Helper()
	sig := s.Draft(s.now, s.id(target), Call)
	sig.Payload = []byte("sealed")
	a, err := s.Originate(s.now, sig)
	if err != nil {
		s.t.Fatal(err)
	}
	return sig, a
}

// line is one frame in short: to whom, what, by which way.
type line struct {
	to   int
	kind kind
	way  way
}

func (s *seat) lines(a Actions) []line {
	s.t.Helper()
	var all []line
	for _, x := range a.Sends {
		l := line{to: slices.IndexFunc(s.nodes, func(n *identity.Identity) bool { return n.ID() == x.To }), kind: kindOf(x.Frame)}
		if l.kind == kindSignal {
			f, _, _, err := parseSignalFrame(x.Frame)
			if err != nil {
				s.t.Fatal(err)
			}
			l.way = f.Way
		} else {
			f, err := parseAnswerFrame(x.Frame)
			if err != nil {
				s.t.Fatal(err)
			}
			l.way = f.Way
		}
		all = append(all, l)
	}
	return all
}

func (s *seat) expect(what string, a Actions, want ...line) {
	s.t.Helper()
	if got := s.lines(a); !slices.Equal(got, want) {
		s.t.Errorf("%s: sends %v, want %v", what, got, want)
	}
}

func (s *seat) counted(what count, want uint64) {
	s.t.Helper()
	if got := s.Counters()[countNames[what]]; got != want {
		s.t.Errorf("%d %s, want %d", got, countNames[what], want)
	}
}

// TestHandle is one frame at a router in session with the members 1, 2, 10, 20 and 39 of 40 after it.
func TestHandle(t *testing.T) {
	late := func(d time.Duration) func(*seat, *Signal) {
		return func(_ *seat, sig *Signal) { sig.Time = sig.Time.Add(d) }
	}
	for _, tt := range []struct {
		name           string
		from           int
		origin, target int
		signer         int // if not origin
		ttl            uint64
		way            way
		edit           func(*seat, *Signal)
		want           []line
		deliver, bad   bool
		counted        count
	}{
		{name: "for this node", from: 1, origin: 5, target: 0, ttl: 1, want: []line{{1, kindTaken, 0}}, deliver: true, counted: delivered},
		{name: "to its target", from: 39, origin: 30, target: 10, ttl: 20, want: []line{{10, kindSignal, 0}, {39, kindTaken, 0}}, counted: forwarded},
		{name: "to the nearest before", from: 39, origin: 30, target: 15, ttl: 20, want: []line{{10, kindSignal, 0}, {39, kindTaken, 0}}, counted: forwarded},
		{name: "to the nearest after", from: 39, origin: 30, target: 15, ttl: 20, way: 1, want: []line{{20, kindSignal, 1}, {39, kindTaken, 1}}, counted: forwarded},
		{name: "never back", from: 10, origin: 30, target: 15, ttl: 20, want: []line{{2, kindSignal, 0}, {10, kindTaken, 0}}, counted: forwarded},
		{name: "nor to the origin", from: 39, origin: 10, target: 15, ttl: 20, want: []line{{2, kindSignal, 0}, {39, kindTaken, 0}}, counted: forwarded},
		{name: "the last on its side", from: 1, origin: 5, target: 38, ttl: 20, way: 1, want: []line{{39, kindSignal, 1}, {1, kindTaken, 1}}, counted: forwarded},
		{name: "dead end", from: 39, origin: 5, target: 38, ttl: 20, way: 1, want: []line{{39, kindNoRoute, 1}}, counted: deadEnd},
		{name: "end of the ttl", from: 39, origin: 30, target: 10, ttl: 1, want: []line{{39, kindTaken, 0}}, counted: exhausted},
		{name: "almost end of the ttl", from: 39, origin: 30, target: 10, ttl: 2, want: []line{{10, kindSignal, 0}, {39, kindTaken, 0}}, counted: forwarded},
		{name: "forged", from: 1, origin: 5, target: 0, signer: 6, ttl: 20, bad: true, counted: forged},
		{name: "ttl of nobody", from: 1, origin: 5, target: 0, ttl: 21, bad: true, counted: malformed},
		{name: "no ttl", from: 1, origin: 5, target: 0, ttl: 0, bad: true, counted: malformed},
		{name: "a third way", from: 1, origin: 5, target: 0, ttl: 3, way: 2, bad: true, counted: malformed},
		{name: "old", from: 1, origin: 5, target: 0, ttl: 20, edit: late(-skew - time.Millisecond), counted: lateCount},
		{name: "just young enough", from: 1, origin: 5, target: 0, ttl: 20, edit: late(-skew), want: []line{{1, kindTaken, 0}}, deliver: true, counted: delivered},
		{name: "from the future", from: 1, origin: 5, target: 0, ttl: 20, edit: late(skew + time.Millisecond), counted: lateCount},
		{name: "a stranger's", from: 1, origin: 5, target: 0, ttl: 20, edit: func(s *seat, sig *Signal) {
			sig.Origin = seeded(1000).ID()
			s.nodes[5] = seeded(1000)
		}, counted: strangers},
		{name: "this node's own", from: 1, origin: 0, target: 5, ttl: 20, counted: strangers},
		{name: "for a stranger", from: 1, origin: 5, target: 7, ttl: 20, edit: func(_ *seat, sig *Signal) {
			sig.Target = seeded(1000).ID()
		}, want: []line{{1, kindNoRoute, 0}}, counted: deadEnd},
		{name: "of a type to come", from: 1, origin: 5, target: 0, ttl: 20, edit: func(_ *seat, sig *Signal) { sig.Type = 200 }, want: []line{{1, kindTaken, 0}}, counted: unknown},
		{name: "of a type to come, for another", from: 39, origin: 30, target: 10, ttl: 20, edit: func(_ *seat, sig *Signal) { sig.Type = 200 }, want: []line{{10, kindSignal, 0}, {39, kindTaken, 0}}, counted: forwarded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSeat(t, 40, Ringed, 1, 2, 10, 20, 39)
			sig := s.from(tt.origin, tt.target, 1)
			if tt.edit != nil {
				tt.edit(s, sig)
			}
			signer := tt.origin
			if tt.signer != 0 {
				signer = tt.signer
			}
			a := s.handle(tt.from, s.frame(signer, sig, tt.ttl, tt.way))
			s.expect("frame", a, tt.want...)
			if (a.Deliver != nil) != tt.deliver || a.Bad != tt.bad {
				t.Errorf("delivered %v, bad %v", a.Deliver != nil, a.Bad)
			}
			s.counted(tt.counted, 1)
			for _, x := range a.Sends {
				if kindOf(x.Frame) != kindSignal {
					continue
				}
				if f, got, _, _ := parseSignalFrame(x.Frame); f.TTL != tt.ttl-1 || !bytes.Equal(f.Body, sig.encode()) || got.ID != sig.ID {
					t.Errorf("passed on as another, ttl %d", f.TTL)
				}
			}
		})
	}
}

const lateCount = late

func TestGarbage(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2)
	for i, frame := range [][]byte{nil, {0xa0}, []byte("\xa1\x00\x01"), bytes.Repeat([]byte{0xa5, 0, 1}, 1000), []byte("\xa1\x00\x02"), []byte("\x81\x00\x02")} {
		if a := s.handle(1+i, frame); !a.Bad || len(a.Sends) > 0 {
			t.Errorf("garbage %x was taken", frame[:min(3, len(frame))])
		}
	}
	s.counted(malformed, 6)
	if a := s.handle(20, []byte("\xa1\x00\x04")); a.Bad {
		t.Error("a kind to come is not bad")
	}
	s.counted(unknown, 1)
}

// TestMuted: who passes a forged signal on is not listened to for 10 s. It should have looked itself.
func TestMuted(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2)
	s.handle(1, s.frame(6, s.from(5, 0, 1), 20, 0))
	if a := s.handle(1, s.frame(5, s.from(5, 0, 2), 20, 0)); a.Deliver != nil {
		t.Error("a muted neighbour was heard")
	}
	if a := s.handle(2, s.frame(5, s.from(5, 0, 3), 20, 0)); a.Deliver == nil {
		t.Error("another neighbour was muted too")
	}
	s.now = s.now.Add(muteFor)
	if a := s.handle(1, s.frame(5, s.from(5, 0, 4), 20, 0)); a.Deliver == nil {
		t.Error("muted for ever")
	}
	s.counted(muted, 1)
}

func TestReplay(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2, 10)
	mine, others := s.frame(5, s.from(5, 0, 1), 20, 0), s.frame(5, s.from(5, 12, 2), 20, 0)
	if s.handle(1, mine).Deliver == nil {
		t.Fatal("not delivered")
	}
	s.expect("first", s.handle(1, others), line{10, kindSignal, 0}, line{1, kindTaken, 0})
	s.expect("again", s.handle(1, others), line{1, kindTaken, 0})
	s.expect("from another", s.handle(2, others), line{2, kindTaken, 0})
	for i, w := range []way{0, 1} { // by the other way it is this node's still only once
		if a := s.handle(1+i, s.frame(5, s.from(5, 0, 1), 20, w)); a.Deliver != nil {
			t.Error("delivered twice")
		}
	}
	s.counted(duplicate, 4)
	other := s.from(6, 0, 1)
	other.ID = s.from(5, 0, 1).ID
	if s.handle(1, s.frame(6, other, 20, 0)).Deliver == nil {
		t.Error("an id that another origin used too was taken for a repetition")
	}
	start := s.now
	for s.now.Sub(start) < seenFor+time.Minute {
		s.now = s.now.Add(time.Second)
		if s.handle(1, mine).Deliver != nil {
			t.Fatalf("delivered again after %v", s.now.Sub(start))
		}
	}
}

// TestFlood has one neighbour send a thousand signals a second, and another a few.
func TestFlood(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2, 10, 20)
	passed, heard, number := 0, 0, 0
	for range 5000 {
		s.now = s.now.Add(time.Millisecond)
		number++
		flood := s.from(1, 10, 1)
		flood.ID = ID{1, byte(number), byte(number >> 8)}
		for _, l := range s.lines(s.handle(1, s.frame(1, flood, 20, 0))) {
			if l.kind == kindSignal {
				passed++
			}
		}
		if number%125 == 0 { // 8 a second
			calm := s.from(5, 0, 1)
			calm.ID = ID{2, byte(number), byte(number >> 8)}
			if s.handle(2, s.frame(5, calm, 20, 0)).Deliver != nil {
				heard++
			}
		}
	}
	if passed > 6*rateOrigin {
		t.Errorf("%d signals of a flood passed in 5 s", passed)
	}
	if heard != 40 {
		t.Errorf("%d of 40 signals heard beside a flood", heard)
	}
}

// TestManyOrigins has one neighbour pass on the signals of many: it has a quota too.
func TestManyOrigins(t *testing.T) {
	s := newSeat(t, 600, Ringed, 1, 2, 10, 20)
	all := 0
	for i := 21; i < 590; i++ {
		all += len(s.handle(1, s.frame(i, s.from(i, 0, 1), 20, 0)).Sends)
	}
	if all != rateNeighbour {
		t.Errorf("%d signals at once, want %d", all, rateNeighbour)
	}
}

// TestVerifyBudget has several neighbours spend all checks that there are. Each other one still has its share.
func TestVerifyBudget(t *testing.T) {
	s := newSeat(t, 600, Ringed, 1, 2, 3, 4, 5)
	for i := 21; i < 321; i++ {
		s.handle(1+i%3, s.frame(i, s.from(i, 0, 1), 20, 0))
	}
	s.counted(delivered, rateVerify+3*burstVerifyEach)
	s.counted(unverified, 300-rateVerify-3*burstVerifyEach)
	if s.handle(5, s.frame(400, s.from(400, 0, 1), 20, 0)).Deliver == nil {
		t.Error("a neighbour was shut out by others")
	}
}

func TestSeen(t *testing.T) {
	var x seen
	now, one := testStart, identity.PeerID{1}
	victim := signalKey{identity.PeerID{2}, ID{1}}
	x.add(now, victim, 0)
	for i := range 2 * maxSeen {
		if ok := x.add(now, signalKey{one, ID{byte(i), byte(i >> 8), byte(i >> 16)}}, 0); ok != (i < seenEach) {
			t.Fatalf("id %d of one origin: %v", i, ok)
		}
	}
	if !x.has(victim, 0) || x.has(victim, 1) {
		t.Error("one origin made it forget another's")
	}
	for i := range 2 * maxSeen {
		x.add(now, signalKey{identity.PeerID{3, byte(i), byte(i >> 8)}, ID{}}, 0)
	}
	if len(x.by) != maxSeen || len(x.order) != maxSeen {
		t.Errorf("%d ids remembered", len(x.by))
	}
	x.add(now.Add(seenFor+time.Second), victim, 1)
	if len(x.by) != 1 || len(x.each) != 1 || len(x.order) != 1 {
		t.Errorf("%d ids remembered that are over", len(x.by))
	}
}

// TestSilence: a neighbour that does not answer is passed over, and the next signals avoid it.
func TestSilence(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2, 5, 10, 39)
	if !s.Next().IsZero() {
		t.Error("something to do at the start")
	}
	sig := s.from(30, 15, 1)
	s.expect("signal", s.handle(39, s.frame(30, sig, 20, 0)), line{10, kindSignal, 0}, line{39, kindTaken, 0})
	if got := s.Next(); !got.Equal(s.now.Add(takenWithin)) {
		t.Errorf("next at %v", got.Sub(s.now))
	}
	s.expect("too early", s.Tick(s.now.Add(takenWithin-1)))
	s.now = s.now.Add(takenWithin)
	s.expect("silence", s.Tick(s.now), line{5, kindSignal, 0})
	s.expect("another signal", s.handle(39, s.frame(30, s.from(30, 15, 2), 20, 0)), line{5, kindSignal, 0}, line{39, kindTaken, 0})
	s.handle(5, s.answerOf(kindTaken, s.from(30, 15, 2), 0))
	s.now = s.now.Add(takenWithin)
	s.expect("silence", s.Tick(s.now), line{2, kindSignal, 0})
	s.expect("a third", s.handle(39, s.frame(30, s.from(30, 15, 3), 20, 0)), line{2, kindSignal, 0}, line{39, kindTaken, 0})
	s.handle(2, s.answerOf(kindTaken, s.from(30, 15, 3), 0))
	s.handle(10, s.answerOf(kindTaken, sig, 0)) // slow, not dead
	s.expect("a fourth", s.handle(39, s.frame(30, s.from(30, 15, 4), 20, 0)), line{10, kindSignal, 0}, line{39, kindTaken, 0})
	s.handle(10, s.answerOf(kindTaken, s.from(30, 15, 4), 0))
	s.now = s.now.Add(takenWithin)
	s.expect("enough", s.Tick(s.now), line{39, kindNoRoute, 0})
	if !s.Next().IsZero() {
		t.Error("something to do at the end")
	}
	s.counted(retried, 2)
	s.counted(lost, 1)
	s.counted(astray, 0)
}

// TestNoRoute goes back by the way that the signal came, and only who has the signal may say it.
func TestNoRoute(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2, 5, 10, 39)
	sig := s.from(30, 15, 1)
	no := s.answerOf(kindNoRoute, sig, 0)
	s.handle(39, s.frame(30, sig, 20, 0))
	s.expect("of another neighbour", s.handle(5, no))
	s.expect("by another way", s.handle(10, s.answerOf(kindNoRoute, sig, 1)))
	s.expect("of another signal", s.handle(10, s.answerOf(kindNoRoute, s.from(30, 15, 2), 0)))
	s.expect("taken", s.handle(10, s.answerOf(kindTaken, sig, 0)))
	s.expect("passed back", s.handle(10, no), line{39, kindNoRoute, 0})
	s.expect("only once", s.handle(10, no))
	s.counted(astray, 4)
	s.counted(returned, 1)
	s.handle(39, s.frame(30, s.from(30, 15, 3), 20, 0))
	for range 31 {
		s.now = s.now.Add(time.Second)
		s.handle(39, s.frame(31, s.from(31, 0, byte(s.now.Unix())), 20, 0))
	}
	s.handle(39, s.frame(30, s.from(30, 15, 4), 20, 0))
	s.expect("too late", s.handle(10, s.answerOf(kindNoRoute, s.from(30, 15, 3), 0)))
}

func TestOriginate(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2, 10, 39)
	sig, a := s.originate(15)
	s.expect("to the nearest before", a, line{10, kindSignal, 0})
	a = s.handle(10, s.answerOf(kindNoRoute, sig, 0))
	if got := s.lines(a); len(got) != 1 || got[0].to == 10 || got[0].kind != kindSignal || got[0].way != 1 {
		t.Fatalf("after a no-route: %v", got)
	}
	second := s.lines(a)[0].to
	a = s.handle(second, s.answerOf(kindNoRoute, sig, 1))
	s.expect("no third way", a)
	if !slices.Equal(a.Failed, []ID{sig.ID}) {
		t.Errorf("failed %v", a.Failed)
	}
	s.counted(noWay, 1)

	_, a = s.originate(15) // those two lead nowhere for a while
	for _, l := range s.lines(a) {
		if l.to == 10 || l.to == second {
			t.Errorf("by %d, which led nowhere", l.to)
		}
	}
	sig, a = s.originate(10)
	if got := s.lines(a); len(got) != 2 || got[0].to != 10 || got[1].to == 10 || got[0].way == got[1].way {
		t.Errorf("with a session with the target: %v", got)
	}
	if a = s.handle(10, s.answerOf(kindTaken, sig, 0)); len(a.Failed)+len(a.Sends) > 0 {
		t.Error("something to do after it was taken")
	}
	_, a = s.originate(20)
	s.expect("first", a, line{10, kindSignal, 0})
	_, a = s.originate(20)
	s.expect("again", a, line{39, kindSignal, 1})
	s.now = s.now.Add(againIn)
	_, a = s.originate(20)
	s.expect("later", a, line{10, kindSignal, 0})
}

// TestRoam: the second way begins anywhere, so that nobody can sit on both.
func TestRoam(t *testing.T) {
	first := map[int]bool{}
	s := newSeat(t, 40, Ringed, 1, 2, 10, 30, 39)
	for i := 11; i < 30; i++ {
		s.now = s.now.Add(time.Minute)
		sig, _ := s.originate(i)
		for _, l := range s.lines(s.handle(10, s.answerOf(kindNoRoute, sig, 0))) {
			first[l.to] = true
		}
	}
	if len(first) != 4 || first[10] {
		t.Errorf("began at %v", first)
	}
}

// TestFramesAreCopied: what was handed in may be used again.
func TestFramesAreCopied(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2, 10, 39)
	frame := s.frame(30, s.from(30, 15, 1), 20, 0)
	want := s.handle(39, frame).Sends[0].Frame
	clear(frame)
	if got := s.Tick(s.now.Add(takenWithin)).Sends; len(got) != 1 || !bytes.Equal(got[0].Frame, want) {
		t.Error("another frame was sent again")
	}
}

func TestAnswersAreLimited(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2, 10, 39)
	for range rateAnswers + 50 {
		s.handle(1, s.answerOf(kindTaken, s.from(30, 15, 1), 0))
	}
	s.counted(astray, rateAnswers)
	s.counted(limited, 50)
}

func TestOriginateErrors(t *testing.T) {
	s := newSeat(t, 40, Ringed)
	for name, edit := range map[string]func(*Signal){
		"too large":        func(sig *Signal) { sig.Payload = make([]byte, MaxPayload+1) },
		"of another":       func(sig *Signal) { sig.Origin = s.id(2) },
		"to itself":        func(sig *Signal) { sig.Target = s.id(0) },
		"to a stranger":    func(sig *Signal) { sig.Target = seeded(1000).ID() },
		"of no known type": func(sig *Signal) { sig.Type = 77 },
	} {
		sig := s.Draft(s.now, s.id(1), WhereIs)
		edit(sig)
		if a, err := s.Originate(s.now, sig); !errors.Is(err, ErrSignal) || len(a.Sends) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Originate(s.now, s.Draft(s.now, s.id(1), WhereIs)); !errors.Is(err, ErrNoWay) {
		t.Errorf("without sessions: %v", err)
	}
	s.counted(noWay, 1)
	s.sit(Ringed, 3)
	sig := s.Draft(s.now, s.id(5), HereIs)
	sig.Payload = bytes.Repeat([]byte{7}, MaxPayload)
	a, err := s.Originate(s.now, sig)
	if err != nil || len(a.Sends) != 1 || len(a.Sends[0].Frame) > MaxFrame {
		t.Errorf("the largest payload: %v", err)
	}
}

// TestOwnQuota: a node does not send to a neighbour what that would drop.
func TestOwnQuota(t *testing.T) {
	s := newSeat(t, 40, Ringed, 1, 2, 3)
	to := map[int]int{}
	for i := range 40 {
		sig := s.Draft(s.now, s.id(4+i%35), Call)
		a, err := s.Originate(s.now, sig)
		for _, l := range s.lines(a) {
			to[l.to]++
		}
		if (err == nil) != (i < 3*rateOrigin) {
			t.Errorf("signal %d: %v", i, err)
		}
	}
	for i, n := range to {
		if n != rateOrigin {
			t.Errorf("%d signals at once to %d", n, i)
		}
	}
}

// TestFullMode: among few members a signal takes at most one hop between, through its target's homes first.
func TestFullMode(t *testing.T) {
	s := newSeat(t, 10, Full, 1, 2, 3, 4, 5)
	s.prefer = []identity.PeerID{s.id(9), s.id(4)} // no session with 9
	sig, a := s.originate(8)
	got := s.lines(a)
	if len(got) != 2 || got[0] != (line{4, kindSignal, 0}) || got[1].to == 4 || got[1].way != 1 {
		t.Fatalf("without a session: %v", got)
	}
	for i, l := range got {
		a = s.handle(l.to, s.answerOf(kindNoRoute, sig, l.way))
		if len(a.Sends) > 0 || (len(a.Failed) == 1) != (i == 1) {
			t.Errorf("no-route %d: %v, failed %v", i, s.lines(a), a.Failed)
		}
	}
	_, a = s.originate(8)
	for _, l := range s.lines(a) {
		if l.to == got[0].to || l.to == got[1].to {
			t.Error("by one that led nowhere")
		}
	}
	_, a = s.originate(2)
	if got := s.lines(a); len(got) != 2 || got[0].to != 2 || got[1].to != 4 {
		t.Errorf("with a session: %v", got)
	}
	s.expect("between", s.handle(1, s.frame(6, s.from(6, 3, 1), 20, 0)), line{3, kindSignal, 0}, line{1, kindTaken, 0})
	s.expect("no session", s.handle(1, s.frame(6, s.from(6, 8, 2), 20, 0)), line{1, kindNoRoute, 0})
	s.expect("never back", s.handle(3, s.frame(6, s.from(6, 3, 3), 20, 0)), line{3, kindNoRoute, 0})
	s.now = s.now.Add(takenWithin)
	if got := s.lines(s.Tick(s.now)); !slices.Contains(got, line{1, kindNoRoute, 0}) {
		t.Errorf("the target stays silent: %v", got)
	}
}

func TestPendingIsBounded(t *testing.T) {
	var m memory
	for i := range 3 * maxPending {
		p := &pending{key: wayKey{signalKey{id: ID{byte(i), byte(i >> 8), byte(i >> 16)}}, 0}}
		m.wait(testStart, p)
		m.add(testStart, p)
	}
	if len(m.by) != maxPending || len(m.order) != maxPending {
		t.Errorf("%d pending", len(m.by))
	}
	n := 0
	for m.due(testStart.Add(takenWithin)) != nil {
		n++
	}
	if n != maxPending || !m.next().IsZero() {
		t.Errorf("%d due", n)
	}
	m.add(testStart.Add(pendingFor+1), &pending{})
	if len(m.by) != 1 {
		t.Errorf("%d pending after all were over", len(m.by))
	}
}

func TestNeighboursAreBounded(t *testing.T) {
	s := newSeat(t, 2, Full, 1)
	for i := range 2 * maxNeighbours {
		s.neighbour(s.now, identity.PeerID{byte(i), byte(i >> 8), 1})
	}
	if len(s.near) != maxNeighbours || s.neighbour(s.now, identity.PeerID{9, 9, 9}) != nil {
		t.Errorf("%d neighbours", len(s.near))
	}
	s.now = s.now.Add(neighbourFor + time.Second)
	if s.neighbour(s.now, identity.PeerID{9, 9, 9}) == nil || len(s.near) != 1 {
		t.Errorf("%d neighbours after all were gone", len(s.near))
	}
	n := new(neighbour)
	for i := range 2 * maxOrigins {
		n.fromOrigin(s.now, identity.PeerID{byte(i), byte(i >> 8)})
	}
	if len(n.origins) != maxOrigins {
		t.Errorf("%d origins", len(n.origins))
	}
	if !n.fromOrigin(s.now.Add(time.Second), identity.PeerID{7, 7, 7}) || len(n.origins) != 1 {
		t.Errorf("%d origins after a second", len(n.origins))
	}
}
