package wg

import (
	"testing"
	"time"

	"github.com/meshnet/meshnet/tunnel/noise"
)

// A steady flow is rekeyed by the initiator alone, every 120 s, and loses nothing.
func TestRekey(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	w.flow(a, b, 50*time.Millisecond, 20*time.Minute)
	w.flow(b, a, 50*time.Millisecond, 20*time.Minute)
	w.checks = false
	w.run(20*time.Minute + time.Second)
	sent := w.sent(a, noise.TypeInitiation)
	if len(sent) < 10 || len(sent) > 11 || len(w.sent(b, noise.TypeInitiation)) != 0 {
		t.Errorf("%d and %d initiations", len(sent), len(w.sent(b, noise.TypeInitiation)))
	}
	for i := 1; i < len(sent); i++ {
		if gap := sent[i].Sub(sent[i-1]); gap < RekeyAfterTime || gap > RekeyAfterTime+200*time.Millisecond {
			t.Errorf("rekey %d after %v", i, gap)
		}
	}
	if w.lost() != 0 {
		t.Errorf("%d lost", w.lost())
	}
	if len(a.peers[b].active.previous) > 2 {
		t.Errorf("%d previous sessions", len(a.peers[b].active.previous))
	}
}

// Notes that come late, as they do from another goroutine, do not begin handshakes that were just done.
func TestLateNotes(t *testing.T) {
	seed := newSeed(t)
	for n := range runs(8) {
		w, a, b := pair(t, seed+n)
		w.checks = false
		a.lag = func() time.Duration { return time.Duration(w.rng.Int64N(int64(100 * time.Millisecond))) }
		b.lag = a.lag
		w.connect(a, b)
		w.flow(a, b, 5*time.Millisecond, 5*time.Minute)
		w.flow(b, a, 5*time.Millisecond, 5*time.Minute)
		w.run(5*time.Minute + time.Second)
		if got := len(w.sent(a, noise.TypeInitiation)); got != 3 {
			t.Errorf("%d initiations in 5 min", got)
		}
		if w.lost() != 0 {
			t.Errorf("%d lost", w.lost())
		}
	}
}

// Only the responder sends: the initiator renews at 165 s, for it gets data under an old session.
func TestLateRekeyReceiver(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	born := w.now.Add(-time.Second)
	w.flow(b, a, 100*time.Millisecond, 4*time.Minute)
	// a would send keepalives, and rekey with them after 120 s.
	w.checks = false
	w.run(4*time.Minute + time.Second)
	for _, at := range w.sent(a, noise.TypeInitiation)[1:] {
		if age := at.Sub(born); age < RekeyAfterTime || age > lateRekey+200*time.Millisecond {
			t.Errorf("a rekeys at %v", age)
		}
	}
	if len(w.sent(b, noise.TypeInitiation)) != 0 || w.lost() != 0 {
		t.Errorf("b sent %d initiations, %d lost", len(w.sent(b, noise.TypeInitiation)), w.lost())
	}
}

// The initiator's initiations get lost from 100 s on: the responder begins at 165 s, and nothing is lost.
func TestLateRekeyResponder(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	w.route = func(from, _ *node, msg []byte) []time.Duration {
		if from == a && msg[0] == noise.TypeInitiation {
			return nil
		}
		return []time.Duration{hop}
	}
	born := b.m.Clock().Time(b.session(a).born)
	w.flow(a, b, 20*time.Millisecond, 4*time.Minute)
	w.flow(b, a, 20*time.Millisecond, 4*time.Minute)
	w.run(4*time.Minute + time.Second)
	sent := w.sent(b, noise.TypeInitiation)
	if len(sent) != 1 || sent[0].Sub(born) < lateRekey || sent[0].Sub(born) > lateRekey+50*time.Millisecond {
		t.Errorf("b began at %v", sent)
	}
	if w.lost() != 0 {
		t.Errorf("%d lost", w.lost())
	}
}

