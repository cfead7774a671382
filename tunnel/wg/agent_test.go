package wg

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// wire carries datagrams between two ends in real time, which is a bubble's. Guarded by mu.
type wire struct {
	mu      sync.Mutex
	rng     *rand.Rand
	longest time.Duration // delays are up to that
	loss    float64
	twice   float64
	block   func(msg []byte) bool // what never arrives; nil: nothing
	sent    [5]int                // by type
}

// carry delivers copies of msg later.
func (w *wire) carry(msg []byte, deliver func([]byte)) (copies int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[min(int(msg[0]), 4)]++
	if w.block != nil && w.block(msg) || w.rng.Float64() < w.loss {
		return 0
	}
	copies = 1
	if w.rng.Float64() < w.twice {
		copies = 2
	}
	for range copies {
		own := bytes.Clone(msg)
		time.AfterFunc(time.Duration(w.rng.Int64N(int64(w.longest)+1)), func() { deliver(own) })
	}
	return copies
}

func (w *wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// agent runs a machine on the real clock, with one other side.
type agent struct {
	t      testing.TB
	m      *Machine
	peer   *Peer
	out    func(msg []byte) int // number of copies that will arrive
	accept func(pkt []byte)     // a packet arrived
	frame  func(id uint64) []byte
	in     chan []byte
	send   chan uint64
	do     chan func(now time.Time)
	stop   chan struct{}
	done   sync.WaitGroup
	nonce  Nonce
	parked []uint64

	mu      sync.Mutex
	sealed  map[uint64]bool // guarded by mu; true: the network lost it
	actions map[ActionKind]int
}

func newAgent(t testing.TB, private identity.Secret, other identity.WGKey, psk identity.Secret, seed uint64) *agent {
	m, err := New(private, time.Now(), rand.New(rand.NewPCG(seed, 3)))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{
		t: t, m: m, peer: NewPeer(other, nil, m.Notes()), in: make(chan []byte, 4096), send: make(chan uint64, 1024),
		do: make(chan func(time.Time)), stop: make(chan struct{}), sealed: make(map[uint64]bool),
		actions: make(map[ActionKind]int),
	}
	m.Add(a.peer, []identity.Secret{psk})
	return a
}

func (a *agent) start() { a.done.Go(a.loop) }

func (a *agent) close() {
	close(a.stop)
	a.done.Wait()
	a.m.Close()
}

// call runs f in the loop and waits.
func (a *agent) call(f func(now time.Time)) {
	done := make(chan struct{})
	a.do <- func(now time.Time) {
		f(now)
		close(done)
	}
	<-done
}

func (a *agent) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		a.perform(now, a.m.Tick(now))
		wait := time.Hour
		if next := a.m.Next(now); !next.IsZero() {
			wait = next.Sub(now)
			if wait <= 0 {
				a.t.Errorf("due %v ago", -wait)
			}
		}
		timer.Reset(wait)
		select {
		case <-a.stop:
			return
		case <-timer.C:
		case <-a.m.Notes().Wake:
			now = time.Now()
			a.perform(now, a.m.TakeNotes(now))
		case msg := <-a.in:
			a.receive(time.Now(), msg)
		case id := <-a.send:
			if !a.seal(time.Now(), id) {
				a.parked = append(a.parked, id)
			}
		case f := <-a.do:
			f(time.Now())
		}
	}
}

func (a *agent) perform(now time.Time, actions []Action) {
	for _, act := range actions {
		a.actions[act.Kind]++
		switch act.Kind {
		case ActInitiate, ActReply:
			a.out(act.Message)
		case ActKeepalive:
			a.seal(now, 0)
		case ActEstablished:
			parked := a.parked
			a.parked = nil
			for _, id := range parked {
				a.seal(now, id)
			}
			if len(parked) == 0 {
				a.seal(now, 0)
			}
		}
	}
}

func (a *agent) seal(now time.Time, id uint64) bool {
	at := a.m.Clock().At(now)
	s := a.peer.Acquire(at)
	if s == nil {
		return false
	}
	defer s.Release()
	counter, ok := s.Reserve(1)
	if !ok {
		return false
	}
	var pkt []byte
	if id != 0 {
		pkt = a.frame(id)
	}
	size := Padded(len(pkt), 1280)
	buf := make([]byte, size+Overhead)
	copy(buf[HeaderSize:], pkt)
	buf = buf[:s.Seal(&a.nonce, buf, size, counter)]
	copies := a.out(buf)
	if id != 0 {
		a.mu.Lock()
		a.sealed[id] = copies == 0
		a.mu.Unlock()
	}
	a.peer.Sent(at, len(buf), id != 0)
	return true
}

func (a *agent) receive(now time.Time, msg []byte) {
	var from datagram.Source
	switch noise.TypeOf(msg) {
	case noise.TypeInitiation:
		a.perform(now, a.m.Initiation(now, msg, &from))
	case noise.TypeResponse:
		a.perform(now, a.m.Response(now, msg, &from))
	case noise.TypeCookieReply:
		a.perform(now, a.m.CookieReply(now, msg))
	case noise.TypeData:
		at := a.m.Clock().At(now)
		s := a.m.Table().Acquire(msg, at)
		if s == nil {
			return
		}
		defer s.Release()
		pkt, counter, err := s.Open(&a.nonce, msg)
		var stale [1]bool
		if err != nil {
			return
		}
		if s.Fresh([]uint64{counter}, stale[:]); stale[0] {
			return
		}
		if len(pkt) > 0 {
			a.accept(pkt)
		}
		a.peer.Received(at, s, len(msg), len(pkt) > 0)
	}
}

// inner makes an IPv4 packet with an id.
func inner(from, to netip.Addr, id uint64) []byte {
	pkt := make([]byte, 28)
	pkt[0] = 0x45
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	pkt[8], pkt[9] = 64, 253
	copy(pkt[12:], from.AsSlice())
	copy(pkt[16:], to.AsSlice())
	binary.LittleEndian.PutUint64(pkt[20:], id)
	return pkt
}

func innerID(pkt []byte) uint64 { return binary.LittleEndian.Uint64(pkt[20:]) }
