package tunnel

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/tunnel/noise"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// bare is a tunnel without a netstack, whose goroutines stay out of a synctest bubble: legs, packet path and owner run,
// packets go in by send and come out in got.
type bare struct {
	*node
	ended   sync.WaitGroup
	pkts    [][]byte // that came; guarded by mu
	when    []time.Time
	reserve []time.Time // calls of Reserve
}

// newBare makes and runs one. change may alter the config.
func newBare(t testing.TB, sky *air, b byte, change func(*Config)) *bare {
	t.Helper()
	x := &bare{node: addressesOf(b)}
	x.sock = sky.socket(x.id.WG())
	cfg := x.config()
	cfg.Reserve = func(until time.Time) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.reserve = append(x.reserve, until)
	}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	x.Tunnel = &Tunnel{cfg: cfg, log: cfg.Logger, commands: make(chan func(*owner), 1024), done: make(chan struct{})}
	var err error
	if x.machine, err = wg.New(cfg.PrivateKey, time.Now(), rand.New(rand.NewPCG(7, uint64(b)))); err != nil {
		t.Fatal(err)
	}
	x.machine.NotBefore(cfg.Reserved)
	x.door = newDoor(x.machine.Static(), cfg.Socket.Reply, &x.counters)
	x.tap = newTap(nil, cfg.MTU, x.machine.Clock(), &x.counters)
	x.tap.inject = func(b []byte) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.pkts, x.when = append(x.pkts, slices.Clone(b)), append(x.when, time.Now())
	}
	x.tap.injectParts = func(parts [][]byte) { x.tap.inject(slices.Concat(parts...)) }
	x.tap.self.Store(newSelf(testNetwork(), x.ctl, x.ip4, x.ip6, true))
	ctx, cancel := context.WithCancel(context.Background())
	for leg := range cfg.Socket.Legs() {
		in := x.newInbox()
		x.ended.Go(func() { _ = cfg.Socket.Receive(ctx, leg, in.take) })
	}
	o := x.newOwner()
	loop := make(chan struct{})
	go func() {
		_ = x.loop(ctx, o, nil)
		close(x.done)
		x.ended.Wait()
		o.close()
		close(loop)
	}()
	x.stop = sync.OnceFunc(func() {
		cancel()
		<-loop
	})
	t.Cleanup(x.stop)
	return x
}

// send is what a program of x does: numbered packets of size bytes for o.
func (x *bare) send(o *bare, first, n, size int) {
	out := newOutbox(x.tap, stackArena)
	out.begin(time.Now())
	for i := range n {
		out.add(x.tap.table.Load().owner(o.ip4), numbered(x.ip4, o.ip4, first+i, size))
	}
	out.flush()
}

// got is what came, and forgets it.
func (x *bare) got() (pkts [][]byte, when []time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	pkts, when = x.pkts, x.when
	x.pkts, x.when = nil, nil
	return pkts, when
}

// waiting is how many packets are in the lot.
func (x *bare) waiting() int {
	x.tap.lot.mu.Lock()
	defer x.tap.lot.mu.Unlock()
	return x.tap.lot.order.Len()
}

func delayed(d time.Duration) func(*flight) fate {
	return func(*flight) fate { return fate{delay: d} }
}

// TestFirstPacketIsFast: it arrives with the handshake's completion, one and a half round trips after it was sent.
func TestFirstPacketIsFast(t *testing.T) {
	const way = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		sky := newAir()
		sky.setScript(delayed(way))
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		know(a.node, b.node)
		start := time.Now()
		a.send(b, 0, 5, 100)
		time.Sleep(time.Second)
		pkts, when := b.got()
		if !slices.Equal(numbers(pkts), upTo(5)) {
			t.Fatalf("arrived: %v", numbers(pkts))
		}
		if took := when[0].Sub(start); took < 3*way || took > 3*way+decisionWait {
			t.Errorf("first packet after %v, want %v", took, 3*way)
		}
		start = time.Now()
		b.send(a, 0, 1, 100) // the answer needs no handshake
		time.Sleep(time.Second)
		if _, when := a.got(); len(when) != 1 || when[0].Sub(start) != way {
			t.Error("the answer takes another way")
		}
		if got := sky.count(noise.TypeInitiation); got != 1 {
			t.Errorf("%d initiations", got)
		}
	})
}

