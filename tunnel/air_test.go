package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// air joins sockets in memory by a few paths. A test may script what becomes of each datagram, and keep them.
type air struct {
	paths int

	mu     sync.Mutex
	byKey  map[identity.WGKey]*airSocket
	byAddr map[netip.Addr]*airSocket
	script func(f *flight) fate // nil: everything arrives
	seen   map[byte]int         // datagrams by their first byte
	tapped func(f flight)       // nil: nobody listens
	held   []flight
	late   []landing // that are delayed, in order of arrival
	next   byte
}

// flight is one datagram under way.
type flight struct {
	from, to *airSocket
	path     int
	data     []byte
}

func (f *flight) kind() byte { return f.data[0] }

// fate is what a script decides. The zero fate: it arrives.
type fate struct {
	drop  bool
	more  int           // copies beyond the first
	delay time.Duration // of all copies
	hold  bool          // until the next datagram that is not held has arrived
}

func newAir() *air { return newAirPaths(1) }

func newAirPaths(n int) *air {
	return &air{
		paths: n, seen: make(map[byte]int),
		byKey: make(map[identity.WGKey]*airSocket), byAddr: make(map[netip.Addr]*airSocket),
	}
}

// socket makes the socket that is reached under key, in place of an earlier one.
func (a *air) socket(key identity.WGKey) *airSocket {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	s := &airSocket{air: a, key: key, id: a.next, peers: make(map[identity.WGKey]*airPeer)}
	for path := range a.paths {
		s.in = append(s.in, make(chan airPacket, 4096))
		a.byAddr[s.addr(path).Addr()] = s
	}
	a.byKey[key] = s
	return s
}

func (a *air) setScript(f func(*flight) fate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.script = f
}

func (a *air) listen(f func(flight)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tapped = f
}

func (a *air) count(kind byte) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[kind]
}

func (a *air) reached(key identity.WGKey) *airSocket {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byKey[key]
}

func (a *air) at(addr netip.Addr) *airSocket {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byAddr[addr]
}

// carry brings a datagram to its receiver, or does what the script says.
func (a *air) carry(f flight) {
	if f.to == nil {
		return
	}
	f.data = slices.Clone(f.data)
	a.mu.Lock()
	a.seen[f.kind()]++
	if a.tapped != nil {
		a.tapped(f)
	}
	var do fate
	if a.script != nil {
		do = a.script(&f)
	}
	if do.hold && !do.drop {
		a.held = append(a.held, f)
		a.mu.Unlock()
		return
	}
	late := a.held
	a.held = nil
	a.mu.Unlock()
	if !do.drop {
		for range 1 + do.more {
			f.land(do.delay)
		}
	}
	for i := range late {
		late[i].land(0)
	}
}

// land has a datagram arrive after a delay; of two that arrive at the same time the first one sent is first.
func (f flight) land(delay time.Duration) {
	p := airPacket{from: f.from.addr(f.path), data: slices.Clone(f.data)}
	if delay == 0 {
		f.to.put(f.path, p)
		return
	}
	a := f.to.air
	a.mu.Lock()
	defer a.mu.Unlock()
	due := time.Now().Add(delay)
	at := len(a.late)
	for at > 0 && a.late[at-1].due.After(due) {
		at--
	}
	a.late = slices.Insert(a.late, at, landing{due, f.to, f.path, p})
	time.AfterFunc(delay, a.arrive)
}

type landing struct {
	due  time.Time
	to   *airSocket
	path int
	pkt  airPacket
}

// arrive brings the next delayed datagram, one for each timer.
func (a *air) arrive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.late[0]
	a.late = slices.Delete(a.late, 0, 1)
	l.to.put(l.path, l.pkt)
}

type airPacket struct {
	from netip.AddrPort
	data []byte
}

// airSocket is one node's end. Each path has a leg.
type airSocket struct {
	air *air
	key identity.WGKey
	id  byte
	in  []chan airPacket

	dead atomic.Bool // sends nothing, and drops what comes

	mu     sync.Mutex
	peers  map[identity.WGKey]*airPeer
	absent map[identity.WGKey]bool // keys it does not know
}

func (s *airSocket) addr(path int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(path), 0, s.id}), 51820)
}

func (s *airSocket) put(path int, p airPacket) {
	if s.dead.Load() {
		return
	}
	select {
	case s.in[path] <- p:
	default: // a full socket buffer
	}
}

func (s *airSocket) Legs() int { return len(s.in) }

// Receive gives what lies there at once, neighbours of one source and size as trains.
func (s *airSocket) Receive(ctx context.Context, leg int, take func(time.Time, []datagram.Train)) error {
	for {
		var batch []airPacket
		select {
		case <-ctx.Done():
			return nil
		case p := <-s.in[leg]:
			batch = append(batch, p)
		}
		for more := true; more && len(batch) < 256; {
			select {
			case p := <-s.in[leg]:
				batch = append(batch, p)
			default:
				more = false
			}
		}
		take(time.Now(), trains(batch))
	}
}

