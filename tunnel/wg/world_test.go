package wg

import (
	"container/heap"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes one")

// newSeed takes a seed and has a failing test tell it.
func newSeed(t testing.TB) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed=%d", seed)
	return seed
}

// runs is how often to do something that takes long under the race detector.
func runs(n int) uint64 {
	if raceEnabled {
		return uint64(n / 8)
	}
	return uint64(n)
}

// world is a few nodes on a network in memory, on a clock that the test moves.
type world struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Time
	events eventHeap
	order  int
	nodes  []*node

	// route says when copies of a datagram arrive; none: it is lost.
	route func(from, to *node, msg []byte) []time.Duration

	next    uint64            // id of the next packet
	sealed  map[uint64]*node  // packets on their way, and whose they are
	dropped map[uint64]bool   // by the network
	arrived map[uint64]int    // how often
	under   map[uint64]uint32 // index of the session they arrived under
	trace   []sentMessage
	checks  bool // hold the machines to what must always be true
	steps   int
}

type sentMessage struct {
	at       time.Time
	from, to *node
	msg      []byte
}

type event struct {
	at    time.Time
	order int
	do    func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].order < h[j].order
	}
	return h[i].at.Before(h[j].at)
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// node is a machine with the rest of a node around it.
type node struct {
	w       *world
	name    string
	private identity.Secret
	m       *Machine
	addr    datagram.Source
	peers   map[*node]*Peer
	parked  map[*Peer][]uint64
	nonce   Nonce
	lag     func() time.Duration // of notes
	deaf    bool                 // nothing arrives

	actions map[ActionKind]int
	last    map[ActionKind]time.Time
}

const hop = 10 * time.Millisecond

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_800_000_000, 123_456_789),
		sealed: make(map[uint64]*node), dropped: make(map[uint64]bool), arrived: make(map[uint64]int),
		under: make(map[uint64]uint32), checks: true,
	}
	w.route = func(*node, *node, []byte) []time.Duration { return []time.Duration{hop} }
	return w
}

func (w *world) node(name string) *node {
	n := &node{w: w, name: name, addr: datagram.Source{
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(len(w.nodes) + 1)}), 1000),
	}}
	for i := range n.private {
		n.private[i] = byte(w.rng.Uint32())
	}
	w.nodes = append(w.nodes, n)
	n.start()
	return n
}

// start gives a node a new machine, as a restart does.
func (n *node) start() {
	m, err := New(n.private, n.w.now, rand.New(rand.NewPCG(n.w.rng.Uint64(), 2)))
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.m = m
	n.peers, n.parked = make(map[*node]*Peer), make(map[*Peer][]uint64)
	n.actions, n.last = make(map[ActionKind]int), make(map[ActionKind]time.Time)
}

func secret(b byte) identity.Secret { return identity.Secret{0: b, 31: 1} }

// knows makes another node a member.
func (n *node) knows(o *node, psks ...identity.Secret) *Peer {
	if len(psks) == 0 {
		psks = []identity.Secret{secret(1)}
	}
	p := NewPeer(o.m.Static().Public(), o, n.m.Notes())
	n.m.Add(p, psks)
	n.peers[o] = p
	return p
}

// pair is two nodes that know each other. The first has the lower key.
func pair(t testing.TB, seed uint64) (w *world, a, b *node) {
	w = newWorld(t, seed)
	a, b = w.node("a"), w.node("b")
	ka, kb := a.m.Static().Public(), b.m.Static().Public()
	if string(ka[:]) > string(kb[:]) {
		a, b = b, a
		a.name, b.name = "a", "b"
	}
	a.knows(b)
	b.knows(a)
	return w, a, b
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{at: w.now.Add(d), order: w.order, do: do})
}

// run lets time pass.
func (w *world) run(d time.Duration) { w.until(w.now.Add(d), func() bool { return false }) }

// until runs until a condition or a time; it tells whether the condition came true.
func (w *world) until(end time.Time, done func() bool) bool {
	for !done() {
		at, do := end.Add(1), func() {}
		if len(w.events) > 0 {
			at = w.events[0].at
			do = func() { heap.Pop(&w.events).(event).do() }
		}
		for _, n := range w.nodes {
			if next := n.m.Next(w.now); !next.IsZero() && next.Before(at) {
				at, do = next, func() { n.perform(n.m.Tick(w.now)) }
			}
		}
		if at.After(end) {
			w.now = end
			return done()
		}
		if at.After(w.now) {
			w.now = at
		}
		do()
		w.steps++
		for _, n := range w.nodes {
			n.listen()
			if w.checks && (w.steps < 200 || w.steps%64 == 0) {
				n.check()
			}
		}
	}
	return true
}

// listen takes the machine's notes, at once or later.
func (n *node) listen() {
	select {
	case <-n.m.Notes().Wake:
	default:
		return
	}
	if n.lag == nil {
		n.perform(n.m.TakeNotes(n.w.now))
		return
	}
	m := n.m
	n.w.after(n.lag(), func() {
		if n.m == m {
			n.perform(m.TakeNotes(n.w.now))
		}
	})
}

