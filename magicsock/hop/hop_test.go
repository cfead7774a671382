package hop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

var start = time.Unix(1_700_000_000, 0)

var (
	alice, bob, carol = identity.PeerID{1}, identity.PeerID{2}, identity.PeerID{3}
	atAlice           = End{Addr: netip.MustParseAddrPort("192.0.2.1:1001")}
	atBob             = End{Addr: netip.MustParseAddrPort("192.0.2.2:1002")}
	elsewhere         = End{Addr: netip.MustParseAddrPort("[2001:db8::1]:1003")}
)

// open makes a session of alice and bob, and a client of each.
func open(t *testing.T, table *Table, now time.Time) (a, b Client) {
	t.Helper()
	o, err := table.Open(now, alice, bob, Nonce{7})
	if err != nil || !o.Offer {
		t.Fatalf("open: %+v, %v", o, err)
	}
	return NewClient(now, o.SID, Nonce{7}), NewClient(now, o.SID, o.Nonce)
}

// bindFrom plays a client's packets from an address, and the relay's answers to it.
func bindFrom(t *testing.T, table *Table, now time.Time, c *Client, from End) {
	t.Helper()
	pkt := c.Tick(now)
	for pkt != nil {
		reply := table.HandleBind(now, from, pkt)
		if len(reply) > len(pkt) {
			t.Fatalf("%d bytes answered with %d", len(pkt), len(reply))
		}
		if reply == nil {
			return
		}
		pkt = c.Handle(now, reply)
	}
}

// bound is a table with a session that both have bound.
func bound(t *testing.T, cfg Config) (table *Table, a, b Client) {
	t.Helper()
	table = NewTable(cfg)
	a, b = open(t, table, start)
	bindFrom(t, table, start, &a, atAlice)
	bindFrom(t, table, start, &b, atBob)
	if a.State() != Bound || b.State() != Bound {
		t.Fatalf("states %d, %d", a.State(), b.State())
	}
	return table, a, b
}

func forward(table *Table, now time.Time, from End, sid uint32) (netip.AddrPort, Verdict) {
	to, _, v := table.Forward(now, from.Addr, sid, 1000, 1000)
	if to == nil {
		return netip.AddrPort{}, v
	}
	return to.Addr, v
}

func TestSessionCarriesBothWays(t *testing.T) {
	table := NewTable(Config{})
	a, b := open(t, table, start)
	if _, v := forward(table, start, atAlice, a.SID()); v != Unbound {
		t.Fatalf("before anybody bound: %d", v)
	}
	bindFrom(t, table, start, &a, atAlice)
	if _, v := forward(table, start, atAlice, a.SID()); v != Waiting {
		t.Fatalf("before bob bound: %d", v)
	}
	bindFrom(t, table, start, &b, atBob)
	for _, way := range [][2]End{{atAlice, atBob}, {atBob, atAlice}} {
		if to, v := forward(table, start, way[0], a.SID()); v != Pass || to != way[1].Addr {
			t.Fatalf("from %v to %v, %d", way[0].Addr, to, v)
		}
	}
	if _, v := forward(table, start, elsewhere, a.SID()); v != Unbound {
		t.Fatalf("from elsewhere: %d", v)
	}
	if _, v := forward(table, start, atAlice, a.SID()+1); v != Gone {
		t.Fatalf("another session: %d", v)
	}
	if c := table.Counters(); c.Sessions != 1 || c.Bound != 2 || c.Passed != 2000 || c.Unbound != 2000 || c.Gone != 1000 {
		t.Fatalf("%+v", c)
	}
}

func TestRebind(t *testing.T) {
	table, a, b := bound(t, Config{})
	now := start.Add(time.Second)
	hint := table.Hint(now, elsewhere.Addr, a.SID(), Unbound)
	if reply := a.Handle(now, hint); reply != nil || a.Due().IsZero() {
		t.Fatal("the hint did not make the client ask")
	}
	hello := a.Tick(now)
	challenge := table.HandleBind(now, elsewhere, hello)
	if to, v := forward(table, now, atBob, b.SID()); v != Pass || to != atAlice.Addr {
		t.Fatalf("the old binding ended early: %v, %d", to, v)
	}
	answer := a.Handle(now, challenge)
	a.Handle(now, table.HandleBind(now, elsewhere, answer))
	if to, v := forward(table, now, atBob, b.SID()); v != Pass || to != elsewhere.Addr {
		t.Fatalf("the binding did not move: %v, %d", to, v)
	}
	if a.State() != Bound || !a.Due().IsZero() {
		t.Fatal("the client still asks")
	}
	if reply := table.HandleBind(now, elsewhere, answer); reply != nil {
		t.Fatal("an answer counted twice")
	}
}

