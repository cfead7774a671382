package wg

import (
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// act does one random thing to three nodes that know each other.
func (w *world) act(op, arg byte) {
	n := w.nodes[int(arg)%len(w.nodes)]
	o := w.nodes[(int(arg)/3+int(arg)+1)%len(w.nodes)]
	if o == n {
		o = w.nodes[(int(arg)+1)%len(w.nodes)]
	}
	p := n.peers[o]
	switch op % 16 {
	case 0, 1, 2, 3:
		n.send(o)
	case 4:
		n.perform(n.m.Renew(w.now, p))
	case 5:
		n.perform(n.m.Connect(w.now, p))
	case 6:
		n.perform(n.m.Kick(w.now, p))
	case 7:
		n.perform(n.m.Drop(w.now, p))
	case 8:
		n.perform(n.m.Remove(w.now, p))
		n.knows(o)
	case 9:
		n.m.SetPSKs(p, [][]identity.Secret{
			{secret(1)}, {secret(2), secret(1)}, {secret(1), secret(2)}, {secret(3)}, nil,
		}[arg%5])
	case 10: // something old again, maybe damaged
		if len(w.trace) > 0 {
			s := w.trace[w.rng.IntN(len(w.trace))]
			msg := append([]byte(nil), s.msg...)
			if arg%3 == 0 {
				msg[w.rng.IntN(len(msg))] ^= 1 << (arg % 8)
			}
			n.receive(s.from, msg)
		}
	case 11:
		w.run(time.Duration(arg) * time.Millisecond)
	case 12:
		w.run(time.Duration(arg) * time.Second)
	case 13:
		stamp := n.m.Stamp()
		n.m.Close()
		n.start()
		n.m.NotBefore(stamp)
		for _, other := range w.nodes {
			if other != n {
				n.knows(other)
			}
		}
	case 14:
		if s := p.current.Load(); s != nil {
			s.counter.Store([]uint64{RekeyAfterMessages, RejectAfterMessages - 3, RejectAfterMessages + 9}[arg%3])
		}
	case 15:
		n.deaf = arg%4 == 0
	}
	n.listen()
	for _, n := range w.nodes {
		n.check()
		if next := n.m.Next(w.now); !next.IsZero() && next.Before(w.now) {
			n.perform(n.m.Tick(w.now))
			if next := n.m.Next(w.now); !next.IsZero() && !next.After(w.now) {
				w.t.Fatalf("%s: due %v ago after a tick", n.name, w.now.Sub(next))
			}
		}
	}
}

func modelWorld(t testing.TB, seed uint64) *world {
	w := newWorld(t, seed)
	for _, name := range []string{"a", "b", "c"} {
		w.node(name)
	}
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			if n != o {
				n.knows(o)
			}
		}
		n.lag = func() time.Duration { return time.Duration(w.rng.Int64N(int64(20 * time.Millisecond))) }
	}
	w.route = func(*node, *node, []byte) (at []time.Duration) {
		for w.rng.IntN(5) != 0 && len(at) < 2 {
			at = append(at, time.Duration(w.rng.Int64N(int64(200*time.Millisecond))))
		}
		return at
	}
	return w
}

// settle ends the trouble: all can talk again, and then, all ends.
func (w *world) settle() {
	w.t.Helper()
	w.route = func(*node, *node, []byte) []time.Duration { return []time.Duration{hop} }
	for _, n := range w.nodes {
		n.deaf = false
		for _, p := range n.peers {
			n.m.SetPSKs(p, []identity.Secret{secret(1)})
		}
	}
	w.run(10 * time.Minute)
	for _, n := range w.nodes {
		if n.m.table.inUse() != 0 || len(n.m.timers) != 0 || len(n.m.dying) != 0 || !n.m.Next(w.now).IsZero() {
			w.t.Fatalf("%s: %d slots, %d timers, %d dying when all is quiet", n.name, n.m.table.inUse(), len(n.m.timers), len(n.m.dying))
		}
	}
	a, b := w.nodes[0], w.nodes[1]
	id := a.send(b)
	w.run(10 * time.Second)
	if w.arrived[id] != 1 {
		w.t.Fatal("not connected when all works")
	}
}

func TestModel(t *testing.T) {
	seed := newSeed(t)
	var sum Counters
	for i := range runs(64) {
		w := modelWorld(t, seed+i)
		for range 300 {
			w.act(byte(w.rng.Uint32()), byte(w.rng.Uint32()))
		}
		sum.Established += w.nodes[0].m.Counters().Established
		w.settle()
	}
	if sum.Established == 0 {
		t.Error("nothing happened")
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 0, 11, 50, 4, 1, 7, 0, 0, 0, 12, 200})
	f.Add([]byte{4, 0, 4, 1, 11, 20, 8, 0, 10, 1, 13, 2, 12, 130, 0, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		w := modelWorld(t, 1)
		for i := 0; i+1 < min(len(ops), 200); i += 2 {
			w.act(ops[i], ops[i+1])
		}
		w.settle()
	})
}

func FuzzMessages(f *testing.F) {
	f.Add(make([]byte, noise.InitiationSize))
	f.Add(make([]byte, noise.ResponseSize))
	f.Add([]byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		w, a, b := pair(t, 1)
		a.send(b)
		a.m.Initiation(w.now, msg, &b.addr)
		a.m.Response(w.now, msg, &b.addr)
		a.m.CookieReply(w.now, msg)
		if len(msg) >= Overhead {
			a.open(msg)
		}
		a.check()
	})
}
