package tunnel

import (
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/offload"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// fakeHost is a TUN of the test's: in is read, out is what was written.
type fakeHost struct {
	in     chan []byte // behind a virtio-net header
	closed chan struct{}
	once   sync.Once
	gone   error // what readBatch says at the end

	mu      sync.Mutex
	out     [][]byte
	flushes int
	silent  bool  // keep nothing
	refuse  error // of write
}

func newFakeHost() *fakeHost {
	return &fakeHost{in: make(chan []byte, 1000), closed: make(chan struct{}), gone: os.ErrClosed}
}

func (f *fakeHost) name() string { return "fake" }

func (f *fakeHost) readBatch(wait bool, take func(buf []byte) bool) error {
	if wait {
		select {
		case p := <-f.in:
			if !take(p) {
				return nil
			}
		case <-f.closed:
			return f.gone
		}
	}
	for {
		select {
		case p := <-f.in:
			if !take(p) {
				return nil
			}
		default:
			return nil
		}
	}
}

// keep has nothing to do: each read has a buffer of its own.
func (f *fakeHost) keep([]byte) {}

func (f *fakeHost) writer() hostWriter { return &fakeWriter{host: f} }

func (f *fakeHost) write(buf []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return f.refuse
	}
	f.out = append(f.out, slices.Clone(buf[headroom:]))
	return nil
}

func (f *fakeHost) run() { <-f.closed }

func (f *fakeHost) close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

func (f *fakeHost) got() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.out)
}

// fakeWriter holds packets until flush, as a real one may: their memory must stay.
type fakeWriter struct {
	host *fakeHost
	pkts [][]byte
	lose uint64
}

func (w *fakeWriter) add(pkt []byte) {
	if !w.host.silent {
		w.pkts = append(w.pkts, pkt)
	}
}

func (w *fakeWriter) flush() uint64 {
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	for _, p := range w.pkts {
		w.host.out = append(w.host.out, slices.Clone(p))
	}
	w.host.flushes++
	w.pkts = w.pkts[:0]
	return w.lose
}

// side is the packet path of one node without sockets, netstack and loops: the test is its owner.
type side struct {
	*node
	machine  *wg.Machine
	tap      *tap
	c        counters
	host     *fakeHost
	out      *outbox
	in       *inbox
	links    map[*node]*recorder
	mu       sync.Mutex
	injected [][]byte
}

func newSide(t testing.TB, b byte, userspace bool) *side {
	return newSideOf(t, addressesOf(b), userspace)
}

// sideEpoch is when the clocks of all sides begin.
var sideEpoch = time.Now()

func newSideOf(t testing.TB, n *node, userspace bool) *side {
	t.Helper()
	s := &side{node: n, links: make(map[*node]*recorder)}
	var err error
	if s.machine, err = wg.New(n.id.WGPrivate(), sideEpoch, rand.New(rand.NewPCG(1, uint64(n.ip4.As4()[3])))); err != nil {
		t.Fatal(err)
	}
	s.host = newFakeHost()
	var h host = s.host
	if userspace {
		h = nil
	}
	s.tap = newTap(h, DefaultMTU, s.machine.Clock(), &s.c)
	s.tap.inject = func(b []byte) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.injected = append(s.injected, slices.Clone(b))
	}
	s.tap.injectParts = func(parts [][]byte) { s.tap.inject(slices.Concat(parts...)) }
	s.tap.self.Store(newSelf(testNetwork(), n.ctl, n.ip4, n.ip6, userspace))
	s.out = newOutbox(s.tap, hostArena)
	d := newDoor(s.machine.Static(), func(*datagram.Source, []byte) {}, &s.c)
	s.in = &inbox{tap: s.tap, sessions: s.machine.Table(), door: d}
	if h != nil {
		s.in.out = h.writer()
	}
	return s
}

// know makes others members, each with a recorder for a link.
func (s *side) know(others ...*node) {
	var members []Member
	for _, o := range others {
		members = append(members, o.member())
	}
	next, c := s.tap.table.Load().next(members, s.machine.Notes())
	for _, p := range c.gone {
		s.machine.Remove(sideEpoch, p.wg)
	}
	for _, p := range c.added {
		s.machine.Add(p.wg, []identity.Secret{testPSK})
		for _, o := range others {
			if o.id.ID() == p.id {
				s.links[o] = &recorder{}
				var l datagram.Peer = s.links[o]
				p.link.Store(&l)
			}
		}
	}
	s.tap.table.Store(next)
}

// entry is the peer of a member.
func (s *side) entry(o *node) *peer { return s.tap.table.Load().byID[o.id.ID()] }

// sourceOf is where datagrams of a node come from.
func sourceOf(n *node) datagram.Source {
	return datagram.Source{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n.ip4.As4()[3]}), 51820)}
}

// shake gives two sides a session that a began; b confirms it with a first packet of a's.
func shake(t testing.TB, now time.Time, a, b *side) {
	t.Helper()
	fromA, fromB := sourceOf(a.node), sourceOf(b.node)
	first := message(t, a.machine.Renew(now, a.entry(b.node).wg), wg.ActInitiate)
	reply := message(t, b.machine.Initiation(now, first, &fromA), wg.ActReply)
	message(t, a.machine.Response(now, reply, &fromB), wg.ActEstablished)
	a.open(now, b.node)
	a.out.begin(now)
	a.out.keepalive(a.entry(b.node))
	a.out.flush()
	b.take(now, a.node, a.links[b.node].take()...)
	message(t, b.machine.TakeNotes(now), wg.ActEstablished)
	b.open(now, a.node)
}

