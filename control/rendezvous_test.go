package control

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/join"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/netmap"
)

// underlay is the address of a member's socket.
func (m *member) underlay() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(m.index + 1)}), 41820)
}

// carry brings a datagram of joining to the member that has the address or, by relay, to the member or guest of that id.
func (w *world) carry(from *member, to datagram.Place, pkt []byte) {
	back := datagram.Place{Addr: from.underlay()}
	if to.IsRelay() {
		back = datagram.Place{Relay: from.id.ID()}
		if g, ok := w.guests.Load(to.Relay); ok {
			g.(*guest).take(back, pkt)
		}
	}
	for _, m := range w.members {
		if m.mesh == nil || to.IsRelay() && to.Relay != m.id.ID() || !to.IsRelay() && (w.udpBlocked || to.Addr != m.underlay()) {
			continue
		}
		m.mesh.HandleRendezvous(back, bytes.Clone(pkt))
	}
}

// TestMemberIntroducesItself meets a member that has not heard of its admission: the Intro brings the proof, both
// learn where the other is, and a session follows.
func TestMemberIntroducesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		w.streams.Cut(w.founder.control(), sim.Reset)
		fresh := w.admit(w.founder)
		fresh.start()
		time.Sleep(3 * time.Second)
		if old.mesh.Map().Peer(fresh.id.ID()) != nil {
			t.Fatal("the old member heard of the new one: the test proves nothing")
		}
		fresh.mesh.Introduce([]netip.AddrPort{old.underlay()})
		w.until("the old member knows the new one", 5*time.Second, func() bool {
			return old.saw(EventFound, fresh) == 1 && fresh.saw(EventFound, old) == 1 && old.mesh.Map().Peer(fresh.id.ID()) != nil
		})
		w.until("a session", 70*time.Second, func() bool { return len(fresh.mesh.Sessions()) == 1 })
	})
}

// TestLostContactByRelay: a member that another one has not heard of has no address of it that works, but knows that a
// relay server leads there.
func TestLostContactByRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.udpBlocked = true
		old := w.admit(w.founder)
		freshID := identity.FromSeed(identity.Secret{1, 2}).ID()
		w.apart = func(a, b netip.Addr) bool { // no tunnel leads to a member that does not know one
			return a == netmap.ControlAddr(w.ledger.Genesis().ID, freshID) && b == old.control() && old.mesh.Map().Peer(freshID) == nil
		}
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		old.mesh.SetReach(Reachability{Homes: []netmap.Home{{Relay: relayURL}}})
		w.streams.Cut(w.founder.control(), sim.Reset)
		fresh := w.admit(w.founder)
		if fresh.id.ID() != freshID {
			t.Fatal("another member is cut off")
		}
		old.mesh.mu.Lock()
		fresh.store.facts = append(fresh.store.facts, reachFact(old.mesh.myReach))
		old.mesh.mu.Unlock()
		fresh.start()
		w.until("both know each other", 10*time.Second, func() bool {
			return old.saw(EventFound, fresh) > 0 && fresh.saw(EventFound, old) > 0 && old.mesh.Map().Peer(fresh.id.ID()) != nil
		})
		w.until("a session", 70*time.Second, func() bool { return len(fresh.mesh.Sessions()) == 1 })
		old.mu.Lock()
		defer old.mu.Unlock()
		for _, e := range old.events {
			if e.Type == EventFound && e.Place != (datagram.Place{Relay: fresh.id.ID()}) {
				t.Errorf("found at %v", e.Place)
			}
		}
	})
}

// TestRevokedMemberHearsNothing introduces a revoked member: silence.
func TestRevokedMemberHearsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gone := w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		w.streams.Cut(gone.control(), sim.Reset) // it does not hear of it
		if err := w.founder.mesh.RevokeMember(gone.id.ID(), false); err != nil {
			t.Fatal(err)
		}
		gone.mesh.Introduce([]netip.AddrPort{w.founder.underlay()})
		time.Sleep(time.Minute)
		if gone.saw(EventFound, nil) != 0 || w.founder.saw(EventFound, nil) != 0 {
			t.Fatal("a revoked member was answered")
		}
	})
}

