package relay_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// Relays come and go, hang, and lose their connections, while everybody sends to everybody; when that is over, everybody
// reaches everybody, and nobody has more homes or connections than there should be.
func TestPoolStorm(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	inBubble(t, func(t *testing.T, w *world) {
		rng := rand.New(rand.NewPCG(seed, 0))
		names := []string{"one", "two", "three", "four"}
		start := func(name string) {
			w.start(name, time.Duration(5+rng.IntN(100))*ms, relayserver.Config{})
		}
		for _, name := range names {
			start(name)
		}
		var nodes []*poolNode
		for i := range 6 {
			nodes = append(nodes, w.node(names[i%2]+" "+names[2+i%2]))
		}
		share := func() { // what everybody's reach says
			for _, a := range nodes {
				for _, b := range nodes {
					a.knows(b, namesOf(b.Homes()))
				}
			}
		}
		say := func() {
			for i, a := range nodes {
				for j, b := range nodes {
					if i != j {
						a.say(b, fmt.Sprintf("%d-%d", i, j))
						a.Reaches(b.id)
					}
				}
				a.Status()
			}
		}
		for range 200 {
			name := names[rng.IntN(len(names))]
			switch rng.IntN(6) {
			case 0:
				w.crash(name)
				start(name)
			case 1:
				w.shut(name)
				time.Sleep(time.Duration(rng.IntN(3000)) * ms)
				w.crash(name)
				start(name)
			case 2:
				w.each(name, (*wire).cut)
			case 3:
				w.hang(name, rng.IntN(2) == 0)
			case 4:
				nodes[rng.IntN(len(nodes))].LinkChanged()
			case 5:
				nodes[rng.IntN(len(nodes))].SetServers(urlsOf(name + " " + names[rng.IntN(len(names))]))
			}
			share()
			say()
			time.Sleep(time.Duration(rng.IntN(2000)) * ms)
		}
		for _, name := range names {
			w.hang(name, false)
		}
		time.Sleep(time.Minute)
		share()
		say() // some may learn only now that a peer is gone from where it was heard last
		time.Sleep(35 * time.Second)
		for _, n := range nodes {
			n.heard()
		}
		share()
		say()
		time.Sleep(5 * time.Second)
		for j, b := range nodes {
			got := " " + b.heard() + " "
			for i, a := range nodes {
				if i != j && !strings.Contains(got, fmt.Sprintf(" %d-%d ", i, j)) {
					t.Errorf("node %d, with homes %q and %q connected, did not reach node %d, with homes %q and %q connected",
						i, namesOf(a.Homes()), a.up(), j, namesOf(b.Homes()), b.up())
				}
			}
		}
		time.Sleep(2 * time.Minute)
		for i, n := range nodes {
			if up := strings.Fields(n.up()); len(up) != len(n.Homes()) || len(up) > relay.DefaultHomes || len(up) == 0 {
				t.Errorf("node %d is connected to %q", i, up)
			}
		}
	})
}