// TestBothBegin at the same time: both handshakes complete, nothing is lost, and nothing is asked for again.
func TestBothBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sky := newAir()
		sky.setScript(delayed(50 * time.Millisecond))
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		know(a.node, b.node)
		a.send(b, 0, 10, 100)
		b.send(a, 0, 10, 100)
		time.Sleep(3 * time.Second)
		for i := range 100 {
			a.send(b, 10+i, 1, 100)
			b.send(a, 10+i, 1, 100)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		for _, x := range []*bare{a, b} {
			pkts, _ := x.got()
			if !slices.Equal(numbers(pkts), upTo(110)) {
				t.Errorf("arrived: %v", numbers(pkts))
			}
		}
		if got := sky.count(noise.TypeInitiation); got > 4 {
			t.Errorf("%d initiations", got)
		}
	})
}

// TestRekeyLosesNothing: for ten minutes, both ways, with a third of the handshake messages lost, and paths that delay,
// overtake and double.
func TestRekeyLosesNothing(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sky := newAirPaths(2)
				random := rand.New(rand.NewPCG(seed, 3))
				sky.setScript(func(f *flight) fate {
					if f.kind() != noise.TypeData {
						return fate{drop: random.IntN(3) == 0, delay: 30 * time.Millisecond}
					}
					return fate{more: random.IntN(10) / 9, delay: time.Duration(10+random.IntN(20)) * time.Millisecond, hold: random.IntN(20) == 0}
				})
				a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
				know(a.node, b.node)
				a.send(b, 0, 1, 100)
				time.Sleep(3 * time.Second)
				for i := range 6000 {
					a.send(b, 1+i, 1, 100)
					b.send(a, 1+i, 1, 100)
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(5 * time.Second)
				for i, x := range []*bare{b, a} {
					pkts, _ := x.got()
					got := numbers(pkts)
					slices.Sort(got)
					if !slices.Equal(got, upTo(6001)[i:]) { // a got none before b had a session
						t.Errorf("%d packets, %d different", len(got), len(slices.Compact(got)))
					}
				}
				if n := len(a.established()) + len(b.established()); n < 8 {
					t.Errorf("%d sessions in ten minutes", n)
				}
				for _, x := range []*bare{a, b} {
					if n := len(x.wanted()); n > 8 {
						t.Errorf("Want called %d times, although there was a session", n)
					}
					if first := slices.Repeat([]bool{true}, 1); !slices.Equal(x.established()[:1], first) || slices.Contains(x.established()[1:], true) {
						t.Errorf("Established: %v", x.established())
					}
				}
			})
		})
	}
}

// TestExpiryWhilePacketsFlow: handshakes fail for longer than a session lasts. Packets go while it does, then wait, and
// leave in order once there is a session again; the too old ones are dropped.
func TestExpiryWhilePacketsFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sky := newAir()
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		know(a.node, b.node)
		a.send(b, 0, 1, 100)
		time.Sleep(time.Second)
		sky.setScript(func(f *flight) fate { return fate{drop: f.kind() != noise.TypeData} })
		const n = 220
		for i := range n { // one a second
			a.send(b, 1+i, 1, 100)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		sky.setScript(nil)
		before, _ := b.got()
		if len(before) < 178 || len(before) > 181 || !slices.Equal(numbers(before), upTo(len(before))) {
			t.Errorf("%d packets before the session's end", len(before))
		}
		waiting := a.waiting()
		time.Sleep(6 * time.Second) // a try comes
		a.send(b, 1+n, 1, 100)
		time.Sleep(time.Second)
		after, _ := b.got()
		got := numbers(after)
		if len(got) < 5 || got[len(got)-1] != n+1 || !slices.Equal(got, upTo(n + 2)[n+2-len(got):]) {
			t.Errorf("after the new session: %v of %d that waited", got, waiting)
		}
		if lost := a.Counters()["park_expired"]; int(lost)+len(before)+len(got) != n+2 {
			t.Errorf("%d expired, %d and %d arrived, of %d", lost, len(before), len(got), n+2)
		}
		if got := a.established(); !slices.Equal(got, []bool{true, true}) {
			t.Errorf("Established: %v", got)
		}
	})
}

// TestParkedExpire: what waits for somebody who is away is dropped in time, and the tries end.
func TestParkedExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sky := newAir()
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		know(a.node, b.node)
		b.sock.dead.Store(true)
		a.send(b, 0, 20, 100)
		time.Sleep(lotAge - time.Second)
		if got := a.waiting(); got != 20 {
			t.Errorf("%d wait", got)
		}
		time.Sleep(2*time.Second + time.Millisecond)
		if got := a.Counters()["park_expired"]; got != 20 {
			t.Errorf("%d expired", got)
		}
		time.Sleep(10 * time.Minute)
		tries := sky.count(noise.TypeInitiation)
		if tries < 15 || tries > 30 || len(a.wanted()) != tries {
			t.Errorf("%d tries, Want called %d times", tries, len(a.wanted()))
		}
		b.sock.dead.Store(false)
		a.send(b, 20, 1, 100)
		time.Sleep(time.Second)
		if pkts, _ := b.got(); !slices.Equal(numbers(pkts), []int{20}) {
			t.Errorf("arrived: %v", numbers(pkts))
		}
	})
}

