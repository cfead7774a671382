package magicsock

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/hop"
	"github.com/meshnet/meshnet/netmap"
)

// emit sends by an address, or by a session at one.
func (n *simNode) emit(by way, pkt []byte) {
	if by.sid != 0 {
		pkt = append(binary.BigEndian.AppendUint64(nil, hop.Header(by.sid)), pkt...)
	}
	n.socketOf(by).Send(by.addr, pkt)
}

// takeHop handles what member relays are about, as the intake does.
func (n *simNode) takeHop(from way, pkt []byte) bool {
	if isBind(pkt) {
		n.core.handleBind(n.now(), line{way: from}, pkt)
		return true
	}
	sid, size := hop.Run(pkt, len(pkt))
	if size == 0 {
		return false
	}
	from.sid = sid
	if n.core.hasSession(from) {
		n.take(from, pkt[hop.HeaderSize:])
		return true
	}
	to, _, verdict := n.core.serving.table.Forward(n.now(), from.addr, sid, size, size)
	if verdict == hop.Pass {
		n.socket.Send(to.Addr, pkt)
	} else if hint := n.core.serving.table.Hint(n.now(), from.addr, sid, verdict); hint != nil {
		n.socket.Send(from.addr, hint)
	}
	return true
}

// relayed is two nodes behind NATs and members in the open that relay; there is no relay server.
type relayed struct {
	t      *testing.T
	w      *sim.World
	net    *sim.Network
	nats   [2]*sim.NAT
	a, b   *simNode
	relays []*simNode
	taken  map[uint64]time.Duration // by number: when it came to b
	last   time.Duration            // when the last one did
	count  int
}

func newRelayed(t *testing.T, kinds [2]sim.NATKind, relays int) *relayed {
	t.Helper()
	t.Logf("seed %d", simSeed)
	m := &relayed{t: t, w: sim.New(simSeed), taken: make(map[uint64]time.Duration)}
	m.net = m.w.Network(sim.Link{Delay: 15 * time.Millisecond, Jitter: 2 * time.Millisecond})
	nobody := &simRelay{world: m.w, down: true}
	servers := stunServers(m.net)
	var outside, inside [2]netip.Addr
	for i := range outside {
		outside[i], inside[i] = netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + i)}), netip.AddrFrom4([4]byte{10, 0, byte(i), 2})
		m.nats[i] = m.net.NAT(kinds[i], outside[i])
	}
	m.a = newSimNode(m.w, 1, m.nats[0].Host(inside[0]), inside[0].String()+":41820")
	m.b = newSimNode(m.w, 2, m.nats[1].Host(inside[1]), inside[1].String()+":41820")
	for i := range relays {
		at := netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)})
		r := newSimNode(m.w, byte(10+i), m.net.Host(at), at.String()+":41820")
		r.core.serving.on.Store(true)
		m.relays = append(m.relays, r)
	}
	nobody.join(m.all()...)
	for _, n := range m.all() {
		n.stun.ask(n, servers)
	}
	m.w.RunFor(time.Second)
	m.meet()
	m.b.taken = func(_ *simNode, n, _ uint64) {
		m.last = m.w.Now().Sub(sim.Epoch)
		m.count++
		if m.taken[n] == 0 {
			m.taken[n] = m.last
		}
	}
	m.w.RunFor(2 * time.Second) // homes become warm
	return m
}

func (m *relayed) all() []*simNode { return append([]*simNode{m.a, m.b}, m.relays...) }

// meet gives everybody the map, and a and b the relays for homes.
func (m *relayed) meet() {
	for _, n := range m.all() {
		var peers []netmap.Peer
		for _, other := range m.all() {
			if other != n {
				peers = append(peers, m.entry(other))
			}
		}
		n.know(peers...)
	}
	homes := m.homes()
	for _, n := range []*simNode{m.a, m.b} {
		n.core.setHomes(n.now(), homes)
		n.act()
	}
}

func (m *relayed) homes() (ids []identity.PeerID) {
	for _, r := range m.relays[:min(len(m.relays), 2)] {
		ids = append(ids, r.id.ID())
	}
	return ids
}