func (n *node) perform(actions []Action) {
	w := n.w
	for _, a := range actions {
		to := a.Peer.Owner.(*node)
		n.actions[a.Kind]++
		n.last[a.Kind] = w.now
		switch a.Kind {
		case ActInitiate, ActReply:
			w.transmit(n, to, a.Message)
		case ActKeepalive:
			n.seal(a.Peer, 0)
		case ActEstablished:
			parked := n.parked[a.Peer]
			delete(n.parked, a.Peer)
			for _, id := range parked {
				n.seal(a.Peer, id)
			}
			if len(parked) == 0 {
				n.seal(a.Peer, 0)
			}
		}
	}
}

// send sends a packet, or has it wait for a session. It returns the packet's id.
func (n *node) send(to *node) uint64 {
	n.w.next++
	id := n.w.next
	if p := n.peers[to]; !n.seal(p, id) {
		n.parked[p] = append(n.parked[p], id)
	}
	n.listen()
	return id
}

// seal is what the packet path does with a packet; id 0 is a keepalive.
func (n *node) seal(p *Peer, id uint64) bool {
	w := n.w
	at := n.m.Clock().At(w.now)
	s := p.Acquire(at)
	if s == nil {
		return false
	}
	defer s.Release()
	counter, ok := s.Reserve(1)
	if !ok {
		return false
	}
	size := 0
	if id != 0 {
		size = padding
	}
	buf := make([]byte, size+Overhead)
	if id != 0 {
		binary.LittleEndian.PutUint64(buf[HeaderSize:], id)
		w.sealed[id] = n
	}
	buf = buf[:s.Seal(&n.nonce, buf, size, counter)]
	to := p.Owner.(*node)
	if w.transmit(n, to, buf) == 0 && id != 0 {
		w.dropped[id] = true
	}
	p.Sent(at, len(buf), id != 0)
	return true
}

// transmit gives a datagram to the network and tells how many copies will arrive.
func (w *world) transmit(from, to *node, msg []byte) int {
	w.trace = append(w.trace, sentMessage{at: w.now, from: from, to: to, msg: msg})
	delays := w.route(from, to, msg)
	for _, d := range delays {
		w.after(d, func() { to.receive(from, msg) })
	}
	return len(delays)
}

func (n *node) receive(from *node, msg []byte) {
	if n.deaf {
		return
	}
	msg = append([]byte(nil), msg...)
	switch noise.TypeOf(msg) {
	case noise.TypeInitiation:
		n.perform(n.m.Initiation(n.w.now, msg, &from.addr))
	case noise.TypeResponse:
		n.perform(n.m.Response(n.w.now, msg, &from.addr))
	case noise.TypeCookieReply:
		n.perform(n.m.CookieReply(n.w.now, msg))
	case noise.TypeData:
		n.open(msg)
	}
}

func (n *node) open(msg []byte) {
	at := n.m.Clock().At(n.w.now)
	s := n.m.Table().Acquire(msg, at)
	if s == nil {
		return
	}
	defer s.Release()
	pkt, counter, err := s.Open(&n.nonce, msg)
	if err != nil {
		return
	}
	var stale [1]bool
	if s.Fresh([]uint64{counter}, stale[:]); stale[0] {
		return
	}
	if len(pkt) > 0 {
		id := binary.LittleEndian.Uint64(pkt)
		n.w.arrived[id]++
		n.w.under[id] = s.local
	}
	s.Peer.Received(at, s, len(msg), len(pkt) > 0)
	if s.dead.Load() {
		n.w.t.Errorf("%s: a dead session was acquired", n.name)
	}
}

// lost counts packets that were sent, and neither arrived nor were dropped by the network, and fails on duplicates.
func (w *world) lost() (lost int) {
	for id := range w.sealed {
		switch got := w.arrived[id]; {
		case got > 1:
			w.t.Errorf("packet %d arrived %d times", id, got)
		case got == 0 && !w.dropped[id]:
			lost++
		}
	}
	return lost
}

// flow sends from one node to another at an interval, until it is over.
func (w *world) flow(from, to *node, every, d time.Duration) {
	end := w.now.Add(d)
	var next func()
	next = func() {
		if w.now.After(end) {
			return
		}
		from.send(to)
		w.after(every, next)
	}
	w.after(0, next)
}

// sent lists when a node sent messages of a type.
func (w *world) sent(from *node, kind byte) (at []time.Time) {
	for _, s := range w.trace {
		if s.from == from && s.msg[0] == kind {
			at = append(at, s.at)
		}
	}
	return at
}

// keepalives counts the empty packets of a node.
func (w *world) keepalives(from *node) (count int) {
	for _, s := range w.trace {
		if s.from == from && s.msg[0] == noise.TypeData && len(s.msg) == Overhead {
			count++
		}
	}
	return count
}

// session is the one that a node sends to another with.
func (n *node) session(to *node) *Session { return n.peers[to].current.Load() }

// agree reports whether both nodes send under the same session.
func agree(a, b *node) bool {
	sa, sb := a.session(b), b.session(a)
	return sa != nil && sb != nil && sa.local == sb.remote && sa.remote == sb.local
}

// connect has a session made.
func (w *world) connect(a, b *node) {
	w.t.Helper()
	id := a.send(b)
	if !w.until(w.now.Add(5*time.Second), func() bool { return w.arrived[id] > 0 }) {
		w.t.Fatal("not connected")
	}
	w.run(time.Second)
	if !agree(a, b) {
		w.t.Fatal("no common session")
	}
}
