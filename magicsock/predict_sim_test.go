package magicsock

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/magicsock/guess"
)

// simExtras are the extra sockets of a simulated node.
type simExtras struct {
	all  map[uint16]*sim.Socket
	last uint16
}

// follow carries out what core ordered, as Run does: a moment later.
func (n *simNode) follow(orders []order) {
	for _, o := range orders {
		n.world.After(time.Millisecond, func() {
			for _, id := range o.close {
				if s := n.extras.all[id]; s != nil {
					s.Close()
					delete(n.extras.all, id)
				}
			}
			if o.open == 0 {
				return
			}
			var ids []uint16
			for range o.open {
				ids = append(ids, n.extras.open(n))
			}
			n.core.opened(n.now(), o.peer, ids)
			n.act()
		})
	}
}

func (x *simExtras) open(n *simNode) uint16 {
	if x.all == nil {
		x.all = make(map[uint16]*sim.Socket)
	}
	x.last++
	id := x.last
	x.all[id] = n.host.Bind(0, func(from netip.AddrPort, pkt []byte) { n.take(way{addr: from, socket: id}, pkt) })
	return id
}

// socketOf is the socket that a way uses; a closed one sends nothing.
func (n *simNode) socketOf(by way) *sim.Socket {
	if by.socket == 0 {
		return n.socket
	}
	if s := n.extras.all[by.socket]; s != nil {
		return s
	}
	return n.host.Bind(0, func(netip.AddrPort, []byte) {})
}

// predicted plays a pair of NATs with one relay server, or with a member that relays. It returns how long it took until
// data went directly both ways; negative: it did not.
func predicted(t *testing.T, seed uint64, a, b sim.NATKind) (m *matrix, took time.Duration) {
	t.Helper()
	m = newMatrix(seed, a, b)
	start := m.w.Now()
	m.talk(start.Add(time.Minute))
	if !m.w.RunUntil(m.direct, 12*time.Second) {
		return m, -1
	}
	return m, m.w.Now().Sub(start)
}

// TestSimPrediction brings a hard NAT and one that filters by port together directly: nine times of ten within ten
// seconds, whoever of them begins.
func TestSimPrediction(t *testing.T) {
	for _, pair := range [][2]sim.NATKind{{sim.Symmetric, sim.PortRestricted}, {sim.PortRestricted, sim.Symmetric}} {
		t.Run(fmt.Sprintf("%v to %v", pair[0], pair[1]), func(t *testing.T) {
			const runs = 100
			var direct []time.Duration
			for seed := range uint64(runs) {
				m, took := predicted(t, seed, pair[0], pair[1])
				if took >= 0 && took <= 10*time.Second {
					direct = append(direct, took)
				}
				m.w.RunFor(15 * time.Second)
				for _, n := range []*simNode{m.a, m.b} {
					if pings := n.core.count.guessPings.Load(); pings > guess.MaxProbes {
						t.Fatalf("seed %d: %d pings", seed, pings)
					}
					if len(n.extras.all) > 2 || len(n.extras.all) != len(n.core.guesses.kept) {
						t.Fatalf("seed %d: %d sockets are still open, %d of them in use", seed, len(n.extras.all), len(n.core.guesses.kept))
					}
				}
				if took >= 0 && !m.direct() {
					t.Fatalf("seed %d: the direct path did not last", seed)
				}
			}
			slices.Sort(direct)
			if len(direct) < runs*9/10 {
				t.Fatalf("seeds 0 to %d: %d direct within 10 s", runs-1, len(direct))
			}
			t.Logf("seeds 0 to %d: %d direct within 10 s, median %v, nine of ten within %v",
				runs-1, len(direct), direct[len(direct)/2], direct[runs*9/10-1])
		})
	}
}

// TestSimPredictionByAMember needs no relay server: what members signal by way of one that relays is enough.
func TestSimPredictionByAMember(t *testing.T) {
	m := newRelayed(t, [2]sim.NATKind{sim.Symmetric, sim.PortRestricted}, 1)
	m.talk(time.Minute)
	m.arrives(1500 * time.Millisecond)
	if !m.w.RunUntil(func() bool { return m.info().Path.Kind == PathDirect }, 10*time.Second) {
		t.Fatalf("path %+v, because %q: %v", m.info().Path, m.info().Reason, m.a.core.count.snapshot())
	}
	t.Logf("direct after %v", m.w.Now().Sub(sim.Epoch)-3*time.Second)
	m.w.RunFor(30 * time.Second)
	if info := m.info(); info.Path.Kind != PathDirect || m.count < 30*50 {
		t.Fatalf("path %+v, %d datagrams", info.Path, m.count)
	}
}

// TestSimPredictionIsRare fails for good, as the port is one that nobody can meet, and tries less and less.
func TestSimPredictionIsRare(t *testing.T) {
	m := newMatrix(simSeed, sim.Symmetric, sim.PortRestricted)
	m.b.core.nat = 0
	m.a.broken = netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), 41820)
	m.talk(m.w.Now().Add(time.Hour))
	m.w.RunFor(time.Hour)
	for _, n := range []*simNode{m.a, m.b} {
		attempts, pings := n.core.count.guessAttempts.Load(), n.core.count.guessPings.Load()
		t.Logf("%d attempts, %d pings in an hour", attempts, pings)
		if attempts > 8 || pings > 8*guess.MaxProbes {
			t.Fatal("too many")
		}
		if len(n.extras.all) > 0 {
			t.Fatalf("%d sockets are still open", len(n.extras.all))
		}
	}
}

// TestSimNoPrediction leaves alone whom it does not help.
func TestSimNoPrediction(t *testing.T) {
	for _, pair := range [][2]sim.NATKind{
		{sim.Symmetric, sim.Symmetric},
		{sim.Symmetric, sim.NATNone},
		{sim.AddressRestricted, sim.Symmetric},
		{sim.PortRestricted, sim.PortRestricted},
	} {
		m := newMatrix(simSeed, pair[0], pair[1])
		m.talk(m.w.Now().Add(time.Minute))
		m.w.RunFor(time.Minute)
		for _, n := range []*simNode{m.a, m.b} {
			if n.core.count.guessPings.Load() > 0 || n.extras.last > 0 {
				t.Errorf("%v to %v: ports were guessed", pair[0], pair[1])
			}
		}
	}
}
