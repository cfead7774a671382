package control

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// linked lets only the pairs of links, by index, open sessions.
func (w *world) linked(links ...[2]int) {
	at := func(i int) netip.Addr { return w.members[i].control() }
	w.apart = func(a, b netip.Addr) bool {
		return !slices.ContainsFunc(links, func(l [2]int) bool {
			return a == at(l[0]) && b == at(l[1]) || a == at(l[1]) && b == at(l[0])
		})
	}
	w.startAll()
	w.until("sessions", 10*time.Second, func() bool {
		sum := 0
		for _, m := range w.members {
			sum += len(m.mesh.Sessions())
			if len(m.mesh.Map().Peers) != len(w.members)-1 {
				return false
			}
		}
		return sum == 2*len(links)
	})
}

func (m *member) signal(to *member, pkt string) bool { return m.mesh.Signal(to.id.ID(), []byte(pkt)) }

// got are the signals that arrived.
func (m *member) got() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.signals)
}

func (m *member) count(name string) uint64 {
	n, ok := m.mesh.Counters()[name]
	if !ok {
		m.world.t.Errorf("no counter %q", name)
	}
	return n
}

// star is a world in which all have a session with the founder only.
func star(t *testing.T, others int) *world {
	w := newWorld(t)
	var links [][2]int
	for i := range others {
		w.admit(w.founder)
		links = append(links, [2]int{0, i + 1})
	}
	w.linked(links...)
	return w
}

// frameOf is what a member's router gives to its neighbours for a signal.
func frameOf(t testing.TB, m *Mesh, from *identity.Identity, to identity.PeerID, kind ring.Type, payload []byte) []byte {
	t.Helper()
	r := ring.NewRouter(ring.Config{Self: from, Network: m.network.ID})
	r.SetView(ring.View{
		Ring: ring.New(m.network.ID, []identity.PeerID{from.ID(), to}), Sessions: []identity.PeerID{to},
	})
	sig := r.Draft(m.wall().Add(m.Skew()), to, kind)
	sig.Payload = payload
	a, err := r.Originate(m.wall(), sig)
	if err != nil {
		t.Fatal(err)
	}
	return a.Sends[0].Frame
}

// brings has a member's Mesh take a frame as the reader of its session with another would.
func (m *member) brings(to *member, frame []byte) {
	m.world.t.Helper()
	if err := to.mesh.handleRing(to.mesh.partners.Load().of[m.id.ID()], frame); err != nil {
		m.world.t.Fatal(err)
	}
}

func TestSignalThroughCommonMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := star(t, 2)
		defer w.stopAll()
		a, b := w.members[1], w.members[2]
		pkt := []byte("call me")
		if !a.mesh.Signal(b.id.ID(), pkt) {
			t.Fatal("nobody took it")
		}
		clear(pkt) // it was borrowed
		took := w.until("arrival", time.Second, func() bool { return len(b.got()) > 0 })
		t.Logf("arrived after %v", took)
		w.until("where the target is", time.Second, func() bool { return a.count("signals_delivered") > 0 })
		time.Sleep(time.Second)
		if !slices.Equal(b.got(), []string{"call me"}) || len(w.founder.got()) != 0 {
			t.Errorf("%q arrived, %q at who carries", b.got(), w.founder.got())
		}
		// The signal, where-is and here-is.
		if a.count("signals_sent") != 2 || w.founder.count("signals_forwarded") != 3 || b.count("signals_delivered") != 2 {
			t.Errorf("%v %v %v", a.mesh.Counters(), w.founder.mesh.Counters(), b.mesh.Counters())
		}
		if a.count("sessions") != 1 || a.count("dials") == 0 || a.count("signals_retried")+a.count("signals_lost") != 0 {
			t.Errorf("%v", a.mesh.Counters())
		}
	})
}

// TestSignalToPartner: the session with the target may run over the path that broke, so somebody else carries it too.
func TestSignalToPartner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 3 {
			w.admit(w.founder)
		}
		w.startAll()
		defer w.stopAll()
		w.until("mesh", 5*time.Second, w.meshed)
		a, b := w.members[1], w.members[2]
		if !a.signal(b, "x") {
			t.Fatal("nobody took it")
		}
		w.until("arrival", time.Second, func() bool { return b.count("signals_duplicate") == 1 })
		time.Sleep(time.Second)
		if got := b.got(); len(got) != 1 || a.count("signals_sent") != 2 {
			t.Errorf("%d copies arrived, %v", len(got), a.mesh.Counters())
		}
	})
}