// TestProvisionalPeersAreBounded asks with many identities: the number of provisional peers is limited, and they go.
func TestProvisionalPeersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.startAll()
		defer w.stopAll()
		m := w.founder.mesh
		token, err := m.NewInvite(nil, time.Hour, 0)
		if err != nil {
			t.Fatal(err)
		}
		answerer := join.NewAnswerer(w.founder.id)
		now := time.Now()
		accepted := 0
		for i := range 2 * maxProvisional {
			id := identity.FromSeed(identity.Secret{9, byte(i)})
			admit := ledger.NewAdmit(id, token.Network, token.InviteID(), token.Seed)
			from := datagram.Place{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 1}), 1)}
			asker := join.NewAsker(join.AskerConfig{
				Self: id, Network: token.Network, ID: ledger.Short(token.InviteID()), PSK: token.PSK,
				Content: join.Content{Admit: admit.Raw, Invite: token.Invite.Marshal()},
			})
			now = now.Add(time.Second) // within every budget; the provisional peers' time stands still
			if reply := knock(t, answerer, m, asker, from, now); reply != nil && reply.Word == "" {
				accepted++
			}
		}
		if accepted != maxProvisional {
			t.Fatalf("%d provisional peers, want %d", accepted, maxProvisional)
		}
		time.Sleep(provisionalFor + 2*time.Second)
		m.mu.Lock()
		left := len(m.provisional)
		m.mu.Unlock()
		if left != 0 {
			t.Fatalf("%d provisional peers stayed", left)
		}
	})
}

// knock goes through Intro, cookie, Intro, answer.
func knock(t *testing.T, a *join.Answerer, m *Mesh, asker *join.Asker, from datagram.Place, now time.Time) *join.Answer {
	t.Helper()
	to := datagram.Place{Addr: netip.MustParseAddrPort("192.0.2.1:41820")}
	if err := asker.Ask(now, to); err != nil {
		t.Fatal(err)
	}
	send, _ := asker.Due(now)
	reply, _ := a.Handle(now, m.view.Load(), from, send[0].Data)
	again, _ := asker.Handle(now, to, reply)
	if again == nil {
		t.Fatal("no cookie")
	}
	_, req := a.Handle(now, m.view.Load(), from, again.Data)
	if req == nil {
		t.Fatalf("no request: %+v", a.Counters())
	}
	_, answer := asker.Handle(now, to, m.decide(now, a, req))
	return answer
}

// TestClonedIdentity runs two nodes with one key: both are told, and they do not storm each other with cards.
func TestClonedIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		original := w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		m := original.mesh
		network := m.network.ID
		clone := func(seq uint64) []byte {
			c := *m.myCard
			c.Seq, c.Boot = seq, [8]byte{200}
			return c.sign(original.id, network).signed
		}
		merge := func(raw []byte) {
			if err := m.update(func(u *update) error { return m.mergeCard(u, raw) }); err != nil {
				t.Fatal(err)
			}
		}
		merge(clone(m.myCard.Seq + 5)) // an old life's card: go on above it
		if original.saw(EventIdentityCloned, nil) != 0 {
			t.Fatal("an old card of ours is no clone")
		}
		before := m.myCard.Seq
		for range 10 {
			merge(clone(m.myCard.Seq + 1))
		}
		time.Sleep(time.Second)
		if original.saw(EventIdentityCloned, nil) != 1 {
			t.Fatalf("told %d times", original.saw(EventIdentityCloned, nil))
		}
		if made := m.myCard.Seq - before; made > 3 {
			t.Fatalf("answered ten foreign cards with sequences up by %d within a second", made)
		}
	})
}
