package wg

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// TestDay runs two machines for a virtual day in a bubble, each with its loop, and goroutines that use the packet path
// beside it: one sends continuously, one in bursts, with idle hours between.
func TestDay(t *testing.T) {
	seed := newSeed(t)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{rng: rand.New(rand.NewPCG(seed, 4)), longest: 20 * time.Millisecond, twice: 0.01}
		ka, kb, psk := identity.NewSecret(), identity.NewSecret(), identity.NewSecret()
		a, b := newAgent(t, ka, public(t, kb), psk, seed), newAgent(t, kb, public(t, ka), psk, seed+1)
		var got [2]atomic.Uint64
		join := func(from, to *agent, n int) {
			from.out = func(msg []byte) int { return w.carry(msg, func(msg []byte) { to.in <- msg }) }
			from.frame = func(id uint64) []byte { return inner(ourInner, theirInner, id) }
			to.accept = func([]byte) { got[n].Add(1) }
		}
		join(a, b, 0)
		join(b, a, 1)
		a.start()
		b.start()
		a.send <- 1
		time.Sleep(time.Second)
		const day = 24 * time.Hour
		var senders sync.WaitGroup
		var sent [2]atomic.Uint64
		send := func(n int, p *sender) {
			if p.send() {
				sent[n].Add(1)
			} else {
				t.Error("no session in a running flow")
			}
		}
		senders.Go(func() {
			p := &sender{from: a}
			for end := time.Now().Add(day); time.Now().Before(end); time.Sleep(3 * time.Second) {
				send(0, p)
			}
		})
		senders.Go(func() { // bursts, from another goroutine of the same side
			p := &sender{from: a}
			for range 24 {
				for range 20 {
					for range 100 {
						send(0, p)
					}
					time.Sleep(7 * time.Second)
				}
				time.Sleep(time.Hour - 140*time.Second)
			}
		})
		senders.Go(func() { // answers come and cease
			p := &sender{from: b}
			for range 48 {
				for range 100 {
					send(1, p)
					time.Sleep(9 * time.Second)
				}
				time.Sleep(15 * time.Minute)
			}
		})
		var most runtime.MemStats
		runtime.ReadMemStats(&most)
		first := most.HeapAlloc
		for range 24 {
			time.Sleep(time.Hour)
			for _, n := range []*agent{a, b} {
				n.call(func(time.Time) {
					if len(n.m.table.uses) != firstSize || len(n.m.timers) > 1 || len(n.m.dying) > 2 {
						t.Errorf("%d slots, %d timers, %d dying", len(n.m.table.uses), len(n.m.timers), len(n.m.dying))
					}
				})
			}
		}
		senders.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		runtime.GC()
		runtime.ReadMemStats(&most)
		var rekeys uint64
		a.call(func(time.Time) { rekeys = a.m.Counters().Established })
		t.Logf("%d sessions, %d and %d packets, heap %d KiB then %d", rekeys, sent[0].Load(), sent[1].Load(), first>>10, most.HeapAlloc>>10)
		if rekeys < 700 || rekeys > 730 {
			t.Errorf("%d sessions", rekeys)
		}
		if lost := sent[0].Load() + 1 - got[0].Load(); lost != 0 {
			t.Errorf("%d lost", lost)
		}
		if lost := sent[1].Load() - got[1].Load(); lost != 0 {
			t.Errorf("%d of the answers lost", lost)
		}
		if most.HeapAlloc > first+8<<20 {
			t.Errorf("heap grew by %d", most.HeapAlloc-first)
		}
		time.Sleep(4 * time.Minute) // quiet: everything ends
		for _, n := range []*agent{a, b} {
			n.call(func(now time.Time) {
				if n.m.table.inUse() != 0 || !n.m.Next(now).IsZero() || n.peer.active != nil {
					t.Error("something is left when all is quiet")
				}
			})
		}
		a.close()
		b.close()
	})
}

// sender uses the packet path of an agent from its own goroutine.
type sender struct {
	from  *agent
	nonce Nonce
	buf   [128]byte
}

func (p *sender) send() bool {
	a := p.from
	at := a.m.Clock().At(time.Now())
	s := a.peer.Acquire(at)
	if s == nil {
		return false
	}
	defer s.Release()
	counter, ok := s.Reserve(1)
	n := s.Seal(&p.nonce, p.buf[:], 32, counter)
	a.out(bytes.Clone(p.buf[:n]))
	a.peer.Sent(at, n, true)
	return ok
}

// Many goroutines use the packet path of two machines whose sessions are made, dropped and renewed all the time: the race
// detector watches, and no packet opens under the wrong session.
func TestPacketPathRace(t *testing.T) {
	_, a, b := pair(t, newSeed(t))
	a.w.checks = false
	var stop atomic.Bool
	var users sync.WaitGroup
	datagrams := make(chan []byte, 256)
	for range 2 {
		users.Go(func() {
			var nonce Nonce
			for !stop.Load() {
				at := a.m.Clock().At(time.Now())
				s := a.peers[b].Acquire(at)
				if s == nil {
					runtime.Gosched()
					continue
				}
				buf := make([]byte, 64)
				if c, ok := s.Reserve(1); ok {
					n := s.Seal(&nonce, buf, 16, c)
					a.peers[b].Sent(at, n, true)
					select {
					case datagrams <- buf[:n]:
					default:
					}
				}
				s.Release()
			}
		})
	}
	for range 2 {
		users.Go(func() {
			var nonce Nonce
			for !stop.Load() {
				var d []byte
				select {
				case d = <-datagrams:
				default:
					runtime.Gosched()
					continue
				}
				at := b.m.Clock().At(time.Now())
				s := b.m.Table().Acquire(d, at)
				if s == nil {
					continue
				}
				_, c, err := s.Open(&nonce, d)
				if err != nil {
					t.Error("a datagram found the wrong session")
				} else if stale := make([]bool, 1); true {
					s.Fresh([]uint64{c}, stale)
					s.Peer.Received(at, s, len(d), true)
				}
				s.Release()
			}
		})
	}
	deliver := func(actions []Action) {
		for len(actions) > 0 {
			act := actions[0]
			actions = actions[1:]
			now := time.Now()
			if act.Kind != ActInitiate && act.Kind != ActReply {
				continue
			}
			to := act.Peer.Owner.(*node)
			if noise.TypeOf(act.Message) == noise.TypeInitiation {
				actions = append(actions, to.m.Initiation(now, act.Message, &a.addr)...)
			} else {
				actions = append(actions, to.m.Response(now, act.Message, &a.addr)...)
			}
		}
	}
	end := time.Now().Add(500 * time.Millisecond)
	for i := 0; time.Now().Before(end); i++ {
		now := time.Now()
		switch i % 5 {
		case 0:
			deliver(a.m.Renew(now, a.peers[b]))
		case 1:
			deliver(a.m.TakeNotes(now))
			deliver(b.m.TakeNotes(now))
		case 2:
			deliver(a.m.Tick(now))
			deliver(b.m.Tick(now))
		case 3:
			if i%15 == 3 {
				deliver(a.m.Drop(now, a.peers[b]))
				deliver(b.m.Drop(now, b.peers[a]))
			}
		}
	}
	stop.Store(true)
	users.Wait()
	if a.m.Counters().Established < 10 {
		t.Errorf("%+v", a.m.Counters())
	}
	a.m.Close()
	b.m.Close()
	for _, n := range []*node{a, b} {
		if len(n.m.dying) != 0 || n.m.table.inUse() != 0 {
			t.Error("sessions left")
		}
	}
}
