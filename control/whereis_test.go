package control

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/netmap"
)

// ringed is a world so large that everybody has sessions with some only, once those are open.
func ringed(t *testing.T, members int) *world {
	w := newWorld(t)
	for range members - 1 {
		w.admit(w.founder)
	}
	for _, m := range w.members {
		m.learn(w.facts())
	}
	w.startAll()
	w.until("the ring", 2*time.Minute, func() bool {
		for _, m := range w.members {
			with := m.mesh.partners.Load()
			for _, id := range with.view.Ring.Wanted(ring.Ringed, m.id.ID(), nil) {
				if with.of[id] == nil {
					return false
				}
			}
		}
		return true
	})
	return w
}

func at(i byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 41820)
}

// far finds two members without a session with each other.
func (w *world) far() (a, b *member) {
	for _, a := range w.members {
		for _, b := range w.members {
			if a != b && a.mesh.partners.Load().of[b.id.ID()] == nil {
				return a, b
			}
		}
	}
	w.t.Fatal("everybody has a session with everybody")
	return nil, nil
}

// TestSignalsCrossRing signals between members of a network that is too large for a session of everybody with everybody.
func TestSignalsCrossRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ringed(t, 50)
		defer w.stopAll()
		sessions, most := 0, 0
		for _, m := range w.members {
			n := len(m.mesh.Sessions())
			sessions, most = sessions+n, max(most, n)
		}
		if most == 49 {
			t.Error("somebody has a session with everybody")
		}
		slowest := w.anyPair(200)
		carried, silences := uint64(0), uint64(0)
		for _, m := range w.members {
			carried += m.count("signals_forwarded")
			silences += m.count("signals_retried") + m.count("signals_given_up") + m.count("signals_lost")
			if n := m.count("signals_malformed") + m.count("signals_forged") + m.count("bad_peers"); n != 0 {
				t.Errorf("%v", m.mesh.Counters())
			}
		}
		t.Logf("%d sessions of a member on average, %d at most; the slowest signal took %v; %d frames carried, %d silences",
			sessions/50, most, slowest, carried, silences)
		w.silentHop()
	})
}

// anyPair has members drawn at random signal each other. It returns how long the slowest signal took.
func (w *world) anyPair(signals int) (slowest time.Duration) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range signals {
		a := rng.IntN(len(w.members))
		from, to := w.members[a], w.members[(a+1+rng.IntN(len(w.members)-1))%len(w.members)]
		pkt := strconv.Itoa(i)
		if !from.signal(to, pkt) {
			w.t.Fatal("nobody took it")
		}
		slowest = max(slowest, w.until("arrival", 5*time.Second, func() bool { return slices.Contains(to.got(), pkt) }))
		time.Sleep(100 * time.Millisecond)
	}
	return slowest
}

// silentHop: a signal whose next hop is gone without a word takes another way.
func (w *world) silentHop() {
	time.Sleep(time.Minute) // what was asked before is forgotten
	a, b := w.far()
	network, target := a.mesh.network.ID, ring.PositionOf(a.mesh.network.ID, b.id.ID())
	left := func(id identity.PeerID) ring.Position { return ring.PositionOf(network, id).To(target) }
	next := slices.MinFunc(a.mesh.Sessions(), func(x, y identity.PeerID) int { return left(x).Compare(left(y)) })
	w.streams.Cut(netmap.ControlAddr(network, next), sim.Blackhole)
	before := a.count("signals_retried")
	if !a.signal(b, "x") {
		w.t.Fatal("nobody took it")
	}
	took := w.until("arrival", 2*time.Second, func() bool { return slices.Contains(b.got(), "x") })
	w.t.Logf("past a silent hop after %v", took)
	if a.count("signals_retried") == before {
		w.t.Errorf("%v", a.mesh.Counters())
	}
}