// TestSpoofedBindMovesNothing plays somebody who heard everything that alice said, from other addresses.
func TestSpoofedBindMovesNothing(t *testing.T) {
	table := NewTable(Config{})
	a, b := open(t, table, start)
	bindFrom(t, table, start, &b, atBob)
	hello := a.Tick(start)
	answer := a.Handle(start, table.HandleBind(start, atAlice, hello))
	table.HandleBind(start, elsewhere, hello)
	if reply := table.HandleBind(start, elsewhere, answer); reply != nil {
		t.Fatal("an answer counted from another address than the challenge went to")
	}
	if reply := table.HandleBind(start, atAlice, answer); reply == nil {
		t.Fatal("the right answer was refused")
	}
	for _, pkt := range [][]byte{hello, answer} {
		table.HandleBind(start, elsewhere, pkt)
		table.HandleBind(start, atBob, pkt)
	}
	if to, v := forward(table, start, atBob, b.SID()); v != Pass || to != atAlice.Addr {
		t.Fatalf("bob's frames go to %v, %d", to, v)
	}
}

func TestClientGivesUp(t *testing.T) {
	c := NewClient(start, 1, Nonce{1})
	now, sent := start, 0
	for !c.Due().IsZero() {
		now = c.Due()
		if c.Tick(now) != nil {
			sent++
		}
	}
	if sent != bindTries || c.State() != Lost || now.Sub(start) > 10*time.Second {
		t.Fatalf("%d hellos in %v, state %d", sent, now.Sub(start), c.State())
	}
}

func TestClientOfARestartedRelay(t *testing.T) {
	_, a, _ := bound(t, Config{})
	table := NewTable(Config{})
	now := start.Add(time.Second)
	gone := table.Hint(now, atAlice.Addr, a.SID(), Gone)
	a.Handle(now, gone)
	if a.State() != Bound {
		t.Fatal("a hint alone ended the session")
	}
	hello := a.Tick(now)
	a.Handle(now, table.HandleBind(now, atAlice, hello))
	if a.State() != Lost {
		t.Fatal("the client did not learn that the session is gone")
	}
}

func TestClientIgnoresForgedAnswers(t *testing.T) {
	a := NewClient(start, 9, Nonce{1})
	a.Tick(start)
	for _, b := range []bind{
		{step: stepBound, sid: 9},
		{step: stepBound, sid: 9, proof: proof{1}},
		{step: stepChallenge, sid: 8},
		{step: stepHello, sid: 9},
		{step: stepAnswer, sid: 9},
	} {
		if reply := a.Handle(start, b.encode()); reply != nil || a.State() != Binding {
			t.Errorf("%+v: answered %x, state %d", b, reply, a.State())
		}
	}
}

func TestBothAskForOneSession(t *testing.T) {
	table := NewTable(Config{})
	a, err := table.Open(start, alice, bob, Nonce{1})
	if err != nil {
		t.Fatal(err)
	}
	b, err := table.Open(start, bob, alice, Nonce{2})
	if err != nil || b.SID != a.SID || b.Offer {
		t.Fatalf("bob: %+v, %v; alice: %+v", b, err, a)
	}
	for i, nonce := range []Nonce{{1}, {2}, a.Nonce, b.Nonce} {
		c := NewClient(start, a.SID, nonce)
		bindFrom(t, table, start, &c, atAlice)
		if c.State() != Bound {
			t.Errorf("nonce %d does not bind", i)
		}
	}
	again, err := table.Open(start.Add(time.Second), alice, bob, Nonce{3})
	if err != nil || again.SID != a.SID || !again.Offer || again.Nonce != a.Nonce {
		t.Fatalf("asked again: %+v, %v", again, err)
	}
	if table.Counters().Sessions != 1 {
		t.Fatal("more than one session of a pair")
	}
}