func (m *relayed) entry(n *simNode) netmap.Peer {
	p := n.peer(n.stun.endpoints(n)...)
	p.NAT, p.Relays = n.core.nat, slices.Contains(m.relays, n)
	if !p.Relays {
		for _, id := range m.homes() {
			p.Homes = append(p.Homes, netmap.Home{Member: id})
		}
	}
	return p
}

// talk has a send every 20 ms, and b as well.
func (m *relayed) talk(d time.Duration) {
	stop := m.w.Now().Add(d)
	var turn func()
	turn = func() {
		m.a.sendData(m.b)
		m.b.sendData(m.a)
		if m.w.Now().Before(stop) {
			m.w.After(20*time.Millisecond, turn)
		}
	}
	m.w.After(0, turn)
}

// arrives waits until data comes to b again, and returns how long that took.
func (m *relayed) arrives(within time.Duration) time.Duration {
	m.t.Helper()
	start, before := m.w.Now(), m.count
	if !m.w.RunUntil(func() bool { return m.count > before }, within) {
		m.t.Fatalf("no data within %v: %+v", within, m.a.core.count.snapshot())
	}
	return m.w.Now().Sub(start)
}

func (m *relayed) info() PeerInfo {
	return m.a.core.info(m.a.now(), m.a.core.peer(m.a.now(), m.b.id.ID()))
}

// via is the relay that a's data goes by.
func (m *relayed) via() *simNode {
	path := m.info().Path
	for _, r := range m.relays {
		if path.Kind == PathMember && path.Via == r.id.ID() {
			return r
		}
	}
	return nil
}

func (m *relayed) sessions() (n int) {
	for _, r := range m.relays {
		n += r.core.serving.table.Counters().Sessions
	}
	return n
}

// TestSimMemberRelay brings two hard NATs together by a member in the open, at once.
func TestSimMemberRelay(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 1)
	m.talk(time.Minute)
	took := m.arrives(1500 * time.Millisecond)
	t.Logf("data after %v", took)
	m.w.RunFor(30 * time.Second)
	info := m.info()
	if info.Path.Kind != PathMember || info.Path.Via != m.relays[0].id.ID() || info.Reason != "member: "+reasonHard {
		t.Fatalf("path %+v, because %q", info.Path, info.Reason)
	}
	if m.sessions() != 1 {
		t.Fatalf("%d sessions for one pair", m.sessions())
	}
	if m.count < 30*50*95/100 {
		t.Fatalf("%d datagrams in 30 s", m.count)
	}
	if n := m.relays[0].core.serving.table.Counters(); n.OverRate+n.Gone+n.Unbound != 0 {
		t.Fatalf("dropped: %+v", n)
	}
	m.w.RunFor(5 * time.Minute) // nobody talks any more
	if m.sessions() != 0 || len(m.a.core.hops.bound)+len(m.b.core.hops.bound) != 0 {
		t.Fatalf("%d sessions of silent nodes", m.sessions())
	}
	m.talk(time.Minute)
	t.Logf("data after silence: %v", m.arrives(1500*time.Millisecond))
}

// TestSimMemberRelayOfEasyNATs gives the direct path its time first, and leaves the relay for it.
func TestSimMemberRelayOfEasyNATs(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.PortRestricted, sim.PortRestricted}, 1)
	m.talk(time.Minute)
	m.arrives(1500 * time.Millisecond)
	m.w.RunFor(3 * time.Second)
	if info := m.info(); info.Path.Kind != PathDirect {
		t.Fatalf("path %+v, because %q", info.Path, info.Reason)
	}
}

// TestSimRelayDies ends the relay that data goes by: another one takes over.
func TestSimRelayDies(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 3)
	m.talk(2 * time.Minute)
	m.arrives(1500 * time.Millisecond)
	m.w.RunFor(5 * time.Second)
	first := m.via()
	if first == nil {
		t.Fatalf("path %+v", m.info().Path)
	}
	m.net.SetDown(first.host, true)
	m.w.RunFor(50 * time.Millisecond) // for what is on its way
	took := m.arrives(3 * time.Second)
	t.Logf("data again after %v", took)
	m.w.RunFor(10 * time.Second)
	if second := m.via(); second == nil || second == first {
		t.Fatalf("path %+v, because %q", m.info().Path, m.info().Reason)
	}
	if took > 2*time.Second {
		t.Fatalf("data was out for %v", took)
	}
}

