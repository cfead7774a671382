package wg

import (
	"bytes"
	"testing"
	"time"

	"github.com/meshnet/meshnet/tunnel/noise"
)

func TestHandshake(t *testing.T) {
	for _, first := range []int{0, 1} {
		w, a, b := pair(t, 1)
		from, to := a, b
		if first == 1 {
			from, to = b, a
		}
		start := w.now
		id := from.send(to)
		w.run(time.Second)
		if w.arrived[id] != 1 || !agree(a, b) {
			t.Fatal("not connected")
		}
		back := to.send(from)
		w.run(time.Second)
		if w.arrived[back] != 1 {
			t.Error("no packet the other way")
		}
		if n := len(w.sent(from, noise.TypeInitiation)) + len(w.sent(to, noise.TypeInitiation)); n != 1 {
			t.Errorf("%d initiations", n)
		}
		st := from.peers[to].Stats(from.m.Clock(), w.now)
		if !st.Session || !st.LastHandshake.Equal(start.Add(2*hop)) || st.RxBytes == 0 || st.TxBytes == 0 {
			t.Errorf("stats %+v", st)
		}
		if from.actions[ActEstablished] != 1 || to.actions[ActEstablished] != 1 || to.actions[ActHeard] != 1 {
			t.Errorf("actions %v %v", from.actions, to.actions)
		}
	}
}

func TestRetryOffsets(t *testing.T) {
	w, a, b := pair(t, newSeed(t))
	b.deaf = true
	start := w.now
	a.perform(a.m.Connect(w.now, a.peers[b]))
	w.run(2 * time.Minute)
	sent := w.sent(a, noise.TypeInitiation)
	for i, at := range sent {
		off := at.Sub(start)
		if i < len(seriesOffsets) {
			if off != seriesOffsets[i] {
				t.Errorf("initiation %d after %v", i, off)
			}
			continue
		}
		if gap := at.Sub(sent[i-1]); gap < RekeyTimeout || gap > RekeyTimeout+time.Second/3 {
			t.Errorf("gap %v", gap)
		}
		if off >= RekeyAttemptTime {
			t.Errorf("initiation after %v", off)
		}
	}
	if len(sent) < 20 || a.actions[ActGaveUp] != 1 || a.actions[ActOver] != 1 {
		t.Errorf("%d initiations, actions %v", len(sent), a.actions)
	}
	if over := a.last[ActGaveUp].Sub(start); over < RekeyAttemptTime || over > RekeyAttemptTime+2*RekeyTimeout {
		t.Errorf("gave up after %v", over)
	}
	if a.peers[b].active != nil || !a.m.Next(w.now).IsZero() {
		t.Error("something is left")
	}
}

// Responses slower than a retry, for each of a range of round trips, on a responder like us, lose nothing.
func TestSlowResponse(t *testing.T) {
	for both := range 2 {
		for rtt := 100 * time.Millisecond; rtt < 4500*time.Millisecond; rtt += 200 * time.Millisecond {
			w, a, b := pair(t, 1)
			w.route = func(*node, *node, []byte) []time.Duration { return []time.Duration{rtt / 2} }
			w.flow(a, b, 37*time.Millisecond, 20*time.Second)
			if both == 1 {
				w.flow(b, a, 41*time.Millisecond, 20*time.Second)
			} else {
				w.until(w.now.Add(20*time.Second), func() bool { return len(w.arrived) > 0 })
				w.flow(b, a, 41*time.Millisecond, 20*time.Second)
			}
			w.run(30 * time.Second)
			if lost := w.lost(); lost != 0 || !agree(a, b) || len(a.parked) > 0 || len(b.parked) > 0 {
				t.Errorf("both %d rtt %v: %d lost, agree %v, %+v", both, rtt, lost, agree(a, b), a.m.Counters())
			}
		}
	}
}

func TestLostMessages(t *testing.T) {
	for _, kind := range []byte{noise.TypeInitiation, noise.TypeResponse, noise.TypeData} {
		w, a, b := pair(t, 1)
		lose := 1
		w.route = func(_, _ *node, msg []byte) []time.Duration {
			if msg[0] == kind && lose > 0 {
				lose--
				return nil
			}
			return []time.Duration{hop}
		}
		a.perform(a.m.Connect(w.now, a.peers[b]))
		back := b.send(a) // with data on both sides the lost confirmation is noticed too
		w.run(600 * time.Millisecond)
		if w.arrived[back] != 1 {
			t.Errorf("type %d lost: no packet after 600 ms", kind)
		}
		w.run(time.Second)
		a.send(b)
		b.send(a)
		w.run(time.Second)
		if !agree(a, b) || w.lost() != 0 {
			t.Errorf("type %d lost: agree %v, lost %d", kind, agree(a, b), w.lost())
		}
	}
}