func TestLimits(t *testing.T) {
	table := NewTable(Config{Consent: func(from, to identity.PeerID) bool { return from != carol }})
	if _, err := table.Open(start, carol, bob, Nonce{}); !errors.Is(err, ErrRefused) {
		t.Fatalf("without consent: %v", err)
	}
	if _, err := table.Open(start, alice, alice, Nonce{}); !errors.Is(err, ErrRefused) {
		t.Fatalf("to itself: %v", err)
	}
	now := start
	opened := 0
	for i := range 40 {
		now = now.Add(time.Second / askRate)
		if _, err := table.Open(now, alice, identity.PeerID{9, byte(i)}, Nonce{}); err == nil {
			opened++
		} else if !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
	}
	if opened != MaxPerMember {
		t.Fatalf("one member opened %d, want %d", opened, MaxPerMember)
	}
	for i := range 400 {
		_, err := table.Open(now, identity.PeerID{10, byte(i), byte(i >> 8)}, bob, Nonce{})
		if want := MaxSessions - MaxPerMember; (err == nil) != (i < want) || err != nil && !errors.Is(err, ErrFull) {
			t.Fatalf("session %d: %v", i, err)
		}
	}
	for i := range 30 {
		if _, err := table.Open(now, bob, identity.PeerID{11}, Nonce{byte(i)}); errors.Is(err, ErrBusy) {
			break
		} else if i == 29 {
			t.Fatal("a member may ask without end")
		}
	}
	table.Tick(now.Add(BindWithin))
	if c := table.Counters(); c.Sessions != 0 || c.Closed != MaxSessions {
		t.Fatalf("sessions that nobody bound stay: %+v", c)
	}
	table.Tick(now.Add(2 * IdleAfter))
	if len(table.openers) != 0 || !table.Due().IsZero() {
		t.Fatalf("%d openers remembered, due %v", len(table.openers), table.Due())
	}
}

func TestIdleSessionsEnd(t *testing.T) {
	table, a, _ := bound(t, Config{})
	now := start
	for range 10 {
		now = now.Add(IdleAfter - 2*time.Second)
		table.Tick(now)
		if _, v := forward(table, now, atAlice, a.SID()); v != Pass {
			t.Fatalf("a session in use ended: %d", v)
		}
	}
	if due := table.Due(); due.Sub(now) > IdleAfter {
		t.Fatalf("due after %v", due.Sub(now))
	}
	for at := table.Due(); at.Sub(now) <= IdleAfter+time.Second && !table.Due().IsZero(); at = table.Due() {
		table.Tick(at)
	}
	if _, v := forward(table, now, atAlice, a.SID()); v != Gone {
		t.Fatalf("an idle session stays: %d", v)
	}
}

func TestClose(t *testing.T) {
	table, a, _ := bound(t, Config{})
	if _, ok := table.Close(a.SID(), carol); ok {
		t.Fatal("a stranger closed a session")
	}
	if other, ok := table.Close(a.SID(), bob); !ok || other != alice {
		t.Fatalf("closed: %v, %v", other, ok)
	}
	if _, v := forward(table, start, atAlice, a.SID()); v != Gone {
		t.Fatalf("it is still there: %d", v)
	}
	table, a, _ = bound(t, Config{})
	table.CloseMember(alice)
	if _, v := forward(table, start, atBob, a.SID()); v != Gone {
		t.Fatalf("a revoked member's session: %d", v)
	}
}

func TestRateHolds(t *testing.T) {
	const perSecond = 1_000_000
	table, a, _ := bound(t, Config{Rate: perSecond})
	passed := 0
	now := start.Add(time.Second)
	for range 2000 { // 2 s of trains at ten times the rate
		now = now.Add(time.Millisecond)
		_, n, _ := table.Forward(now, atAlice.Addr, a.SID(), 10_000, 1000)
		if n%1000 != 0 {
			t.Fatalf("%d bytes passed of frames of 1000", n)
		}
		passed += n
	}
	if want := 2*perSecond + minBurst; passed < 2*perSecond || passed > want {
		t.Fatalf("%d bytes passed in 2 s, want %d to %d", passed, 2*perSecond, want)
	}
	if c := table.Counters(); c.Passed != uint64(passed) || c.OverRate != uint64(20_000_000-passed) {
		t.Fatalf("%+v", c)
	}
}

// TestFloodsAreBounded asks without end, as a stranger: no more than so many answers, none longer than its question.
func TestFloodsAreBounded(t *testing.T) {
	table, a, _ := bound(t, Config{})
	questions, answers := 0, 0
	now := start
	for i := range 100_000 {
		now = now.Add(10 * time.Microsecond)
		pkt := (&bind{step: step(1 + i%6), sid: a.SID() + uint32(i%3), proof: proof{byte(i)}}).encode()
		reply := table.HandleBind(now, elsewhere, pkt)
		if len(reply) > len(pkt) {
			t.Fatalf("%d bytes answered with %d", len(pkt), len(reply))
		}
		questions++
		if reply != nil {
			answers++
		}
		if table.Hint(now, elsewhere.Addr, a.SID(), Unbound) != nil {
			answers++
		}
	}
	if answers > 100 {
		t.Fatalf("%d answers to %d questions in a second", answers, questions)
	}
	if to, v := forward(table, now, atBob, a.SID()); v != Pass || to != atAlice.Addr {
		t.Fatalf("the session suffered: %v, %d", to, v)
	}
}

