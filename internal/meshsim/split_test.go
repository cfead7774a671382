package meshsim

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestSplitHeals parts a network for an hour, lets either half let somebody in and one revoke a member, and joins the
// halves: all know the same soon after.
func TestSplitHeals(t *testing.T) {
	const half, healed = 20, 30 * time.Second
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	n, err := New(2*half+2, seed)
	if err != nil {
		t.Fatal(err)
	}
	n.ctx = t.Context()
	founding := make([]int, 2*half)
	for i := range founding {
		founding[i] = i
	}
	up := func(x *node, knows []int) {
		store, err := n.people.Store(knows...)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.start(x, store); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range n.nodes[:2*half] {
		up(x, founding)
	}
	members := func(want int) bool {
		first := n.nodes[0].v.Knows()
		for _, x := range n.nodes {
			if k := x.v; k != nil && x != n.nodes[3] && (k.Knows() != first || first.Members != want) {
				return false
			}
		}
		return true
	}
	if _, err := n.until("everybody to know all", func() bool { return members(2 * half) }); err != nil {
		t.Fatal(err)
	}
	for i, x := range n.nodes {
		x.side = i % 2
	}
	n.world.RunFor(30 * time.Minute)
	up(n.nodes[2*half], append([]int{2 * half}, founding...)) // who was let in there knows who is
	up(n.nodes[2*half+1], append([]int{2*half + 1}, founding...))
	if err := n.nodes[0].v.Mesh().RevokeMember(n.nodes[3].id, false); err != nil {
		t.Fatal(err)
	}
	n.nodes[0].wake()
	n.world.RunFor(30 * time.Minute)
	for i, x := range n.nodes[:2*half] {
		if k := x.v.Knows(); i%2 == 0 && k.Members != 2*half || i%2 == 1 && k.Members != 2*half+1 {
			t.Fatalf("node %d of side %d knows %d members", i, x.side, k.Members)
		}
	}
	for _, x := range n.nodes {
		x.side = 0
	}
	took, err := n.until("both halves to know the same", func() bool { return members(2*half + 1) })
	t.Logf("the same everywhere after %v", took)
	if err != nil || took > healed {
		t.Errorf("after %v: %v", took, err)
	}
}