func TestRestart(t *testing.T) {
	for _, who := range []int{0, 1} {
		for _, begun := range []int{0, 1} { // whose the session was
			for _, age := range []time.Duration{2 * hop, time.Second, 4 * time.Second, time.Minute} {
				w, a, b := pair(t, 1)
				if begun == 0 {
					w.connect(a, b)
				} else {
					w.connect(b, a)
				}
				w.run(age)
				re, other := a, b
				if who == 1 {
					re, other = b, a
				}
				stamp := re.m.Stamp()
				re.m.Close()
				re.start()
				re.m.NotBefore(stamp)
				re.knows(other)
				id := re.send(other)
				start := w.now
				if !w.until(w.now.Add(time.Second), func() bool { return w.arrived[id] == 1 }) {
					t.Fatalf("who %d begun %d age %v: not recovered", who, begun, age)
				}
				if took := w.now.Sub(start); took > 3*hop {
					t.Errorf("recovered after %v", took)
				}
				back := other.send(re)
				w.run(hop)
				if w.arrived[back] != 1 || !agree(a, b) {
					t.Errorf("who %d begun %d age %v: no packet back", who, begun, age)
				}
			}
		}
	}
}

// The member that did not restart is told so by other means, and both begin at once.
func TestRestartRenew(t *testing.T) {
	for d := time.Duration(0); d < 50*time.Millisecond; d += time.Millisecond {
		for _, age := range []time.Duration{0, time.Second, 3 * time.Second, time.Minute} {
			w, a, b := pair(t, 1)
			w.connect(a, b)
			w.run(age)
			stamp := b.m.Stamp()
			b.start()
			b.m.NotBefore(stamp)
			b.knows(a)
			w.after(d, func() { a.perform(a.m.Renew(w.now, a.peers[b])) })
			w.after(25*time.Millisecond, func() { b.send(a) })
			w.run(time.Second)
			id, back := a.send(b), b.send(a)
			w.run(hop)
			if w.arrived[id] != 1 || w.arrived[back] != 1 || !agree(a, b) {
				t.Errorf("renewed at %v, age %v: %d %d agree %v", d, age, w.arrived[id], w.arrived[back], agree(a, b))
			}
		}
	}
}

func TestReplayedInitiation(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	var recorded []byte
	for _, s := range w.trace {
		if s.msg[0] == noise.TypeInitiation {
			recorded = s.msg
		}
	}
	replay := func(when string) {
		before := b.m.Counters()
		w.run(time.Second)
		b.receive(a, recorded)
		if c := b.m.Counters(); c.ReplayedInitiation != before.ReplayedInitiation+1 || c.Established != before.Established {
			t.Errorf("%s: %+v", when, c)
		}
	}
	replies := b.actions[ActReply]
	replay("with a session")
	w.run(4 * time.Minute)
	if b.peers[a].active != nil {
		t.Fatal("still active")
	}
	over := b.actions[ActOver]
	replay("after the sessions are gone")
	if b.peers[a].active != nil || b.actions[ActOver] != over {
		t.Error("the replay woke the peer")
	}
	b.perform(b.m.Drop(w.now, b.peers[a]))
	replay("after a drop")
	if b.actions[ActReply] != replies {
		t.Error("a replay was answered")
	}
}

func TestFrequentInitiations(t *testing.T) {
	w, a, b := pair(t, 1)
	p := a.peers[b]
	a.perform(a.m.Connect(w.now, p))
	w.run(5 * time.Millisecond) // less than a hop
	a.m.initiate(w.now, p, p.active)
	a.perform(a.m.take())
	w.run(time.Second)
	if c := b.m.Counters(); c.Flood != 1 || b.actions[ActReply] != 1 {
		t.Errorf("%+v", c)
	}
}

func TestTimestamps(t *testing.T) {
	w, a, b := pair(t, 1)
	b.deaf = true
	var last []byte
	check := func(when string) {
		t.Helper()
		stamp := a.m.timestamp(w.now)
		if bytes.Compare(stamp[:], last) <= 0 {
			t.Errorf("%s: %x after %x", when, stamp, last)
		}
		last = bytes.Clone(stamp[:])
	}
	check("first")
	check("at once again")
	for range 1000 {
		check("in a row")
	}
	w.now = w.now.Add(time.Hour)
	check("later")
	w.now = w.now.Add(-48 * time.Hour)
	check("clock set back")
	a.m.NotBefore(w.now.Add(500 * time.Hour))
	check("reserved")
	if !a.m.Stamp().After(w.now.Add(500 * time.Hour)) {
		t.Error("an initiation is earlier than NotBefore")
	}
	a.m.NotBefore(w.now)
	check("NotBefore with an earlier time")
}

func TestClockSetBack(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	stamp := a.m.Stamp()
	w.run(time.Minute)
	w.now = w.now.Add(-24 * time.Hour) // and a restarts, so that sessions do not matter
	a.start()
	a.knows(b)
	a.m.NotBefore(stamp)
	b.start()
	b.knows(a)
	w.connect(a, b)
}