func trains(batch []airPacket) (all []datagram.Train) {
	for i := 0; i < len(batch); {
		t := datagram.Train{Size: len(batch[i].data), From: datagram.Source{Addr: batch[i].from}}
		for whole := true; whole && i < len(batch) && batch[i].from == t.From.Addr && len(batch[i].data) <= t.Size; i++ {
			t.Data = append(t.Data, batch[i].data...)
			whole = len(batch[i].data) == t.Size
		}
		all = append(all, t)
	}
	return all
}

func (s *airSocket) PeerByKey(key identity.WGKey) datagram.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.absent[key] {
		return nil
	}
	p := s.peers[key]
	if p == nil {
		p = &airPeer{from: s, key: key}
		s.peers[key] = p
	}
	return p
}

func (s *airSocket) peer(key identity.WGKey) *airPeer { return s.PeerByKey(key).(*airPeer) }

func (s *airSocket) Reply(to *datagram.Source, pkt []byte) {
	if s.dead.Load() || !to.Addr.Addr().Is4() {
		return
	}
	path := int(to.Addr.Addr().As4()[1])
	s.air.carry(flight{from: s, to: s.air.at(to.Addr.Addr()), path: path, data: pkt})
}

// airPeer is a member as one end sees it: its best path is the last one that was authenticated.
type airPeer struct {
	from *airSocket
	key  identity.WGKey

	mu    sync.Mutex
	best  int
	heard []heard
}

// heard is one call of Authenticated.
type heard struct {
	from netip.AddrPort
	size int
}

func (p *airPeer) send(path int, pkt []byte) {
	if p.from.dead.Load() {
		return
	}
	p.from.air.carry(flight{from: p.from, to: p.from.air.reached(p.key), path: path, data: pkt})
}

// SendAhead is Send: order is not what is tested with it.
func (p *airPeer) SendAhead(now time.Time, pkts [][]byte) { p.Send(now, pkts) }

func (p *airPeer) Send(_ time.Time, pkts [][]byte) {
	p.mu.Lock()
	path := p.best
	p.mu.Unlock()
	for _, pkt := range pkts {
		p.send(path, pkt)
	}
}

func (p *airPeer) SendAll(_ time.Time, pkt []byte) {
	for path := range p.from.in {
		p.send(path, pkt)
	}
}

func (p *airPeer) Authenticated(_ time.Time, from *datagram.Source, size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.best = int(from.Addr.Addr().As4()[1])
	p.heard = append(p.heard, heard{from.Addr, size})
	if len(p.heard) > 4096 {
		p.heard = slices.Clone(p.heard[2048:])
	}
}

func (p *airPeer) MaxSize() int { return 0 }

// recorder is a datagram.Peer that keeps what it is given.
type recorder struct {
	size int // MaxSize

	mu   sync.Mutex
	sent [][]byte // by Send
	runs []int    // how many datagrams each Send had
	all  [][]byte // by SendAll
	auth []heard
}

// SendAhead is Send: order is not what is tested with it.
func (r *recorder) SendAhead(now time.Time, pkts [][]byte) { r.Send(now, pkts) }

func (r *recorder) Send(_ time.Time, pkts [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs = append(r.runs, len(pkts))
	for _, p := range pkts {
		r.sent = append(r.sent, slices.Clone(p))
	}
}

func (r *recorder) MaxSize() int { return r.size }

func (r *recorder) SendAll(_ time.Time, pkt []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, slices.Clone(pkt))
}

func (r *recorder) Authenticated(_ time.Time, from *datagram.Source, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auth = append(r.auth, heard{from.Addr, size})
}

// take empties the recorder of what Send gave.
func (r *recorder) take() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := r.sent
	r.sent, r.runs = nil, nil
	return sent
}

func TestAirCarries(t *testing.T) {
	a := newAirPaths(2)
	x, y := a.socket(identity.WGKey{1}), a.socket(identity.WGKey{2})
	var n uint16
	a.setScript(func(f *flight) fate {
		switch binary.LittleEndian.Uint16(f.data) {
		case 1:
			return fate{drop: true}
		case 2:
			return fate{more: 1}
		case 3:
			return fate{hold: true}
		}
		return fate{}
	})
	for range 5 {
		x.peer(y.key).Send(time.Time{}, [][]byte{binary.LittleEndian.AppendUint16(nil, n)})
		n++
	}
	var got []byte
	for len(y.in[0]) > 0 {
		got = append(got, (<-y.in[0]).data[0])
	}
	if want := []byte{0, 2, 2, 4, 3}; !bytes.Equal(got, want) {
		t.Errorf("arrived %v, want %v", got, want)
	}
	all := trains([]airPacket{{x.addr(0), make([]byte, 5)}, {x.addr(0), make([]byte, 5)}, {x.addr(0), make([]byte, 3)}, {x.addr(0), make([]byte, 3)}, {x.addr(1), make([]byte, 3)}})
	if len(all) != 3 || len(all[0].Data) != 13 || all[0].Size != 5 || all[2].From.Addr != x.addr(1) {
		t.Errorf("trains %+v", all)
	}
}