// TestSimRelayRestarts has the relay forget its sessions: they are opened anew.
func TestSimRelayRestarts(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 1)
	m.talk(2 * time.Minute)
	m.arrives(1500 * time.Millisecond)
	m.w.RunFor(5 * time.Second)
	r := m.relays[0]
	r.timer.Stop()
	r.core = newCore(r.id, disco.BootID{99}, rand.New(rand.NewPCG(simSeed, 99)))
	r.core.serving.on.Store(true)
	r.know(m.entry(m.a), m.entry(m.b))
	m.w.RunFor(50 * time.Millisecond)
	took := m.arrives(5 * time.Second)
	t.Logf("data again after %v", took)
	m.w.RunFor(5 * time.Second)
	if m.via() != r {
		t.Fatalf("path %+v, because %q", m.info().Path, m.info().Reason)
	}
	if took > 2*time.Second {
		t.Fatalf("data was out for %v", took)
	}
}

// TestSimRelayWithoutConsent has the first relay refuse: the next one is asked.
func TestSimRelayWithoutConsent(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 3)
	for _, r := range m.relays[:2] {
		r.core.serving.consent = func(from, to identity.PeerID) bool { return false }
	}
	m.talk(time.Minute)
	took := m.arrives(1500 * time.Millisecond)
	if m.via() != m.relays[2] {
		t.Fatalf("path %+v", m.info().Path)
	}
	t.Logf("data after %v", took)
	m.w.RunFor(30 * time.Second)
	if asked := m.a.core.count.relayAsked.Load(); asked > 20 {
		t.Fatalf("asked %d times", asked)
	}
}

// TestSimRelayThatServesNot asks members that do not relay any more, though the map says so: now and then, no more.
func TestSimRelayThatServesNot(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 2)
	for _, r := range m.relays {
		r.core.serving.on.Store(false)
	}
	m.talk(5 * time.Minute)
	m.w.RunFor(5 * time.Minute)
	if asked := m.a.core.count.relayAsked.Load(); m.count != 0 || asked < 8 || asked > 40 {
		t.Fatalf("%d datagrams, asked %d times", m.count, asked)
	}
}

// TestSimRelayKeepsItsRate sends more than the relay carries.
func TestSimRelayKeepsItsRate(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 1)
	const rate = 100_000
	m.relays[0].core.serving = newServing(MemberRelay{Serve: true, Rate: rate})
	m.talk(30 * time.Second)
	m.arrives(1500 * time.Millisecond)
	before := m.relays[0].core.serving.table.Counters().Passed
	for range 10 * 100 {
		for range 4 {
			m.a.sendSized(m.b, 1000)
		}
		m.w.RunFor(10 * time.Millisecond)
	}
	c := m.relays[0].core.serving.table.Counters()
	if passed := c.Passed - before; passed < 9*rate || passed > 12*rate+2<<16 || c.OverRate == 0 {
		t.Fatalf("%d bytes passed in 10 s at %d a second: %+v", passed, rate, c)
	}
	if m.via() == nil {
		t.Fatalf("path %+v, because %q", m.info().Path, m.info().Reason)
	}
}

// TestSimRelayAfterRebinding gives a's NAT other ports: the relay is told, and data goes on.
func TestSimRelayAfterRebinding(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 1)
	m.talk(time.Minute)
	m.arrives(1500 * time.Millisecond)
	m.w.RunFor(5 * time.Second)
	m.nats[0].Forget()
	m.w.RunFor(50 * time.Millisecond)
	took := m.arrives(3 * time.Second)
	t.Logf("data again after %v", took)
	if took > time.Second {
		t.Fatalf("data was out for %v", took)
	}
	moved := netip.MustParseAddr("10.0.0.77")
	m.a.host.SetAddrs(moved)
	m.a.core.linkChanged(m.a.now())
	m.a.act()
	m.w.RunFor(50 * time.Millisecond)
	took = m.arrives(3 * time.Second)
	t.Logf("data again after a move: %v", took)
	if took > time.Second || m.via() == nil {
		t.Fatalf("data was out for %v, path %+v", took, m.info().Path)
	}
}

