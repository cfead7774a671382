package control

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/netmap"
)

// TestDrawFromBefore makes random changes and compares the map, drawn from the one before, with one drawn from nothing.
func TestDrawFromBefore(t *testing.T) {
	c := newCrowd(t, 40)
	m := c.mesh(t, nothing)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	seq := uint64(10)
	changes := map[string]func(*identity.Identity) error{
		"card": func(id *identity.Identity) error {
			return m.update(func(u *update) error {
				return m.mergeCard(u, c.card(id, fmt.Sprintf("name-%d", rng.IntN(20)), seq).raw)
			})
		},
		"reach": func(id *identity.Identity) error {
			return m.update(func(u *update) error {
				return m.mergeReach(u, c.reach(id, seq, byte(rng.IntN(3)+1), 1).raw)
			})
		},
		"homes": func(id *identity.Identity) error {
			x := &Reach{Node: id.ID(), Seq: seq, NAT: uint64(rng.IntN(5)), Relays: rng.IntN(2) == 0}
			for i := range rng.IntN(3) {
				x.Homes = append(x.Homes, encodeHome(netmap.Home{Relay: fmt.Sprintf("https://relay%d.example", i)}))
			}
			return m.update(func(u *update) error { return m.mergeReach(u, x.sign(id, m.network.ID).signed) })
		},
		"offer": func(id *identity.Identity) error {
			x := &Card{Node: id.ID(), Seq: seq, Name: "relay", Relay: []string{"", "https://a.example", "https://b.example"}[rng.IntN(3)]}
			return m.update(func(u *update) error { return m.mergeCard(u, x.sign(id, m.network.ID).signed) })
		},
		"approve": func(id *identity.Identity) error {
			return m.Approve(id.ID(), ledger.OfferRelay, []string{"", "https://a.example"}[rng.IntN(2)], rng.IntN(3) > 0)
		},
		"own": func(*identity.Identity) error {
			m.SetReach(Reachability{NAT: netmap.NAT(rng.IntN(5))})
			return m.SetRelayURL([]string{"", "https://a.example"}[rng.IntN(2)])
		},
		"path": func(id *identity.Identity) error {
			m.PathWorks(id.ID(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(9))}), 1))
			m.hear()
			m.drawAt = time.Now()
			return nil
		},
		"revoke": func(id *identity.Identity) error {
			if rng.IntN(4) > 0 {
				return nil
			}
			return m.RevokeMember(id.ID(), false)
		},
		"invite": func(*identity.Identity) error {
			_, err := m.NewInvite(nil, time.Hour, 1)
			return err
		},
		"rekey": func(*identity.Identity) error {
			if rng.IntN(4) == 0 {
				m.store.network.Keys = slices.Insert(m.store.network.Keys, 0, identity.NewSecret())
			}
			return nil
		},
		"nothing": func(*identity.Identity) error { return nil },
	}
	kinds := []string{"card", "reach", "homes", "offer", "offer", "approve", "own", "path", "revoke", "invite", "rekey", "nothing"}
	served := 0
	for range 500 {
		seq++
		kind := kinds[rng.IntN(len(kinds))]
		for range 1 + rng.IntN(3) {
			id := c.ids[rng.IntN(len(c.ids))]
			m.changes = make(map[identity.PeerID]*bucket.Bucket) // as if time passed
			if err := changes[kind](id); err != nil && !errors.Is(err, ledger.ErrRevoked) {
				t.Fatalf("%s: %v", kind, err)
			}
		}
		before := m.Map()
		m.rebuild()
		got := m.Map()
		if kind == "nothing" && got != before {
			t.Fatal("nothing made a new map")
		}
		m.drawn, m.drawAt = drawn{}, time.Time{}
		m.current.Store(nil)
		m.rebuild()
		if d := netmap.Diff(got, m.Map()); !d.Empty() {
			t.Fatalf("after %s: %d added, %d changed, %d removed, self %v", kind, len(d.Added), len(d.Changed), len(d.Removed), d.Self)
		}
		for i := range m.Map().Peers {
			if m.Map().Peers[i].HasRole(netmap.RoleRelay) {
				served++
			}
		}
		m.organise()
		for i := range m.Map().Peers {
			if id := m.Map().Peers[i].ID; m.wants(id) && m.book.entry(id).place == 0 {
				t.Fatalf("%v does not wait to be dialled", id)
			}
		}
	}
	if served == 0 {
		t.Error("nobody ever was a relay")
	}
}

// TestDialQueue compares the queue with a sorted list.
func TestDialQueue(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	b, start := newBook(), time.Unix(1000, 0)
	waiting := map[identity.PeerID]bool{}
	for range 5000 {
		id := identity.PeerID{byte(rng.IntN(50))}
		now := start.Add(time.Duration(rng.IntN(300)) * time.Second)
		switch rng.IntN(6) {
		case 0:
			b.want(id)
			waiting[id] = true
		case 1:
			b.nudge(id)
		case 2:
			b.dialed(now, id, rng.IntN(3) == 0, rng.Float64())
		case 3:
			b.forget(id)
			delete(waiting, id)
		default:
			var first *bookEntry
			for id := range waiting {
				e := b.entry(id)
				if first == nil || e.next.Before(first.next) || e.next.Equal(first.next) && id.Compare(first.Node) < 0 {
					first = e
				}
			}
			got, ok := b.take(now)
			if due := first != nil && !now.Before(first.next); ok != due || ok && got != first.Node {
				t.Fatalf("took %v %v, want %v", got, ok, first)
			}
			if ok {
				delete(waiting, got)
			}
		}
		if len(b.queue) != len(waiting) {
			t.Fatalf("%d in the queue, want %d", len(b.queue), len(waiting))
		}
	}
	for b.queue.Len() > 0 {
		if e := heap.Pop(&b.queue).(*bookEntry); e.place != 0 {
			t.Fatal("out of the queue with a place in it")
		}
	}
}