// framed is a train of frames.
func framed(sid uint32, datagrams ...[]byte) (train []byte) {
	for _, d := range datagrams {
		train = append(binary.BigEndian.AppendUint64(train, Header(sid)), d...)
	}
	return train
}

func TestRunAndStrip(t *testing.T) {
	one, two, short := bytes.Repeat([]byte{1}, 100), bytes.Repeat([]byte{2}, 100), []byte{3}
	const size = HeaderSize + 100
	train := framed(5, one, two)
	train = append(train, framed(6, two, short)...)
	sid, n := Run(train, size)
	if sid != 5 || n != 2*size {
		t.Fatalf("session %d, %d bytes", sid, n)
	}
	if got := Strip(train[:n], size); !bytes.Equal(got, append(bytes.Clone(one), two...)) {
		t.Fatalf("stripped to %x", got)
	}
	sid, rest := Run(train[n:], size)
	if sid != 6 || n+rest != len(train) {
		t.Fatalf("session %d, %d bytes", sid, rest)
	}
	if got := Strip(train[n:], size); !bytes.Equal(got, append(bytes.Clone(two), short...)) {
		t.Fatalf("stripped to %x", got)
	}
	for name, pkt := range map[string][]byte{
		"nothing":   nil,
		"no header": {FirstFrame, 0, 0, 0, 0, 0, 0},
		"no data":   framed(1, nil),
		"too long":  framed(1, make([]byte, MaxDatagram+1)),
		"wireguard": append([]byte{4, 0, 0, 0}, make([]byte, 60)...),
		"session 0": framed(0, make([]byte, 60)),
		"reserved":  append([]byte{FirstFrame, 0, 1, 0}, make([]byte, 60)...),
	} {
		if _, n := Run(pkt, max(len(pkt), 1)); n != 0 {
			t.Errorf("%s: %d bytes of frames", name, n)
		}
	}
	if _, n := Run(framed(1, make([]byte, MaxDatagram)), 1<<16); n != HeaderSize+MaxDatagram {
		t.Error("the longest datagram is refused")
	}
}

func FuzzBind(f *testing.F) {
	for s := stepHello; s <= stepGone; s++ {
		f.Add((&bind{step: s, sid: 7, proof: proof{1}}).encode())
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if b, err := parseBind(pkt); err == nil && !bytes.Equal(b.encode(), pkt) {
			t.Fatalf("parsed %x, re-encoded %x", pkt, b.encode())
		}
		table := NewTable(Config{})
		if reply := table.HandleBind(start, atAlice, pkt); len(reply) > len(pkt) {
			t.Fatalf("%x answered with %x", pkt, reply)
		}
		c := NewClient(start, 7, Nonce{})
		c.Tick(start)
		if reply := c.Handle(start, pkt); len(reply) > len(pkt) {
			t.Fatalf("%x answered with %x", pkt, reply)
		}
	})
}

// FuzzFrames holds Run and Strip against taking a train apart one by one.
func FuzzFrames(f *testing.F) {
	f.Add(framed(5, []byte("0123456789"), []byte("abc")), 18)
	f.Fuzz(func(t *testing.T, train []byte, size int) {
		if size < 1 || size > 1<<16 {
			return
		}
		sid, n := Run(train, size)
		var want []byte
		taken := 0
		for taken < len(train) {
			one := train[taken:min(taken+size, len(train))]
			if len(one) <= HeaderSize || len(one) > HeaderSize+MaxDatagram ||
				sid == 0 || !bytes.Equal(one[:HeaderSize], framed(sid, nil)) {
				break
			}
			want = append(want, one[HeaderSize:]...)
			taken += len(one)
		}
		if taken != n && !(n == 0 && taken == 0) {
			t.Fatalf("%d bytes of frames, want %d", n, taken)
		}
		if n > 0 && !bytes.Equal(Strip(bytes.Clone(train[:n]), size), want) {
			t.Fatal("stripped wrong")
		}
	})
}

func BenchmarkForward(b *testing.B) {
	table := NewTable(Config{Rate: 1 << 40})
	for i := range 200 {
		if _, err := table.Open(start.Add(time.Duration(i)*time.Second), identity.PeerID{5, byte(i)}, bob, Nonce{}); err != nil {
			b.Fatal(err)
		}
	}
	o, _ := table.Open(start, alice, bob, Nonce{7})
	s := (*table.sessions.Load())[o.SID]
	x, y := atAlice, atBob
	s.sides[0].end.Store(&x)
	s.sides[1].end.Store(&y)
	now := start
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Microsecond)
		if _, _, v := table.Forward(now, x.Addr, o.SID, 1000, 1000); v != Pass {
			b.Fatal(v)
		}
	}
}
