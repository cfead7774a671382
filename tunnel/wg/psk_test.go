package wg

import (
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

func TestPSKLists(t *testing.T) {
	one, two, three := secret(1), secret(2), secret(3)
	for _, c := range []struct {
		name string
		a, b []identity.Secret // initiator's and responder's
		max  time.Duration     // until the first packet; 0: never
	}{
		{"same", []identity.Secret{one}, []identity.Secret{one}, 3 * hop},
		{"responder newer", []identity.Secret{one}, []identity.Secret{two, one}, 300 * time.Millisecond},
		{"responder two newer", []identity.Secret{one}, []identity.Secret{three, two, one}, 600 * time.Millisecond},
		{"initiator newer", []identity.Secret{two, one}, []identity.Secret{one}, 3 * hop},
		{"initiator two newer", []identity.Secret{three, two, one}, []identity.Secret{one}, 3 * hop},
		{"both", []identity.Secret{three, one}, []identity.Secret{two, one}, 300 * time.Millisecond},
		{"none", []identity.Secret{one}, []identity.Secret{two}, 0},
		{"none of two", []identity.Secret{one, {}}, []identity.Secret{two, three}, 0},
	} {
		w, a, b := pair(t, 1)
		a.m.SetPSKs(a.peers[b], c.a)
		b.m.SetPSKs(b.peers[a], c.b)
		id, start := a.send(b), w.now
		w.until(w.now.Add(3*time.Minute), func() bool { return w.arrived[id] > 0 })
		took := w.now.Sub(start)
		if c.max == 0 {
			if w.arrived[id] != 0 || a.m.Counters().Established != 0 || a.actions[ActGaveUp] == 0 {
				t.Errorf("%s: connected", c.name)
			}
			w.run(4 * time.Minute)
			if a.peers[b].active != nil || b.peers[a].active != nil {
				t.Errorf("%s: does not end", c.name)
			}
			continue
		}
		if w.arrived[id] != 1 || took > c.max {
			t.Errorf("%s: took %v", c.name, took)
		}
	}
}

// A change of keys on one side, then on the other, while packets flow and a rekey falls between, loses nothing.
func TestPSKChange(t *testing.T) {
	for n := range 4 {
		w, a, b := pair(t, 1)
		w.checks = false
		first, second := a, b
		if n%2 == 1 {
			first, second = b, a
		}
		w.flow(a, b, 20*time.Millisecond, 10*time.Minute)
		if n < 2 {
			w.after(hop*3, func() { w.flow(b, a, 20*time.Millisecond, 10*time.Minute) })
		}
		keys := []identity.Secret{secret(1)}
		for i := range 4 {
			w.after(time.Duration(i)*130*time.Second+119*time.Second, func() {
				keys = append([]identity.Secret{secret(byte(i + 2))}, keys...)
				first.m.SetPSKs(first.peers[second], keys)
			})
			w.after(time.Duration(i)*130*time.Second+150*time.Second, func() {
				second.m.SetPSKs(second.peers[first], keys[:1])
				first.m.SetPSKs(first.peers[second], keys[:2])
			})
		}
		w.run(11 * time.Minute)
		if lost := w.lost(); lost != 0 || a.m.Counters().Established < 5 {
			t.Errorf("run %d: %d lost, %+v", n, lost, a.m.Counters())
		}
	}
}