// TestMemberLeavesWhileParked: its packets go, even one that a packet path with an old table brings late.
func TestMemberLeavesWhileParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sky := newAir()
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		know(a.node, b.node)
		b.sock.dead.Store(true)
		a.send(b, 0, 5, 100)
		synctest.Wait()
		old := a.tap.table.Load().owner(b.ip4)
		a.SetMembers(nil)
		synctest.Wait()
		if got := a.Counters()["park_removed"]; got != 5 {
			t.Errorf("%d dropped", got)
		}
		out := newOutbox(a.tap, stackArena)
		out.begin(time.Now())
		out.add(old, numbered(a.ip4, b.ip4, 5, 100))
		out.flush()
		tries := sky.count(noise.TypeInitiation)
		time.Sleep(time.Minute)
		if a.waiting() != 0 || sky.count(noise.TypeInitiation) != tries {
			t.Error("a removed member is waited for")
		}
	})
}

// TestPassiveKeepalive: who only receives says once that it is alive; an idle session says nothing.
func TestPassiveKeepalive(t *testing.T) {
	bubble(t, func(t *testing.T, sky *air, a, b *bare) {
		a.send(b, 0, 1, 100)
		time.Sleep(time.Second)
		before := sky.count(noise.TypeData)
		a.send(b, 1, 1, 100)
		time.Sleep(100 * time.Second)
		if got := sky.count(noise.TypeData) - before; got != 2 {
			t.Errorf("%d datagrams, want the packet and a keepalive", got)
		}
		if got := sky.count(noise.TypeInitiation); got != 1 {
			t.Errorf("%d initiations", got)
		}
	})
}

// bubble runs f in virtual time with two nodes that know each other.
func bubble(t *testing.T, f func(t *testing.T, sky *air, a, b *bare)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sky := newAir()
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		know(a.node, b.node)
		synctest.Wait()
		f(t, sky, a, b)
	})
}

// TestStampsAreReserved: before an initiation leaves, its time is reserved, and after a restart with the clock set back
// the others still answer.
func TestStampsAreReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sky := newAir()
		ahead := time.Now().Add(2 * time.Hour) // the clock of a's earlier run
		a, b := newBare(t, sky, 1, func(c *Config) { c.Reserved = ahead }), newBare(t, sky, 2, nil)
		know(a.node, b.node)
		unreserved := 0
		sky.setScript(func(f *flight) fate {
			a.mu.Lock()
			defer a.mu.Unlock()
			if f.kind() == noise.TypeInitiation && f.from == a.sock &&
				(len(a.reserve) == 0 || !a.reserve[len(a.reserve)-1].After(a.machine.Stamp())) {
				unreserved++
			}
			return fate{}
		})
		a.send(b, 0, 1, 100)
		for i := range 30 {
			a.Renew(b.id.ID())
			time.Sleep(time.Minute)
			a.send(b, 1+i, 1, 100)
		}
		time.Sleep(time.Second)
		if pkts, _ := b.got(); !slices.Equal(numbers(pkts), upTo(31)) {
			t.Errorf("arrived: %v", numbers(pkts))
		}
		if unreserved != 0 {
			t.Errorf("%d initiations were not reserved", unreserved)
		}
		a.stop()
		if n := len(a.reserve); n < 2 || n > 10 || a.reserve[n-1] != a.machine.Stamp() || a.reserve[n-1].Before(ahead) {
			t.Errorf("reserved %v, used %v", a.reserve, a.machine.Stamp())
		}
		kept := a.reserve[len(a.reserve)-1]

		forgetful := newBare(t, sky, 1, nil) // its clock is an hour behind what it said before
		know(forgetful.node, b.node)
		forgetful.send(b, 100, 1, 100)
		time.Sleep(30 * time.Second)
		if pkts, _ := b.got(); len(pkts) != 0 {
			t.Error("an old stamp is taken")
		}
		forgetful.stop()
		mindful := newBare(t, sky, 1, func(c *Config) { c.Reserved = kept })
		know(mindful.node, b.node)
		mindful.send(b, 200, 1, 100)
		time.Sleep(time.Second)
		if pkts, _ := b.got(); !slices.Equal(numbers(pkts), []int{200}) {
			t.Errorf("after a restart that remembers: %v", numbers(pkts))
		}
	})
}

