package meshsim

import (
	"context"
	"fmt"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/sim"
)

// Net is a network in virtual time. Owned by one goroutine.
type Net struct {
	ctx    context.Context // of the run
	world  *sim.World
	people *control.VirtualNetwork
	shared *ledger.Shared
	nodes  []*node
	byID   map[identity.PeerID]*node
}

// begun is when every run begins, by the nodes' clocks.
var begun = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

// now is the nodes' clock.
func (n *Net) now() time.Time { return begun.Add(n.world.Now().Sub(sim.Epoch)) }

// New makes a network of a number of members that all are down.
func New(members int, seed uint64) (*Net, error) {
	people, err := control.NewVirtualNetwork(members, seed, begun)
	if err != nil {
		return nil, err
	}
	n := &Net{
		world: sim.New(seed), people: people, shared: new(ledger.Shared), byID: make(map[identity.PeerID]*node),
	}
	for i := range members {
		x := &node{
			net: n, id: people.Member(i).ID(), number: i, ends: make(map[*end]struct{}),
			place: time.Duration(n.world.Rand().Int64N(int64(45*time.Millisecond))) + 2*time.Millisecond,
		}
		n.nodes = append(n.nodes, x)
		n.byID[x.id] = x
	}
	return n, nil
}

// start takes a node up with what it knows.
func (n *Net) start(x *node, store *control.Store) error {
	x.boot++
	v, err := control.NewVirtual(control.Config{
		Identity: n.people.Member(x.number), Store: store, Boot: [8]byte{x.boot, 1}, Version: "1.0.0",
		Name: fmt.Sprintf("node-%05d", x.number), Port: control.Port, Now: n.now, Shared: n.shared,
		Keepalive: x.keepalive, Heard: func(id identity.PeerID) time.Time { return x.heard[id] },
	})
	if err != nil {
		return err
	}
	x.v, x.heard = v, make(map[identity.PeerID]time.Time)
	x.wake()
	return nil
}

// connect makes a session of two nodes.
func (n *Net) connect(from, to *node) {
	a, b := &end{node: from, dialled: true}, &end{node: to}
	a.far, b.far = b, a
	for _, e := range []*end{a, b} {
		e.opened = n.world.Now()
		e.node.ends[e] = struct{}{}
		s, err := e.node.v.Open(e.far.node.id, e.dialled, e.wake, e.abort)
		e.session = s
		if err != nil {
			e.close(err)
			return
		}
	}
	for _, e := range []*end{a, b} {
		e.wake()
		e.rekey()
	}
}

// delay is one way, with a jitter of a tenth.
func (n *Net) delay(a, b *node) time.Duration {
	d := a.place + b.place
	return d + time.Duration(n.world.Rand().Int64N(int64(d)/10+1))
}

// sessions is how many sessions nodes have, on average and at most.
func (n *Net) sessions() (mean float64, most int) {
	total := 0
	for _, x := range n.nodes {
		total += len(x.ends)
		most = max(most, len(x.ends))
	}
	return float64(total) / float64(len(n.nodes)), most
}

// agreed reports whether all nodes that run know all members' cards, and the same of everything.
func (n *Net) agreed() bool {
	var first *control.Knowledge
	for _, x := range n.nodes {
		if x.v == nil {
			continue
		}
		k := x.v.Knows()
		if k.Members != len(n.nodes) || k.Cards != len(n.nodes) || first != nil && *first != k {
			return false
		}
		first = &k
	}
	return first != nil
}