// TestSignalPrefersHomes: whom the target names as its homes carry a signal, before anybody else.
func TestSignalPrefersHomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 5 {
			w.admit(w.founder)
		}
		a, target := w.members[1], w.members[2]
		var links [][2]int
		for i := range w.members {
			for j := range i {
				if i != 2 || j != 1 {
					links = append(links, [2]int{i, j})
				}
			}
		}
		w.linked(links...)
		defer w.stopAll()
		homes := []netmap.Home{{Member: w.members[5].id.ID()}, {Member: w.members[3].id.ID()}}
		target.mesh.SetReach(Reachability{Homes: homes})
		w.until("homes known", time.Second, func() bool {
			return slices.Equal(a.mesh.Map().Peer(target.id.ID()).Homes, homes)
		})
		for range 5 {
			if !a.signal(target, "x") {
				t.Fatal("nobody took it")
			}
		}
		w.until("arrival", time.Second, func() bool {
			return len(target.got()) == 5 && target.count("signals_duplicate") == 5
		})
		for i, m := range w.members {
			want := uint64(0)
			if i == 5 || i == 3 {
				want = 5
			}
			if got := m.count("signals_forwarded"); got != want {
				t.Errorf("member %d carried %d, want %d", i, got, want)
			}
		}
	})
}

// TestSignalOneHop: in a small network a partner without a session with the target says so and asks nobody else. It is
// left alone for a while.
func TestSignalOneHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 3 {
			w.admit(w.founder)
		}
		w.linked([2]int{0, 1}, [2]int{1, 2}, [2]int{2, 3}) // a line
		defer w.stopAll()
		a, near, far, target := w.members[0], w.members[1], w.members[2], w.members[3]
		if !a.signal(target, "x") {
			t.Fatal("nobody took it")
		}
		w.until("the answer", time.Second, func() bool { return near.count("signals_no_route") == 2 }) // to where-is too
		time.Sleep(time.Second)
		if n := near.count("signals_forwarded") + far.count("signals_forwarded"); n != 0 || len(target.got()) != 0 {
			t.Errorf("%d went on, %d arrived", n, len(target.got()))
		}
		if a.signal(target, "x") || a.count("signals_no_way") != 3 {
			t.Errorf("who has no way is asked again at once: %v", a.mesh.Counters())
		}
		time.Sleep(5 * time.Second)
		if !a.signal(target, "x") {
			t.Error("who had no way is never asked again")
		}
		if !a.signal(far, "y") {
			t.Error("a way to one is lost for another")
		}
		w.until("another target", time.Second, func() bool { return slices.Equal(far.got(), []string{"y"}) })
	})
}

// TestSignalNeverReturns: one for who brings it, or for a stranger, goes nowhere.
func TestSignalNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := star(t, 2)
		defer w.stopAll()
		a, b := w.members[1], w.members[2]
		for _, target := range []identity.PeerID{a.id.ID(), {9}} {
			a.brings(w.founder, frameOf(t, w.founder.mesh, b.id, target, ring.Call, []byte("x")))
		}
		time.Sleep(time.Second)
		if w.founder.count("signals_forwarded") != 0 || w.founder.count("signals_no_route") != 2 || len(a.got()) != 0 {
			t.Errorf("%v", w.founder.mesh.Counters())
		}
		if a.count("signals_astray") != 2 {
			t.Errorf("%v", a.mesh.Counters())
		}
	})
}

// TestSignalQuota floods a target: that is bounded where it passes, and others are not hurt.
func TestSignalQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := star(t, 3)
		defer w.stopAll()
		bad, good, target := w.members[1], w.members[2], w.members[3]
		for range 10 {
			for range 10 {
				bad.brings(w.founder, frameOf(t, w.founder.mesh, bad.id, target.id.ID(), ring.Call, []byte("flood")))
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := w.founder.count("signals_forwarded"); n > 20 || n < 10 {
			t.Errorf("%d of 100 were passed on within a second, want about 20", n)
		}
		if !good.signal(target, "hello") {
			t.Fatal("nobody took it")
		}
		w.until("others get through", time.Second, func() bool { return slices.Contains(target.got(), "hello") })
		if w.founder.count("signals_limited") == 0 || len(bad.mesh.Sessions()) != 1 {
			t.Errorf("%d sessions, %v", len(bad.mesh.Sessions()), w.founder.mesh.Counters())
		}
	})
}