// TestSeveralPaths: an initiation goes by every path, answers where it came from, and data by the path that was heard.
func TestSeveralPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sky := newAirPaths(3)
		var byPath [3]int
		sky.setScript(func(f *flight) fate {
			if f.kind() == noise.TypeData {
				byPath[f.path]++
			}
			return fate{drop: f.path != 2}
		})
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		know(a.node, b.node)
		a.send(b, 0, 10, 100)
		time.Sleep(time.Second)
		b.send(a, 0, 10, 100)
		time.Sleep(time.Second)
		for _, x := range []*bare{a, b} {
			if pkts, _ := x.got(); !slices.Equal(numbers(pkts), upTo(10)) {
				t.Errorf("arrived: %v", numbers(pkts))
			}
		}
		if byPath[0]+byPath[1] != 0 {
			t.Errorf("datagrams by path: %v", byPath)
		}
	})
}

// TestReplayEverything plays back all that b ever got, by every path and from elsewhere (D14): nothing comes twice, and
// nobody is moved.
func TestReplayEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sky := newAirPaths(2)
		var kept []flight
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		sky.listen(func(f flight) {
			if f.to == b.sock {
				kept = append(kept, f)
			}
		})
		know(a.node, b.node)
		for i := range 200 {
			a.send(b, 5*i, 5, 100)
			time.Sleep(2 * time.Second) // rekeys included
		}
		time.Sleep(time.Second)
		sky.listen(nil)
		if pkts, _ := b.got(); len(pkts) != 1000 {
			t.Fatalf("%d packets", len(pkts))
		}
		link := b.sock.peer(a.id.WG())
		link.mu.Lock()
		heard, best := len(link.heard), link.best
		link.mu.Unlock()
		for _, f := range kept {
			for path := range 2 {
				b.sock.put(path, airPacket{a.sock.addr(path), slices.Clone(f.data)})
				b.sock.put(path, airPacket{fake(path).Addr, slices.Clone(f.data)})
			}
			synctest.Wait()
		}
		if pkts, _ := b.got(); len(pkts) != 0 {
			t.Errorf("%d packets came twice", len(pkts))
		}
		link.mu.Lock()
		if len(link.heard) != heard || link.best != best {
			t.Error("a replay was taken for the member")
		}
		link.mu.Unlock()
		a.send(b, 1000, 1, 100)
		time.Sleep(time.Second)
		if pkts, _ := b.got(); !slices.Equal(numbers(pkts), []int{1000}) {
			t.Error("replays end the session")
		}
	})
}

// TestSecrecy looks at all datagrams for what programs said, and for addresses (C32); members with different pre-shared
// keys have no session.
func TestSecrecy(t *testing.T) {
	const secret = "the quick brown fox"
	synctest.Test(t, func(t *testing.T) {
		sky := newAir()
		a, b := newBare(t, sky, 1, nil), newBare(t, sky, 2, nil)
		var told, seen int
		key := a.id.WG()
		sky.listen(func(f flight) {
			seen++
			for _, plain := range []string{secret, string(a.ip4.AsSlice()), string(a.ip6.AsSlice()), string(key[:])} {
				if strings.Contains(string(f.data), plain) {
					told++
				}
			}
		})
		know(a.node, b.node)
		say := func() {
			pkt := udpPacket(a.ip4, b.ip4, 500)
			for i := 28; i+len(secret) < len(pkt); i += len(secret) {
				copy(pkt[i:], secret)
			}
			out := newOutbox(a.tap, stackArena)
			out.begin(time.Now())
			out.add(a.tap.table.Load().owner(b.ip4), pkt)
			out.flush()
			time.Sleep(time.Second)
		}
		for range 50 {
			say()
		}
		if pkts, _ := b.got(); len(pkts) != 50 || !strings.Contains(string(pkts[7]), secret) {
			t.Errorf("%d packets arrived", len(pkts))
		}
		if told != 0 || seen < 50 {
			t.Errorf("%d of %d datagrams tell", told, seen)
		}
		b.SetMembers([]Member{a.memberWith(identity.Secret{1})})
		a.Disconnect(b.id.ID())
		b.Disconnect(a.id.ID())
		synctest.Wait()
		for range 20 {
			say()
		}
		if pkts, _ := b.got(); len(pkts) != 0 || a.Stats()[b.id.ID()].Session {
			t.Error("a session without a common pre-shared key")
		}
	})
}