func TestUnknownKey(t *testing.T) {
	w, a, b := pair(t, 1)
	c := w.node("c")
	c.knows(b)
	c.send(b)
	w.run(time.Second)
	if n := b.m.Counters(); n.UnknownKey == 0 || b.actions[ActReply] != 0 || n.BadInitiation != 0 {
		t.Errorf("%+v", n)
	}
	// A member's key that was claimed by somebody without it.
	forged := make([]byte, noise.InitiationSize)
	i, err := c.m.Static().Initiate(mustRemote(t, c, b), 7, [12]byte{}, nil, (*[noise.InitiationSize]byte)(forged))
	if err != nil {
		t.Fatal(err)
	}
	i.Wipe()
	for at := 4; at < len(forged); at += 9 {
		bad := bytes.Clone(forged)
		bad[at] ^= 1
		b.perform(b.m.Initiation(w.now, bad, &a.addr))
	}
	b.check()
	if b.actions[ActReply] != 0 || b.actions[ActOver] != 0 {
		t.Errorf("%v", b.actions)
	}
	var low Peer
	low.notesTo = b.m.Notes()
	b.m.Add(&low, nil) // a key of small order
	b.perform(b.m.Connect(w.now, &low))
	b.check()
}

func mustRemote(t *testing.T, from, to *node) *noise.Remote {
	t.Helper()
	r, err := from.m.Static().Remote(to.m.Static().Public())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestJunkResponses(t *testing.T) {
	w, a, b := pair(t, newSeed(t))
	var response []byte
	w.route = func(_, _ *node, msg []byte) []time.Duration {
		if msg[0] == noise.TypeResponse {
			response = msg
			return nil
		}
		return []time.Duration{hop}
	}
	id := a.send(b)
	w.run(100 * time.Millisecond)
	for n := range 200 {
		junk := make([]byte, w.rng.IntN(200))
		switch n % 3 {
		case 1:
			junk = bytes.Clone(response)
			junk[w.rng.IntN(len(junk)-16)] ^= 1 << w.rng.IntN(8) // the second mac is only asked for by a door under load
		case 2:
			junk = bytes.Clone(response[:w.rng.IntN(len(response))])
		}
		a.perform(a.m.Response(w.now, junk, &b.addr))
		a.perform(a.m.CookieReply(w.now, junk))
		a.perform(a.m.Initiation(w.now, junk, &b.addr))
		a.check()
	}
	if a.peers[b].Ready(a.m.Clock().At(w.now)) {
		t.Fatal("junk made a session")
	}
	a.receive(b, response) // after all of it, the true one still fits
	w.run(hop)
	if w.arrived[id] != 1 {
		t.Error("the response did not fit any more")
	}
	a.receive(b, response)
	if c := a.m.Counters(); c.Established != 1 {
		t.Errorf("a response counted twice: %+v", c)
	}
}

func TestKick(t *testing.T) {
	w, a, b := pair(t, 1)
	w.route = func(*node, *node, []byte) []time.Duration { return []time.Duration{150 * time.Millisecond} }
	p := a.peers[b]
	a.perform(a.m.Kick(w.now, p))
	if len(w.trace) != 0 {
		t.Fatal("kicked without a handshake")
	}
	id := a.send(b)
	var kick func()
	kick = func() {
		a.perform(a.m.Kick(w.now, p))
		w.after(time.Millisecond, kick)
	}
	kick()
	start := w.now
	if !w.until(w.now.Add(time.Second), func() bool { return w.arrived[id] == 1 }) {
		t.Fatal("kicks crowd out the initiations that could be answered")
	}
	if sent := w.sent(a, noise.TypeInitiation); len(sent) > 12 || sent[1].Sub(start) != kickGap {
		t.Errorf("initiations at %v", sent)
	}
}

func TestRemoved(t *testing.T) {
	w, a, b := pair(t, 1)
	p := a.peers[b]
	a.perform(a.m.Remove(w.now, p))
	for _, actions := range [][]Action{a.m.Connect(w.now, p), a.m.Renew(w.now, p), a.m.Kick(w.now, p)} {
		if len(actions) > 0 || p.active != nil {
			t.Fatal("a removed member is spoken to")
		}
	}
	p.Want()
	a.listen()
	p.Sent(a.m.Clock().At(w.now), 1, true)
	a.listen()
	if p.active != nil || p.armed.Load() {
		t.Error("a note about a removed member did something")
	}
	b.send(a)
	w.run(time.Second)
	if a.actions[ActReply] != 0 {
		t.Error("a removed member is answered")
	}
	a.m.Add(p, nil) // no key to answer with
	w.run(time.Second)
	a.check()
	a.m.SetPSKs(p, b.peers[a].psks)
	w.run(10 * time.Second)
	if !agree(a, b) {
		t.Error("not connected after it was added again")
	}
	again := NewPeer(p.Key, b, a.m.Notes())
	a.m.Add(again, nil)
	a.check()
	if p.active != nil {
		t.Error("two peers of one key")
	}
}