func TestReject(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	s := a.session(b)
	born := a.m.Clock().Time(s.born)
	late := make([]byte, Overhead)
	s.Seal(&a.nonce, late, 0, 1000)
	w.route = func(_, _ *node, msg []byte) []time.Duration {
		if msg[0] == noise.TypeInitiation {
			return nil
		}
		return []time.Duration{hop}
	}
	w.flow(a, b, 20*time.Millisecond, 179*time.Second-w.now.Sub(born))
	w.run(RejectAfterTime - w.now.Sub(born) - 1)
	if a.session(b) != s || a.peers[b].Acquire(a.m.Clock().At(w.now)) != s {
		t.Fatal("the session ended early")
	}
	s.Release()
	w.run(1)
	if a.peers[b].Acquire(a.m.Clock().At(w.now)) != nil {
		t.Error("a session of 180 s sends")
	}
	if a.m.Table().Acquire(late, a.m.Clock().At(w.now)) != nil || b.m.Table().Acquire(late, b.m.Clock().At(w.now)) != nil {
		t.Error("a session of 180 s receives")
	}
	if w.lost() != 0 {
		t.Errorf("%d lost", w.lost())
	}
}

func TestKeepalive(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	w.run(20 * time.Second)
	before := w.keepalives(b)
	for range 5 { // answers count, keepalives owe nothing
		a.send(b)
		w.run(9 * time.Second)
		b.send(a)
		w.run(time.Millisecond)
	}
	w.run(9900 * time.Millisecond)
	if n := w.keepalives(b); n != before {
		t.Errorf("%d keepalives though data went", n-before)
	}
	w.run(20 * time.Second)
	before = w.keepalives(b)
	start := w.now
	a.send(b)
	w.run(3 * time.Second)
	a.send(b)
	w.run(KeepaliveTimeout + hop - 3*time.Second - 1)
	if n := w.keepalives(b); n != before {
		t.Error("keepalive too early")
	}
	w.run(1)
	if n := w.keepalives(b); n != before+1 || !b.last[ActKeepalive].Equal(start.Add(hop+KeepaliveTimeout)) {
		t.Errorf("%d keepalives, at %v", n-before, b.last[ActKeepalive].Sub(start))
	}
	w.run(time.Minute)
	if n := w.keepalives(b); n != before+1 || len(w.sent(a, noise.TypeInitiation))+len(w.sent(b, noise.TypeInitiation)) != 1 {
		t.Errorf("%d keepalives after a minute", n-before)
	}
	if n := a.actions[ActKeepalive]; n != 1 { // for the last packet of b's above
		t.Errorf("a sent %d keepalives", n)
	}
}

// An answer that the packet path notes before what it answers owes nothing, and leaves nothing unheard.
func TestNotedOutOfOrder(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	w.run(time.Minute)
	p, s := a.peers[b], a.session(b)
	at := a.m.Clock().At(w.now)
	p.Sent(at+10, 48, true) // the answer to the packet below
	p.Received(at, s, 48, true)
	p.Received(at+20, s, 32, false)
	a.listen()
	w.run(11 * time.Second)
	if a.actions[ActKeepalive] != 0 {
		t.Error("keepalive for data that was answered")
	}
	at = a.m.Clock().At(w.now)
	p.Received(at+10, s, 32, false) // the answer to the packet below
	p.Sent(at, 48, true)
	a.listen()
	w.run(16 * time.Second)
	if len(w.sent(a, noise.TypeInitiation)) != 1 {
		t.Error("handshake for data that was answered")
	}
	b.deaf = true
	a.send(b)
	w.run(unheardTimeout)
	if len(w.sent(a, noise.TypeInitiation)) != 2 {
		t.Error("no handshake though data is unanswered")
	}
}

func TestUnheard(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	b.deaf = true
	start := w.now
	id := a.send(b)
	w.run(unheardTimeout - 1)
	if len(w.sent(a, noise.TypeInitiation)) != 1 {
		t.Error("handshake too early")
	}
	w.run(1)
	sent := w.sent(a, noise.TypeInitiation)
	if len(sent) != 2 || !sent[1].Equal(start.Add(unheardTimeout)) {
		t.Errorf("initiations %v", sent)
	}
	b.deaf = false
	w.run(5 * time.Second)
	if !agree(a, b) || w.arrived[id] != 0 {
		t.Error("no new session")
	}
	w.run(time.Minute)
	if n := len(w.sent(a, noise.TypeInitiation)); n > 4 {
		t.Errorf("%d initiations", n)
	}
}