// TestSimRelayOfARevokedMember ends its sessions.
func TestSimRelayOfARevokedMember(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 1)
	m.talk(time.Minute)
	m.arrives(1500 * time.Millisecond)
	m.relays[0].know(m.entry(m.b))
	if m.sessions() != 0 {
		t.Fatal("a session of a revoked member")
	}
	before := m.count
	m.w.RunFor(10 * time.Second)
	if m.count > before+5 || m.sessions() != 0 {
		t.Fatalf("%d datagrams of a revoked member", m.count-before)
	}
}

// TestSimPeerRefusesRelay has b not take the first relay for one: it refuses the offer, and the next relay is asked.
func TestSimPeerRefusesRelay(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 2)
	m.relays[1].host.SetLink(sim.Link{Delay: 20 * time.Millisecond}) // so that it is not the first
	for _, r := range m.relays {
		m.a.core.probeAll(m.a.now(), m.a.core.peer(m.a.now(), r.id.ID()))
	}
	m.a.act()
	m.w.RunFor(time.Second)
	var peers []netmap.Peer
	for _, n := range []*simNode{m.a, m.relays[0], m.relays[1]} {
		entry := m.entry(n)
		entry.Relays = n == m.relays[1]
		peers = append(peers, entry)
	}
	m.b.know(peers...)
	stop := m.w.Now().Add(time.Minute)
	var turn func()
	turn = func() { // only a talks: b would ask the other relay
		m.a.sendData(m.b)
		if m.w.Now().Before(stop) {
			m.w.After(20*time.Millisecond, turn)
		}
	}
	m.w.After(0, turn)
	t.Logf("data after %v", m.arrives(1500*time.Millisecond))
	if m.via() != m.relays[1] || m.sessions() != 1 || m.relays[0].core.serving.table.Counters().Opened != 1 {
		t.Fatalf("path %+v, %d sessions", m.info().Path, m.sessions())
	}
}

// TestSimMemberRelayUnderLoss finds its way with a tenth of the packets lost.
func TestSimMemberRelayUnderLoss(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 2)
	for _, r := range m.relays {
		r.host.SetLink(sim.Link{Loss: 0.1})
	}
	m.talk(5 * time.Minute)
	t.Logf("data after %v", m.arrives(3*time.Second))
	m.w.RunFor(5 * time.Minute)
	if m.count < 5*60*50*3/4 {
		t.Fatalf("%d datagrams of %d", m.count, 5*60*50)
	}
}

// TestRelaySignalsCountOnce has the relay hear a request again: as it was, and an older one after a newer.
func TestRelaySignalsCountOnce(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.Symmetric}, 1)
	r := m.relays[0].core
	p := m.a.core.peer(m.a.now(), m.relays[0].id.ID())
	keys := m.a.core.pairKeys(p)[0]
	ask := func(at time.Time, nonce byte) []byte {
		return keys.seal.SealSignal(m.a.core.ownTag(at, keys.secret), &disco.Signal{
			Kind: disco.RelayOpen, TxID: disco.NewTxID(), Time: at, Peer: m.b.id.ID(), Nonce: disco.Nonce{nonce},
		})
	}
	now := m.w.Now()
	first, second := ask(now, 1), ask(now.Add(time.Second), 2)
	for i, c := range []struct {
		pkt      []byte
		replayed uint64
	}{{first, 0}, {first, 1}, {second, 1}, {first, 2}, {second, 3}} {
		r.handleSignal(now, c.pkt)
		if got := r.count.replayedSignal.Load(); got != c.replayed {
			t.Fatalf("signal %d: %d replayed, want %d", i, got, c.replayed)
		}
	}
	r.handleSignal(now, ask(now.Add(-3*time.Minute), 3))
	if r.count.lateSignal.Load() != 1 || m.sessions() != 1 {
		t.Fatalf("%d sessions, %d late signals", m.sessions(), r.count.lateSignal.Load())
	}
}
