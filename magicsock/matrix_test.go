package magicsock

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/netmap"
)

// matrix is two nodes behind NATs, with a relay server, two STUN servers, and a count of what arrives.
type matrix struct {
	w     *sim.World
	net   *sim.Network
	relay *simRelay
	a, b  *simNode
	first [2]time.Duration // when data came first, at a and at b
	ranks [2]map[uint64]int
}

// matrixKinds are the kinds of NATs that are paired.
var matrixKinds = []sim.NATKind{sim.NATNone, sim.FullCone, sim.AddressRestricted, sim.PortRestricted, sim.Symmetric}

func newMatrix(seed uint64, a, b sim.NATKind) *matrix {
	m := &matrix{w: sim.New(seed)}
	m.net = m.w.Network(sim.Link{Delay: 15 * time.Millisecond, Jitter: 2 * time.Millisecond})
	m.relay = &simRelay{world: m.w, delay: 40 * time.Millisecond}
	servers := stunServers(m.net)
	m.a = m.node(1, a, "203.0.113.1", "10.0.0.2")
	m.b = m.node(2, b, "198.51.100.1", "10.0.0.3")
	m.relay.join(m.a, m.b)
	for i, n := range []*simNode{m.a, m.b} {
		m.ranks[i] = make(map[uint64]int)
		n.taken = func(_ *simNode, _, rank uint64) {
			m.ranks[i][rank]++
			if m.first[i] == 0 {
				m.first[i] = m.w.Now().Sub(sim.Epoch)
			}
		}
		n.stun.ask(n, servers)
	}
	m.w.RunFor(time.Second)
	m.a.know(m.b.peer())
	m.b.know(m.a.peer())
	return m
}

// node is a host behind a NAT, or with the outside address.
func (m *matrix) node(seed byte, kind sim.NATKind, outside, inside string) *simNode {
	out := netip.MustParseAddr(outside)
	if kind == sim.NATNone {
		return newSimNode(m.w, seed, m.net.Host(out), outside+":41820")
	}
	nat := m.net.NAT(kind, out)
	nat.Timeout = 30 * time.Second // less than RFC 4787 asks for, as many do
	return newSimNode(m.w, seed, nat.Host(netip.MustParseAddr(inside)), inside+":41820")
}

// talk has a send every 20 ms, and b answer whatever comes.
func (m *matrix) talk(stop time.Time) {
	taken := m.b.taken
	m.b.taken = func(from *simNode, n, rank uint64) {
		taken(from, n, rank)
		m.b.sendData(m.a)
	}
	var turn func()
	turn = func() {
		m.a.sendData(m.b)
		if m.w.Now().Before(stop) {
			m.w.After(20*time.Millisecond, turn)
		}
	}
	m.w.After(0, turn)
}

func (m *matrix) direct() bool {
	ra, rb := m.a.route(m.b), m.b.route(m.a)
	return ra != nil && rb != nil && ra.first.direct() && rb.first.direct() && !ra.double && !rb.double
}

// wantsDirect reports whether two NATs let a direct path come about without guessing ports.
func wantsDirect(a, b sim.NATKind) bool {
	hard := func(x, y sim.NATKind) bool {
		return x == sim.Symmetric && (y == sim.Symmetric || y == sim.PortRestricted)
	}
	return !hard(a, b) && !hard(b, a)
}

// TestSimMatrix lets every pair of NATs talk: at once by the relay server, and directly within 3 s where that is possible.
func TestSimMatrix(t *testing.T) {
	var table strings.Builder
	for _, a := range matrixKinds {
		for _, b := range matrixKinds {
			m := newMatrix(simSeed, a, b)
			start := m.w.Now()
			m.talk(start.Add(time.Minute))
			took := time.Duration(-1)
			if m.w.RunUntil(m.direct, 20*time.Second) {
				took = m.w.Now().Sub(start)
			}
			m.w.Run(start.Add(time.Minute))
			fmt.Fprintf(&table, "%-18s %-18s first reply %3d ms, direct %v\n", a, b, (m.first[0]-time.Second)/time.Millisecond, took)
			if reply := m.first[0] - time.Second; reply <= 0 || reply > 500*time.Millisecond {
				t.Errorf("%v to %v: first reply after %v", a, b, reply)
			}
			never, soon := a == sim.Symmetric && b == sim.Symmetric, wantsDirect(a, b) // else by guessing ports
			if never != (took < 0) || soon && took > 3*time.Second || took > 10*time.Second {
				t.Errorf("%v to %v: direct after %v", a, b, took)
			}
			reason := m.a.core.info(m.a.now(), m.a.core.peers[m.b.id.ID()]).Reason
			if both := a == sim.Symmetric && b == sim.Symmetric; both && reason != "relay: "+reasonHard {
				t.Errorf("%v to %v: %q", a, b, reason)
			} else if !both && took < 0 && reason != "relay: "+reasonSilent {
				t.Errorf("%v to %v: %q", a, b, reason)
			}
			if nat := m.a.core.nat; (nat == netmap.NATHard) != (a == sim.Symmetric) || (nat == netmap.NATNone) != (a == sim.NATNone) {
				t.Errorf("%v: the test's STUN finds %v", a, nat)
			}
		}
	}
	t.Logf("seed %d\n%s", simSeed, table.String())
}