// A peer leaves after its last session, and an idle one has no deadline but that.
func TestIdle(t *testing.T) {
	w, a, b := pair(t, 1)
	ticks := 0
	w.connect(a, b)
	w.run(20 * time.Second) // whatever was owed
	for w.now.Before(time.Unix(1_800_000_000, 0).Add(10 * time.Minute)) {
		next := a.m.Next(w.now)
		if next.IsZero() {
			break
		}
		ticks++
		w.run(next.Sub(w.now))
	}
	if ticks > 2 {
		t.Errorf("an idle peer is looked at %d times", ticks)
	}
	w.run(time.Second)
	for _, n := range []*node{a, b} {
		if n.actions[ActOver] != 1 || len(n.m.timers) != 0 || n.m.table.inUse() != 0 {
			t.Errorf("%s: %v, %d timers, %d slots", n.name, n.actions, len(n.m.timers), n.m.table.inUse())
		}
	}
	w.connect(b, a) // and back
}

func (t *Table) inUse() int { return len(t.uses) - len(t.free) }

// Sessions that are never confirmed end too.
func TestUnconfirmed(t *testing.T) {
	w, a, b := pair(t, 1)
	w.route = func(_, _ *node, msg []byte) []time.Duration {
		if msg[0] != noise.TypeInitiation {
			return nil
		}
		return []time.Duration{hop}
	}
	a.send(b)
	w.run(2 * time.Minute)
	if n := len(b.peers[a].active.next); n != maxPending {
		t.Errorf("%d sessions wait", n)
	}
	w.run(4 * time.Minute)
	for _, n := range []*node{a, b} {
		if n.m.table.inUse() != 0 || len(n.m.timers) != 0 || n.actions[ActOver] != 1 {
			t.Errorf("%s: %d slots, %v", n.name, n.m.table.inUse(), n.actions)
		}
	}
}

func TestMessageLimits(t *testing.T) {
	for _, who := range []int{0, 1} {
		w, a, b := pair(t, 1)
		w.connect(a, b)
		from, to := a, b
		if who == 1 {
			from, to = b, a
		}
		s := from.session(to)
		s.counter.Store(RekeyAfterMessages - 1)
		from.send(to)
		w.run(time.Second)
		if len(w.sent(from, noise.TypeInitiation)) != 1-who {
			t.Error("rekeyed early")
		}
		from.send(to)
		w.run(time.Second)
		if from.session(to) == s || !agree(a, b) || w.lost() != 0 {
			t.Error("no rekey after 2^60 messages")
		}
	}
	w, a, b := pair(t, 1)
	w.connect(a, b)
	s := a.session(b)
	s.counter.Store(RejectAfterMessages - 2)
	if first, ok := s.Reserve(2); !ok || first != RejectAfterMessages-2 {
		t.Error("the last two counters are refused")
	}
	for range 20_000 { // more than there are up to 2^64
		if c, ok := s.Reserve(1); ok {
			t.Fatalf("counter %d was given out", c)
		}
	}
	if a.peers[b].Ready(a.m.Clock().At(w.now)) {
		t.Error("a session that is used up is ready")
	}
	id := a.send(b)
	w.run(time.Second)
	if w.arrived[id] != 1 {
		t.Error("no new session after the last message")
	}
}

func TestClock(t *testing.T) {
	epoch := time.Unix(1_800_000_000, 0)
	c := NewClock(epoch)
	for _, d := range []time.Duration{0, 1, time.Second, 100 * 365 * 24 * time.Hour} {
		at := c.At(epoch.Add(d))
		if at == 0 || !c.Time(at).Equal(epoch.Add(d)) {
			t.Errorf("%v: %d, %v", d, at, c.Time(at))
		}
	}
	if !c.Time(0).IsZero() {
		t.Error("0 is a time")
	}
}
