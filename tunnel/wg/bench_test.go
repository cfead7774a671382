package wg

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// path is one direction of the packet path between two nodes.
type path struct {
	to, from *Peer
	table    *Table
	at       int64
	seal     Nonce
	open     Nonce
	buf      []byte
	counters [1]uint64
	stale    [1]bool
}

func newPath(t testing.TB) *path {
	w, a, b := pair(t, 1)
	w.connect(a, b)
	return &path{
		to: a.peers[b], from: b.peers[a], table: b.m.Table(), at: a.m.Clock().At(w.now), buf: make([]byte, 2048),
	}
}

func (p *path) carry(size int) bool {
	s := p.to.Acquire(p.at)
	counter, ok := s.Reserve(1)
	n := s.Seal(&p.seal, p.buf, size, counter)
	p.to.Sent(p.at, n, true)
	s.Release()
	r := p.table.Acquire(p.buf[:n], p.at)
	_, counter, err := r.Open(&p.open, p.buf[:n])
	p.counters[0] = counter
	r.Fresh(p.counters[:], p.stale[:])
	p.from.Received(p.at, r, n, true)
	r.Release()
	return ok && err == nil && !p.stale[0]
}

func TestPacketPathAllocations(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	p := newPath(t)
	if n := testing.AllocsPerRun(1000, func() {
		if !p.carry(1280) {
			t.Fatal("not carried")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func BenchmarkSealOpen(b *testing.B) {
	for _, size := range []int{1280, 208} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := newPath(b)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if !p.carry(size) {
					b.Fatal("not carried")
				}
			}
		})
	}
}

func BenchmarkTableAcquire(b *testing.B) {
	for _, sessions := range []int{10, 3000} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			table := newTable(rand.New(rand.NewPCG(1, 1)))
			headers := make([][]byte, sessions)
			for i := range headers {
				index, _ := table.reserve()
				table.put(&Session{local: index})
				headers[i] = header(index)
			}
			rand.Shuffle(len(headers), func(i, j int) { headers[i], headers[j] = headers[j], headers[i] })
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s := table.Acquire(headers[i%sessions], 1)
				if s == nil {
					b.Fatal("not found")
				}
				s.Release()
			}
		})
	}
}

// crowd is a node with many members that can begin handshakes.
type crowd struct {
	n       *node
	members []*noise.Static
	remotes []*noise.Remote
}

func newCrowd(t testing.TB, size int) *crowd {
	w := newWorld(t, 1)
	c := &crowd{n: w.node("n")}
	for range size {
		s, err := noise.NewStatic(identity.NewSecret())
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Remote(c.n.m.Static().Public())
		if err != nil {
			t.Fatal(err)
		}
		c.members, c.remotes = append(c.members, s), append(c.remotes, r)
		c.n.m.Add(NewPeer(s.Public(), nil, c.n.m.Notes()), []identity.Secret{secret(1)})
	}
	return c
}

// initiation is one of a member's; stamp tells them apart.
func (c *crowd) initiation(i int, stamp uint64) []byte {
	var msg [noise.InitiationSize]byte
	var label [12]byte
	binary.BigEndian.PutUint64(label[:], 1<<62+stamp)
	h, err := c.members[i].Initiate(c.remotes[i], uint32(stamp), label, nil, &msg)
	if err != nil {
		panic(err)
	}
	h.Wipe()
	return msg[:]
}

func BenchmarkRespond(b *testing.B) {
	c := newCrowd(b, 64)
	const rounds = 64
	msgs := make([][]byte, 0, rounds*len(c.members))
	stamp := uint64(0)
	refill := func() {
		msgs = msgs[:0]
		for range rounds {
			stamp++
			for i := range c.members {
				msgs = append(msgs, c.initiation(i, stamp))
			}
		}
	}
	refill()
	now, n := c.n.w.now, 0
	b.ReportAllocs()
	for b.Loop() {
		if n == len(msgs) {
			b.StopTimer()
			refill()
			n = 0
			b.StartTimer()
		}
		now = now.Add(time.Millisecond)
		if len(c.n.m.Initiation(now, msgs[n], &c.n.addr)) != 2 {
			b.Fatalf("not answered: %+v", c.n.m.Counters())
		}
		n++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "responses/s")
}

// BenchmarkMemory prints what a member costs that is known, and one with a session.
func BenchmarkMemory(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	const size = 3000
	for b.Loop() {
		c := newCrowd(b, size)
		msgs := make([][]byte, size)
		for i := range msgs {
			msgs[i] = c.initiation(i, 1)
		}
		clear(c.n.m.peers)
		before := heap()
		for _, s := range c.members {
			c.n.m.Add(NewPeer(s.Public(), nil, c.n.m.Notes()), []identity.Secret{secret(1)})
		}
		known := heap()
		for i := range msgs {
			c.n.m.Initiation(c.n.w.now, msgs[i], &c.n.addr)
			p := c.n.m.peers[c.members[i].Public()]
			p.active.next[0].confirmed.Store(true)
			c.n.m.confirm(c.n.w.now, p)
			c.n.m.take()
		}
		active := heap()
		b.ReportMetric((known-before)/size, "B/known")
		b.ReportMetric((active-known)/size, "B/active")
		runtime.KeepAlive(c)
	}
}
