package wg

import (
	"testing"
	"time"

	"github.com/meshnet/meshnet/tunnel/noise"
)

// Both sides begin at about the same time, again and again, with delays that differ for each message.
func TestSimultaneousInitiation(t *testing.T) {
	seed := newSeed(t)
	var two int
	for n := range runs(400) {
		w, a, b := pair(t, seed+n)
		longest := []time.Duration{20, 60, 120, 400}[n%4] * time.Millisecond
		fifo := make(map[*node]time.Time)
		w.route = func(from, _ *node, _ []byte) []time.Duration {
			d := time.Duration(w.rng.Int64N(int64(longest)))
			if n%8 >= 4 { // in order
				at := w.now.Add(d)
				if at.Before(fifo[from]) {
					at = fifo[from]
				}
				fifo[from] = at
				d = at.Sub(w.now)
			}
			return []time.Duration{d}
		}
		a.lag = func() time.Duration { return time.Duration(w.rng.Int64N(int64(3 * time.Millisecond))) }
		b.lag = a.lag
		w.flow(a, b, 7*time.Millisecond, 2*time.Second)
		w.after(time.Duration(w.rng.Int64N(int64(longest))), func() { w.flow(b, a, 9*time.Millisecond, 2*time.Second) })
		w.run(4 * time.Second)
		a.send(b)
		b.send(a)
		w.run(time.Second)
		if lost := w.lost(); lost != 0 || len(a.parked)+len(b.parked) > 0 {
			t.Errorf("run %d: %d lost, parked %d %d", n, lost, len(a.parked), len(b.parked))
		}
		if !agree(a, b) {
			t.Errorf("run %d: two sessions are used", n)
		}
		if a.m.Counters().Established > 1 {
			two++
		}
	}
	if two == 0 {
		t.Error("no run had two handshakes that crossed")
	}
}

// The same over a line that loses, doubles and reorders: nothing that the network carried is lost,
// and both sides end on one session; should messages overtake each other in the worst way, the next rekey sees to that.
func TestSimultaneousInitiationLossy(t *testing.T) {
	seed := newSeed(t)
	apart := 0
	for n := range runs(100) {
		w, a, b := pair(t, seed+n)
		w.checks = n%10 == 0
		w.route = func(*node, *node, []byte) (at []time.Duration) {
			for w.rng.IntN(4) != 0 && len(at) < 3 {
				at = append(at, time.Duration(w.rng.Int64N(int64(300*time.Millisecond))))
			}
			return at
		}
		w.flow(a, b, 100*time.Millisecond, 200*time.Second)
		w.flow(b, a, 100*time.Millisecond, 200*time.Second)
		w.run(20 * time.Second)
		if !agree(a, b) {
			apart++
		}
		w.run(3*time.Minute + 20*time.Second)
		if lost := w.lost(); lost != 0 {
			t.Errorf("run %d: %d lost", n, lost)
		}
	}
	if apart > 1 {
		t.Errorf("%d runs on two sessions after 20 s", apart)
	}
}

// The one with the lower key wins, when both complete.
func TestGlareTie(t *testing.T) {
	for _, order := range []string{"ab", "ba"} {
		w, a, b := pair(t, 1)
		for _, who := range order {
			if who == 'a' {
				a.send(b)
			} else {
				b.send(a)
			}
		}
		w.run(time.Second)
		a.send(b)
		b.send(a)
		w.run(time.Second)
		if !agree(a, b) || !a.session(b).initiator || w.lost() != 0 {
			t.Errorf("order %s: agree %v", order, agree(a, b))
		}
		if n := a.m.Counters().Established; n != 2 {
			t.Errorf("%d handshakes at a", n)
		}
	}
}

// What a slow answer to one initiation and a begun second one of the other side leave behind is one session: the lower
// key's, though its initiation was made after the other's arrived.
func TestGlareLate(t *testing.T) {
	w, a, b := pair(t, 1)
	hold := 400 * time.Millisecond
	w.route = func(_, to *node, msg []byte) []time.Duration {
		if to == b && msg[0] == noise.TypeResponse {
			return []time.Duration{hold}
		}
		return []time.Duration{50 * time.Millisecond}
	}
	b.perform(b.m.Connect(w.now, b.peers[a]))
	w.run(60 * time.Millisecond)
	a.send(b)
	w.run(5 * time.Second)
	for range 20 {
		a.send(b)
		b.send(a)
		w.run(30 * time.Millisecond)
	}
	w.run(time.Second)
	if !agree(a, b) || w.lost() != 0 {
		t.Errorf("agree %v, lost %d", agree(a, b), w.lost())
	}
}

// To b two handshakes crossed, to a they did not, for b's initiation and a's first packets were overtaken: b yields to a's,
// a has gone over to b's, and b finds out.
func TestGlareOvertaken(t *testing.T) {
	w, a, b := pair(t, 1)
	late := true
	w.route = func(from, _ *node, msg []byte) []time.Duration {
		switch {
		case from == b && msg[0] == noise.TypeInitiation:
			return []time.Duration{100 * time.Millisecond}
		case from == a && msg[0] == noise.TypeData && late:
			late = false
			return []time.Duration{300 * time.Millisecond}
		}
		return []time.Duration{hop}
	}
	a.perform(a.m.Connect(w.now, a.peers[b]))
	b.perform(b.m.Connect(w.now, b.peers[a]))
	w.run(250 * time.Millisecond)
	if !agree(a, b) || a.session(b).initiator {
		t.Fatal("a did not go over to b's session")
	}
	w.run(100 * time.Millisecond)
	if agree(a, b) {
		t.Fatal("b did not yield")
	}
	a.send(b)
	w.run(2 * hop)
	b.send(a)
	w.run(time.Second)
	if !agree(a, b) || a.session(b).initiator || w.lost() != 0 {
		t.Errorf("agree %v, lost %d", agree(a, b), w.lost())
	}
}