// TestWhereIs: the reach of a member far away comes when there is a signal for it, and only once for several signals.
func TestWhereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ringed(t, 34)
		defer w.stopAll()
		time.Sleep(2 * time.Minute) // sessions that the ring does not ask for end
		a, b := w.far()
		a.mesh.SetReach(Reachability{Endpoints: []netip.AddrPort{at(1)}})
		b.mesh.SetReach(Reachability{Endpoints: []netip.AddrPort{at(2)}})
		time.Sleep(10 * time.Second)
		of := func(m, who *member) []netip.AddrPort { return m.mesh.Map().Peer(who.id.ID()).Endpoints }
		if len(of(a, b)) != 0 || len(of(b, a)) != 0 {
			t.Fatal("reaches go round in a large network")
		}
		for range 3 {
			if !a.signal(b, "x") {
				t.Fatal("nobody took it")
			}
		}
		took := w.until("the reaches", 5*time.Second, func() bool {
			return slices.Contains(of(a, b), at(2)) && slices.Contains(of(b, a), at(1))
		})
		t.Logf("known after %v", took)
		if a.count("reaches_asked") != 1 || b.count("reaches_told") != 1 || a.count("reaches_learnt") != 1 {
			t.Errorf("%v %v", a.mesh.Counters(), b.mesh.Counters())
		}
		for _, m := range w.members {
			if m != a && m != b && m.mesh.partners.Load().of[b.id.ID()] == nil && len(of(m, b)) != 0 {
				t.Error("what was asked for was passed on")
			}
		}
		b.mesh.SetReach(Reachability{Endpoints: []netip.AddrPort{at(3)}})
		time.Sleep(seekEvery)
		a.signal(b, "x")
		w.until("a newer reach", 5*time.Second, func() bool { return slices.Equal(of(a, b), []netip.AddrPort{at(3)}) })
	})
}

// TestSignalsOfRevoked: who was a member is not carried for, nor listened to.
func TestSignalsOfRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := star(t, 3)
		defer w.stopAll()
		gone, a, b := w.members[1], w.members[2], w.members[3]
		if err := w.founder.mesh.RevokeMember(gone.id.ID(), false); err != nil {
			t.Fatal(err)
		}
		w.until("everybody knows", 5*time.Second, func() bool {
			return a.saw(EventRevoked, gone)+b.saw(EventRevoked, gone)+w.founder.saw(EventRevoked, gone) == 3
		})
		time.Sleep(time.Second)
		a.brings(w.founder, frameOf(t, a.mesh, gone.id, b.id.ID(), ring.Call, []byte("x")))
		a.brings(w.founder, frameOf(t, a.mesh, gone.id, w.founder.id.ID(), ring.Call, []byte("x")))
		a.brings(w.founder, frameOf(t, a.mesh, a.id, gone.id.ID(), ring.Call, []byte("x")))
		time.Sleep(time.Second)
		f := w.founder
		if f.count("signals_strangers") != 2 || f.count("signals_no_route") != 1 || f.count("signals_forwarded") != 0 {
			t.Errorf("%v", f.mesh.Counters())
		}
		if a.signal(gone, "x") || len(b.got())+len(f.got()) != 0 {
			t.Error("signalled")
		}
	})
}

// TestHereIs takes what others say of themselves and of nobody else.
func TestHereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 6)
		m, all := c.seated(t, 4)
		reach := func(id *identity.Identity, seq uint64) []byte { return c.reach(id, seq, 9, 9).raw }
		forged := slices.Clone(reach(c.ids[4], 2))
		forged[len(forged)-10] ^= 1
		for _, x := range []struct {
			name    string
			payload []byte
			refused uint64
		}{
			{"of another", reach(c.ids[3], 2), 1},
			{"of us", reach(c.founder, 1<<50), 1},
			{"nothing", nil, 1},
			{"no reach", []byte("reach"), 1},
			{"forged", forged, 1},
			{"older", reach(c.ids[4], 1), 0},
		} {
			before := m.Counters()
			if err := m.handleRing(all[0], frameOf(t, m, c.ids[4], c.founder.ID(), ring.HereIs, x.payload)); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
			after := m.Counters()
			if after["reaches_refused"]-before["reaches_refused"] != x.refused || after["reaches_learnt"] != 0 {
				t.Errorf("%s: %v", x.name, after)
			}
			time.Sleep(time.Second)
		}
		if err := m.handleRing(all[0], frameOf(t, m, c.ids[4], c.founder.ID(), ring.HereIs, reach(c.ids[4], 2))); err != nil {
			t.Fatal(err)
		}
		if m.reaches[c.ids[4].ID()].Seq != 2 || m.Counters()["reaches_learnt"] != 1 {
			t.Errorf("%v", m.Counters())
		}
		for range 3 {
			if err := m.handleRing(all[1], frameOf(t, m, c.ids[4], c.founder.ID(), ring.WhereIs, nil)); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.Counters(); got["reaches_told"] != 1 || got["reaches_limited"] != 2 {
			t.Errorf("asked at once: %v", got)
		}
	})
}