// TestSignalQueue: what nobody reads leaves for newer ones, and never costs the session.
func TestSignalQueue(t *testing.T) {
	o := newOutbox()
	lost := 0
	for i := range 3 * maxSignals {
		if o.putSignal(frame{typeRing, []byte{byte(i)}}) {
			lost++
		}
	}
	all := o.takeSignals()
	if lost != 2*maxSignals || len(all) != maxSignals || all[0].body[0] != 2*maxSignals {
		t.Errorf("%d lost, %d kept, the first is %d", lost, len(all), all[0].body[0])
	}
	if _, over := o.take(); over || len(o.takeSignals()) != 0 {
		t.Error("signals ended the session, or stay")
	}
}

// seated is a Mesh with established sessions, which nobody reads, with the first members of a crowd.
func (c *crowd) seated(t *testing.T, sessions int) (*Mesh, []*session) {
	m := c.mesh(t, nothing)
	m.organise()
	var all []*session
	for _, id := range c.ids[:sessions] {
		s := m.newSession(id.ID(), dialer, func() {})
		s.done, s.state = true, stateDone
		all = append(all, s)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range all {
		m.sessions[s.peer] = s
	}
	m.notePartners()
	return m, all
}

// TestSignalDoesNotWait signals while every lock of the Mesh is held.
func TestSignalDoesNotWait(t *testing.T) {
	c := newCrowd(t, 3)
	m, all := c.seated(t, 1)
	m.mu.Lock()
	m.saving.Lock()
	m.drawing.Lock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		for range 1000 {
			m.Signal(c.ids[1].ID(), []byte("x"))
			m.Signal(all[0].peer, []byte("x"))
		}
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
	m.mu.Unlock()
	m.saving.Unlock()
	m.drawing.Unlock()
	<-told
	if got := m.Counters(); got["signals_sent"] < 10 || got["signals_sent"]+got["signals_no_way"] != 2000 {
		t.Errorf("%v", got)
	}
}

func TestSignalRefusals(t *testing.T) {
	c := newCrowd(t, 6)
	m, all := c.seated(t, 4)
	for _, x := range []struct {
		name string
		to   identity.PeerID
		pkt  []byte
		want bool
	}{
		{"good", all[0].peer, make([]byte, ring.MaxPayload), true},
		{"empty", all[0].peer, nil, false},
		{"too long", all[0].peer, make([]byte, ring.MaxPayload+1), false},
		{"a stranger", identity.PeerID{9}, []byte("x"), false},
		{"ourselves", c.founder.ID(), []byte("x"), false},
	} {
		if got := m.Signal(x.to, x.pkt); got != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}
	if n := m.Counters()["signals_no_way"]; n != 4 {
		t.Errorf("%d refused", n)
	}
	forged := frameOf(t, m, c.ids[4], c.founder.ID(), ring.Call, []byte("x"))
	forged[len(forged)-10] ^= 1 // in the signature
	for i, body := range [][]byte{nil, {0xa0, 0}, make([]byte, 2*ring.MaxFrame), forged} {
		if err := m.handle(all[i], typeRing, body); err != errProtocol {
			t.Errorf("frame %d: %v", i, err)
		}
	}
	if err := m.handle(all[0], typeRing, forged); err != nil {
		t.Errorf("of who is not listened to: %v", err)
	}
}

// TestSignalsGoFirst: a signal does not wait for what else is to be sent, and what else is to be sent not for signals.
func TestSignalsGoFirst(t *testing.T) {
	near, far := net.Pipe()
	m := newCrowd(t, 2).mesh(t, nothing)
	s := &stream{m, m.newSession(someone.ID(), dialer, func() {}), wire.New(near, time.Second, time.Second), nil}
	facts := frame{typeFacts, bytes.Repeat([]byte{1}, 1000)}
	s.out.put(facts, facts)
	s.out.putSignal(frame{typeRing, []byte("x")})
	done := make(chan bool)
	go func() { done <- s.drain(t.Context(), &pacer{last: time.Now()}) }()
	var order []wire.Type
	reader := wire.New(far, time.Second, time.Second)
	for range 4 {
		kind, _, err := reader.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if order = append(order, kind); len(order) == 1 {
			s.out.putSignal(frame{typeRing, []byte("y")})
		}
	}
	if !<-done {
		t.Error("the stream is over")
	}
	if want := []wire.Type{typeRing, typeFacts, typeRing, typeFacts}; !slices.Equal(order, want) {
		t.Errorf("sent %v, want %v", order, want)
	}
}
