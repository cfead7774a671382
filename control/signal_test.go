package control

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
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
		if !slices.Equal(b.got(), []string{"call me"}) || len(w.founder.got()) != 0 {
			t.Errorf("%q arrived, %q at who carries", b.got(), w.founder.got())
		}
		if a.count("signals_sent") != 1 || w.founder.count("signals_forwarded") != 1 || b.count("signals_delivered") != 1 {
			t.Errorf("%v %v %v", a.mesh.Counters(), w.founder.mesh.Counters(), b.mesh.Counters())
		}
		if a.count("sessions") != 1 || a.count("dials") == 0 {
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
		w.until("arrival", time.Second, func() bool { return len(b.got()) == 2 })
		time.Sleep(time.Second)
		if got := b.got(); len(got) != 2 || a.count("signals_sent") != 2 {
			t.Errorf("%d copies arrived", len(got))
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
		w.until("arrival", time.Second, func() bool { return len(target.got()) == 10 })
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

// TestSignalOneHop: a partner without a session with the target says so and asks nobody else. It is left alone for a
// while.
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
		w.until("the answer", time.Second, func() bool { return near.count("signals_no_route") == 1 })
		time.Sleep(time.Second)
		if n := near.count("signals_forwarded") + far.count("signals_forwarded"); n != 0 || len(target.got()) != 0 {
			t.Errorf("%d went on, %d arrived", n, len(target.got()))
		}
		if a.signal(target, "x") || a.count("signals_no_way") != 1 {
			t.Error("who has no way is asked again at once")
		}
		time.Sleep(noRouteFor)
		if !a.signal(target, "x") {
			t.Error("who had no way is never asked again")
		}
		if !a.signal(far, "y") {
			t.Error("a way to one is lost for another")
		}
		w.until("another target", time.Second, func() bool { return slices.Equal(far.got(), []string{"y"}) })
	})
}

// TestSignalNeverReturns: one that names its sender, or a stranger, goes nowhere.
func TestSignalNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := star(t, 2)
		defer w.stopAll()
		m := w.founder.mesh
		a := w.members[1]
		s := m.partners.Load().of[a.id.ID()]
		for _, target := range []identity.PeerID{a.id.ID(), {9}} {
			other := m.newSession(a.id.ID(), acceptor, func() {}) // as the reader of the session with a
			if err := m.handleSignal(other, dcbor.Marshal(&signal{Target: target, Payload: []byte("x")})); err != nil {
				t.Fatal(err)
			}
			answer := other.out.takeSignals()
			if len(answer) != 1 || answer[0].kind != typeNoRoute || len(s.out.takeSignals()) != 0 {
				t.Errorf("to %s: %v", target.Short(), answer)
			}
		}
		time.Sleep(time.Second)
		if w.founder.count("signals_forwarded") != 0 || w.founder.count("signals_no_route") != 2 || len(a.got()) != 0 {
			t.Errorf("%v", m.Counters())
		}
	})
}

// TestSignalQuota floods a target, then the partner with other targets: each has its bound, and others are not hurt.
func TestSignalQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := star(t, 20)
		defer w.stopAll()
		bad, good, target := w.members[1], w.members[2], w.members[3]
		forwarded := func() uint64 { return w.founder.count("signals_forwarded") }
		for range 100 {
			for range 10 {
				bad.signal(target, "flood")
			}
			time.Sleep(100 * time.Millisecond)
		}
		const most = signalRateEach * 11 // the burst and ten seconds
		if n := forwarded(); n > most || n < most-signalRateEach {
			t.Errorf("%d of 1000 were passed on within 10 s, want about %d", n, most)
		}
		if !good.signal(target, "hello") {
			t.Fatal("nobody took it")
		}
		w.until("others get through", time.Second, func() bool { return slices.Contains(target.got(), "hello") })
		time.Sleep(10 * time.Second)
		before := forwarded()
		for range 10 {
			for i := range 18 { // 180 a second, for many
				bad.signal(w.members[3+i], "flood")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := forwarded() - before; n > 2*signalRate || n < signalRate {
			t.Errorf("%d were passed on within a second, want at most %d", n, 2*signalRate)
		}
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
		if o.putSignal(frame{typeSignal, []byte{byte(i)}}) {
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

// TestSignalDoesNotWait signals while every lock of the Mesh is held.
func TestSignalDoesNotWait(t *testing.T) {
	c := newCrowd(t, 3)
	m := c.mesh(t, nothing)
	s := m.newSession(c.ids[0].ID(), dialer, func() {})
	s.done = true
	m.mu.Lock()
	m.sessions[s.peer] = s
	m.notePartners()
	m.saving.Lock()
	m.drawing.Lock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		for range 1000 {
			m.Signal(c.ids[1].ID(), []byte("x"))
			m.Signal(s.peer, []byte("x"))
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
	if got := m.Counters(); got["signals_sent"] != 2000 || got["signals_lost"] != 2000-maxSignals {
		t.Errorf("%v", got)
	}
}

func TestSignalRefusals(t *testing.T) {
	c := newCrowd(t, 3)
	m := c.mesh(t, nothing)
	s := m.newSession(c.ids[0].ID(), dialer, func() {})
	s.done = true
	m.mu.Lock()
	m.sessions[s.peer] = s
	m.notePartners()
	m.mu.Unlock()
	for _, x := range []struct {
		name string
		to   identity.PeerID
		pkt  []byte
		want bool
	}{
		{"good", s.peer, make([]byte, maxSignal), true},
		{"empty", s.peer, nil, false},
		{"too long", s.peer, make([]byte, maxSignal+1), false},
		{"a stranger", identity.PeerID{9}, []byte("x"), false},
		{"ourselves", c.founder.ID(), []byte("x"), false},
	} {
		if got := m.Signal(x.to, x.pkt); got != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}
	for name, body := range map[string][]byte{
		"empty":     dcbor.Marshal(&signal{Target: s.peer}),
		"too long":  dcbor.Marshal(&signal{Target: s.peer, Payload: make([]byte, maxSignal+1)}),
		"no signal": {0xa0, 0},
	} {
		if err := m.handleSignal(s, body); err != errProtocol {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.handleNoRoute(s, []byte{0x80}); err != errProtocol {
		t.Errorf("no route: %v", err)
	}
	for i := range 3 * maxNoRoute { // however many targets a partner names
		var id identity.PeerID
		copy(id[:], fmt.Sprint(i))
		if err := m.handleNoRoute(s, dcbor.Marshal(&noRoute{id})); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.noRoute.until); n > maxNoRoute {
		t.Errorf("%d dead ends are kept", n)
	}
}

// TestSignalsGoFirst: a signal does not wait for what else is to be sent, and what else is to be sent not for signals.
func TestSignalsGoFirst(t *testing.T) {
	near, far := net.Pipe()
	m := newCrowd(t, 2).mesh(t, nothing)
	s := &stream{m, m.newSession(someone.ID(), dialer, func() {}), wire.New(near, time.Second, time.Second), nil}
	facts := frame{typeFacts, bytes.Repeat([]byte{1}, 1000)}
	s.out.put(facts, facts)
	s.out.putSignal(frame{typeSignal, []byte("x")})
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
			s.out.putSignal(frame{typeSignal, []byte("y")})
		}
	}
	if !<-done {
		t.Error("the stream is over")
	}
	if want := []wire.Type{typeSignal, typeFacts, typeSignal, typeFacts}; !slices.Equal(order, want) {
		t.Errorf("sent %v, want %v", order, want)
	}
}