func TestSearchIsBounded(t *testing.T) {
	var x search
	now := released
	id := func(i int) identity.PeerID { return identity.PeerID{byte(i), byte(i >> 8), 1} }
	n := 0
	for i := range 100 {
		if x.seek(now, id(i)) {
			n++
		}
	}
	if n != seekBurst || len(x.waiting) != n {
		t.Errorf("%d asked at once", n)
	}
	for i := range 2 * maxSearch {
		x.told.take(now, id(i), tellEvery)
	}
	if len(x.told) != maxSearch || x.told.take(now, id(3*maxSearch), tellEvery) || x.told.take(now, id(1), tellEvery) {
		t.Errorf("%d remembered", len(x.told))
	}
	now = now.Add(tellEvery)
	if !x.told.take(now, id(3*maxSearch), tellEvery) || len(x.told) != 1 {
		t.Errorf("%d remembered after all were over", len(x.told))
	}
}

// TestPlacesOfNeighbours: a full node takes those whom the ring asks for, to a bound.
func TestPlacesOfNeighbours(t *testing.T) {
	c := newCrowd(t, 120)
	m, _ := c.seated(t, 0)
	ask := func(id *identity.Identity) error {
		s := m.newSession(id.ID(), acceptor, func() {})
		card := c.card(id, "x", 1).raw
		parsed, err := parseCard(card, m.network.ID)
		if err != nil {
			t.Fatal(err)
		}
		return m.enter(s, parsed, &hello{Card: card})
	}
	var wanted, others []*identity.Identity
	for _, id := range c.ids {
		if m.topology.wanted[id.ID()] {
			wanted = append(wanted, id)
		} else {
			others = append(others, id)
		}
	}
	for i, id := range others[:maxSessions+1] {
		if err := ask(id); (err == nil) != (i < maxSessions) || err != nil && !closedFor(err, reasonFull) {
			t.Fatalf("the %d. session: %v", i+1, err)
		}
	}
	for i, id := range wanted {
		if err := ask(id); (err == nil) != (i < keptFree) {
			t.Errorf("neighbour %d: %v", i+1, err)
		}
	}
	if len(wanted) < keptFree || len(m.sessions) != maxSessions+keptFree {
		t.Errorf("%d sessions, %d wanted", len(m.sessions), len(wanted))
	}
}

// FuzzHereIs: whatever a member says of where it is harms nobody.
func FuzzHereIs(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add(signedReach(wide(relayURL)).signed, false)
	f.Add(dcbor.Marshal(&tags{}), false)
	c := newCrowd(f, 3)
	m := c.mesh(f, nothing)
	f.Fuzz(func(t *testing.T, payload []byte, asks bool) {
		s := m.newSession(c.ids[0].ID(), acceptor, func() {})
		sig := &ring.Signal{Origin: c.ids[1].ID(), Target: c.founder.ID(), Payload: payload}
		if asks {
			m.tellWhere(s, sig)
		} else {
			m.learnWhere(s, sig)
		}
		if m.reaches[c.ids[1].ID()].Seq != 1 {
			t.Fatal("a reach that nobody signed was taken")
		}
	})
}
