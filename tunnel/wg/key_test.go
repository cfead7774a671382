package wg

import (
	"testing"
	"time"
)

// The AEADs' memory is erased when a session ends, and not while somebody uses it.
func TestWipe(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	s := a.session(b)
	if s.send.raw == nil || s.receive.raw == nil {
		t.Fatal("the AEAD keeps its key in another place")
	}
	send, receive := s.send.raw, s.receive.raw
	zero := [32]byte{}
	if *send == zero || *receive == zero || *send == *receive {
		t.Fatal("no keys")
	}
	if *send != *b.session(a).receive.raw {
		t.Error("the other side has another key")
	}
	if !s.acquire() {
		t.Fatal("not acquired")
	}
	w.run(181 * time.Second)
	if !s.dead.Load() || a.session(b) != nil {
		t.Fatal("still there after 181 s")
	}
	if *send == zero || s.acquire() {
		t.Fatal("erased in use, or acquired when dead")
	}
	buf := make([]byte, Overhead)
	s.Seal(&a.nonce, buf, 0, 5)
	if a.m.Next(w.now).IsZero() {
		t.Error("nobody will look at it")
	}
	s.Release()
	w.run(buryAfter)
	if *send != zero || *receive != zero || len(a.m.dying) != 0 {
		t.Error("not erased after the last release")
	}
	if !a.m.Next(w.now).IsZero() {
		t.Error("a deadline is left")
	}
}

func TestCloseInUse(t *testing.T) {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	a.perform(a.m.Renew(w.now, a.peers[b]))
	s := a.session(b)
	raw := s.send.raw
	if !s.acquire() {
		t.Fatal("not acquired")
	}
	a.m.Close()
	if *raw == [32]byte{} {
		t.Error("erased in use")
	}
	s.Release()
	a.m.Tick(w.now)
	if *raw != [32]byte{} || a.m.table.inUse() != 0 || len(a.m.timers) != 0 {
		t.Error("something is left")
	}
	a.send(b) // nothing of this does more than nothing
	a.perform(a.m.Connect(w.now, a.peers[b]))
	a.perform(a.m.Drop(w.now, a.peers[b]))
	a.m.Close()
	w.run(time.Minute)
}

// Remove and Drop at every step of a handshake leave nothing behind.
func TestEndAtEveryState(t *testing.T) {
	for _, remove := range []bool{false, true} {
		for ms := time.Duration(0); ms < 60; ms += 5 {
			for _, both := range []bool{false, true} {
				w, a, b := pair(t, 1)
				a.send(b)
				if both {
					b.send(a)
				}
				w.run(ms*time.Millisecond + time.Microsecond)
				for _, n := range []*node{a, b} {
					p := n.peers[b]
					if n == b {
						p = n.peers[a]
					}
					if remove {
						n.perform(n.m.Remove(w.now, p))
					} else {
						n.perform(n.m.Drop(w.now, p))
					}
					n.check()
					if n.m.table.inUse() != 0 || len(n.m.timers) != 0 || p.active != nil {
						t.Errorf("remove %v after %v: %d slots", remove, ms, n.m.table.inUse())
					}
				}
				w.run(10 * time.Second)
				if remove && (a.peers[b].active != nil || b.peers[a].active != nil) {
					t.Error("a removed peer came back")
				}
				if !remove {
					a.parked, b.parked = make(map[*Peer][]uint64), make(map[*Peer][]uint64)
					w.connect(a, b)
				}
			}
		}
	}
}