// message is that of the one action of a kind.
func message(t testing.TB, actions []wg.Action, kind wg.ActionKind) []byte {
	t.Helper()
	for i := range actions {
		if actions[i].Kind == kind {
			return actions[i].Message
		}
	}
	t.Fatalf("no action %d among %d", kind, len(actions))
	return nil
}

// open lets packets for o go.
func (s *side) open(now time.Time, o *node) {
	s.tap.lot.release(s.entry(o), now, func(batch [][]byte) {
		s.out.begin(now)
		for _, pkt := range batch {
			s.out.put(s.entry(o), pkt)
		}
		s.out.flush()
	})
}

// seal is the datagrams that packets for o become, in one batch.
func (s *side) seal(now time.Time, o *node, pkts ...[]byte) [][]byte {
	s.out.begin(now)
	for _, pkt := range pkts {
		s.out.add(s.entry(o), pkt)
	}
	s.out.flush()
	return s.links[o].take()
}

// take gives the inbox datagrams as one read of the socket.
func (s *side) take(now time.Time, from *node, datagrams ...[]byte) {
	var batch []airPacket
	for _, d := range datagrams {
		batch = append(batch, airPacket{sourceOf(from).Addr, slices.Clone(d)})
	}
	s.in.take(now, trains(batch))
}

// got is what arrived at the OS or the netstack, and forgets it.
func (s *side) got() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host.mu.Lock()
	defer s.host.mu.Unlock()
	all := append(s.host.out, s.injected...)
	s.host.out, s.injected = nil, nil
	return all
}

// only fails unless exactly these counters are not zero. Pairs of reason and count.
func only(t testing.TB, c *counters, want map[reason]uint64) {
	t.Helper()
	for r := range reasons {
		if got := c[r].Load(); got != want[r] {
			t.Errorf("%s = %d, want %d", reasonNames[r], got, want[r])
		}
	}
}

// sidePair is two sides with a session, each with an OS TUN.
func sidePair(t testing.TB) (a, b *side) {
	t.Helper()
	a, b = newSide(t, 1, false), newSide(t, 2, false)
	a.know(b.node)
	b.know(a.node)
	shake(t, sideEpoch, a, b)
	return a, b
}

// udpPacket is a UDP packet with size bytes of payload; its checksum is absent.
func udpPacket(src, dst netip.Addr, size int) []byte {
	var p []byte
	if src.Is4() {
		p = make([]byte, ipv4HeaderLen+8+size)
		p[0], p[8], p[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		putAddresses(p[12:], src, dst)
		binary.BigEndian.PutUint16(p[10:], checksum(0, p[:ipv4HeaderLen]))
	} else {
		p = make([]byte, ipv6HeaderLen+8+size)
		p[0], p[6], p[7] = 0x60, 17, 64
		binary.BigEndian.PutUint16(p[4:], uint16(8+size))
		putAddresses(p[8:], src, dst)
	}
	udp := p[len(p)-8-size:]
	binary.BigEndian.PutUint16(udp, 1000)
	binary.BigEndian.PutUint16(udp[2:], 2000)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+size))
	return p
}

// numbered is a packet that carries a number and size bytes in all.
func numbered(src, dst netip.Addr, n, size int) []byte {
	p := udpPacket(src, dst, size-28)
	binary.BigEndian.PutUint32(p[28:], uint32(n))
	return p
}

// number is that of a numbered packet.
func number(p []byte) int { return int(binary.BigEndian.Uint32(p[28:])) }

func numbers(pkts [][]byte) (all []int) {
	for _, p := range pkts {
		all = append(all, number(p))
	}
	return all
}

// upTo is 0 to n-1.
func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// fromTUN puts a virtio-net header of zeros in front of a packet: it is whole.
func fromTUN(pkt []byte) []byte { return append(make([]byte, offload.HeaderLen), pkt...) }

// quiet is a logger for owners that tests make.
var quiet = slog.New(slog.DiscardHandler)

// joinHost is a TUN that takes what an offload.Join makes, and forgets it.
type joinHost struct {
	*fakeHost
	packets, writes int
}

func (j *joinHost) writer() hostWriter {
	return &sinkWriter{host: j, join: offload.NewJoin(func([][]byte) error {
		j.writes++
		return nil
	}, offload.Offloads{TCP: true, UDP: true})}
}

type sinkWriter struct {
	host *joinHost
	join *offload.Join
}

func (w *sinkWriter) add(pkt []byte) {
	w.host.packets++
	w.join.Add(pkt)
}

func (w *sinkWriter) flush() uint64 {
	_ = w.join.Flush()
	return 0
}

// wired is two sides with a session, where what a sends arrives at b in the same call, and at b's TUN.
func wired(t testing.TB) (a, b *side, host *joinHost) {
	t.Helper()
	a, b = sidePair(t)
	host = &joinHost{fakeHost: b.host}
	b.in.out = host.writer()
	var l datagram.Peer = &wire{to: b.in, from: sourceOf(a.node)}
	a.entry(b.node).link.Store(&l)
	return a, b, host
}
