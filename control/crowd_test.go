package control

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/internal/sim"
)

// crowd is the store of a founder that knows many members, all of them silent.
type crowd struct {
	founder *identity.Identity
	store   *Store
	ledger  *ledger.Ledger
	ids     []*identity.Identity // without the founder
	token   *ledger.Token
	last    *identity.Hash // acceptance
}

func newCrowd(t testing.TB, members int) *crowd {
	t.Helper()
	store, err := OpenStore(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{founder: identity.FromSeed(identity.Secret{1}), store: store}
	if err := found(store, c.founder); err != nil {
		t.Fatal(err)
	}
	genesis, err := store.genesis()
	if err != nil {
		t.Fatal(err)
	}
	if c.ledger, err = ledger.New(genesis.Signed); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	_, c.token, err = c.ledger.Invite(c.founder, ledger.InviteParams{K: store.network.Keys[0]}, now)
	if err != nil {
		t.Fatal(err)
	}
	var facts []fact
	for i := range members - 1 {
		id := identity.FromSeed(identity.Secret{2, byte(i), byte(i >> 8)})
		c.ids = append(c.ids, id)
		c.accept(t, id, now.Add(time.Duration(i)*time.Millisecond)) // their order is that of ids
		facts = append(facts, c.card(id, fmt.Sprintf("member-%05d", i), 1), c.reach(id, 1, byte(i), byte(i>>8)))
	}
	if _, err := c.ledger.Keep(c.founder, c.ledger.State(now).Unkept, now); err != nil {
		t.Fatal(err)
	}
	store.facts = append(c.facts(), facts...)
	return c
}

// accept lets a node in at a time, without looking at all others.
func (c *crowd) accept(t testing.TB, id *identity.Identity, at time.Time) {
	t.Helper()
	network := c.ledger.Genesis().ID
	a := ledger.NewAdmit(id, network, c.token.InviteID(), c.token.Seed)
	if _, err := c.ledger.AddAdmit(a.Raw); err != nil {
		t.Fatal(err)
	}
	body := dcbor.Marshal(&ledger.Acceptance{
		Admit: a.ID, Acceptor: c.founder.ID(), Prev: c.last, Heads: c.ledger.Heads(), Time: uint64(at.UnixMilli()),
	})
	s := ledger.Signed{Body: body, Sig: c.founder.Sign(identity.PurposeAcceptance, network, body)}
	if _, err := c.ledger.AddAcceptance(s); err != nil {
		t.Fatal(err)
	}
	made := identity.Sum(identity.PurposeAcceptance, body)
	c.last = &made
}

func (c *crowd) facts() []fact { return (&world{ledger: c.ledger}).facts() }

func (c *crowd) card(id *identity.Identity, name string, seq uint64) fact {
	x := &Card{Node: id.ID(), Seq: seq, Name: name, Version: "1.0.0", WG: id.WG(), Disco: id.Disco()}
	return cardFact(x.sign(id, c.ledger.Genesis().ID))
}

func (c *crowd) reach(id *identity.Identity, seq uint64, a, b byte) fact {
	x := &Reach{Node: id.ID(), Seq: seq, Port: 41820, Endpoints: [][]byte{encodeEndpoint(
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, b, a}), 41820))}}
	return reachFact(x.sign(id, c.ledger.Genesis().ID))
}

// mesh makes the founder's Mesh; everybody it dials is silent.
func (c *crowd) mesh(t testing.TB, changed func()) *Mesh {
	t.Helper()
	listener, err := sim.NewStreams().Listen(netip.MustParseAddrPort("[fd00::1]:41820"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{
		Identity: c.founder, Store: c.store, Name: "founder", Boot: [8]byte{1}, Listener: listener,
		Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		Rendezvous:  func(datagram.Place, []byte) {},
		Provisional: func(Provisional) {},
		Events:      func(Event) { changed() },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func nothing() {}

// run runs a Mesh until the test is over.
func run(t testing.TB, m *Mesh) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// TestIdleMinute lets a node that knows many silent members be for a minute: what it allocates is for the dials that
// are due, two a second, and does not grow with the network.
func TestIdleMinute(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	const perDial = 8 << 10
	synctest.Test(t, func(t *testing.T) {
		m := newCrowd(t, 2000).mesh(t, nothing)
		defer run(t, m)()
		time.Sleep(2 * time.Minute)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		old := m.Map()
		time.Sleep(time.Minute)
		runtime.ReadMemStats(&after)
		grown := after.TotalAlloc - before.TotalAlloc
		dials := uint64(time.Minute / dialFor * maxDials)
		t.Logf("%d bytes in %d allocations for %d dials", grown, after.Mallocs-before.Mallocs, dials)
		// The address book is written twice a minute: in all who were dialled.
		if limit := dials*perDial + 2*uint64(len(m.book.entries))*512; grown > limit {
			t.Errorf("%d bytes allocated in an idle minute, want at most %d", grown, limit)
		}
		if m.Map() != old {
			t.Error("an idle minute made a new map")
		}
	})
}

// TestLinePasses: with more members than dials everybody has its turn, and who was heard of goes first.
func TestLinePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 31) // with the founder a full mesh
		m := c.mesh(t, nothing)
		defer run(t, m)()
		time.Sleep(3*dialFor + time.Second) // three rounds of ten
		m.mu.Lock()
		for _, id := range c.ids {
			if n := m.book.entry(id.ID()).Attempts; n != 1 {
				t.Errorf("%d dials of %s, want 1", n, id.ID().Short())
			}
		}
		m.mu.Unlock()
		heard := c.ids[15].ID()
		time.Sleep(time.Hour) // all have long backoffs
		synctest.Wait()
		m.mu.Lock()
		before := m.book.entry(heard).Attempts
		m.mu.Unlock()
		m.Nudge(heard)
		time.Sleep(2 * dialFor) // the slots are all taken for one dial's time
		m.mu.Lock()
		defer m.mu.Unlock()
		if e := m.book.entry(heard); e.Attempts == before && !m.dialing[heard] {
			t.Error("a member that was heard of was not dialled next")
		}
	})
}

// TestPacketSideDoesNotWait tells a Mesh whose locks are all held.
func TestPacketSideDoesNotWait(t *testing.T) {
	c := newCrowd(t, 3)
	m := c.mesh(t, nothing)
	id, addr := c.ids[0].ID(), netip.MustParseAddrPort("192.0.2.1:1")
	m.saving.Lock()
	m.drawing.Lock()
	m.mu.Lock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		for range 2 * maxHeard {
			m.Nudge(id)
			m.PathWorks(id, addr)
			m.Sample(id, time.Second)
			m.Sample(c.ids[1].ID(), time.Second)
			m.Skew()
			m.Map()
		}
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("who tells waits")
	}
	m.mu.Unlock()
	m.drawing.Unlock()
	m.saving.Unlock()
	<-told
	if got := len(m.ear.waiting); got != maxHeard {
		t.Errorf("%d wait, want %d", got, maxHeard)
	}
	m.hear()
	if got := m.book.addrs(id); len(got) != 1 || got[0] != addr {
		t.Errorf("endpoints that answered: %v", got)
	}
	if m.Skew() == 0 || m.ear.lost == 0 {
		t.Errorf("skew %v, %d lost", m.Skew(), m.ear.lost)
	}
}

// TestPathsAreGathered: endpoints that answer are in the map within a second, all of that second in one map.
func TestPathsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 50)
		m := c.mesh(t, nothing)
		defer run(t, m)()
		time.Sleep(time.Second)
		maps, last := 0, m.Map()
		for i, id := range c.ids {
			m.PathWorks(id.ID(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1))
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if now := m.Map(); now != last {
				maps, last = maps+1, now
			}
		}
		if maps > 0 {
			t.Errorf("%d maps within half a second", maps)
		}
		time.Sleep(drawPause)
		for _, id := range c.ids {
			if p := m.Map().Peer(id.ID()); len(p.Endpoints) != 2 {
				t.Fatalf("endpoints %v", p.Endpoints)
			}
		}
	})
}

// TestDeferredAdmission: somebody let in by a clock that runs ahead is a member from the moment on at which that is
// tolerable, without anything else happening; a mesh's clock that moves makes that sooner.
func TestDeferredAdmission(t *testing.T) {
	for _, c := range []struct {
		name  string
		ahead time.Duration // of the mesh's clock
		want  time.Duration
	}{
		{"own clock", 0, 20 * time.Minute},
		{"the mesh is ahead", 4 * time.Minute, 16 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCrowd(t, 4)
				late := identity.FromSeed(identity.Secret{9})
				w.accept(t, late, time.Now().Add(30*time.Minute)) // 10 of them are tolerable
				w.store.facts = append(w.store.facts, w.facts()...)
				m := w.mesh(t, nothing)
				defer run(t, m)()
				begun := time.Now()
				for i := range 3 {
					m.Sample(w.ids[i].ID(), c.ahead)
				}
				time.Sleep(c.want - time.Millisecond - time.Since(begun))
				synctest.Wait()
				if m.Map().Peer(late.ID()) != nil {
					t.Fatal("a member too early")
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
				if m.Map().Peer(late.ID()) == nil {
					t.Error("not a member in time")
				}
			})
		})
	}
}

// TestNameIsFreed: the name of somebody who was revoked is given to the next one a day later.
func TestNameIsFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 3)
		first, second := c.ids[0], c.ids[1]
		c.store.facts = append(c.store.facts, c.card(first, "printer", 2), c.card(second, "printer", 2))
		m := c.mesh(t, nothing)
		defer run(t, m)()
		if err := m.RevokeMember(first.ID(), false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24*time.Hour - time.Millisecond)
		if got := m.Map().Peer(second.ID()).Name; got != "printer-2" {
			t.Errorf("called %q while the name is held", got)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if got := m.Map().Peer(second.ID()).Name; got != "printer" {
			t.Errorf("called %q after a day", got)
		}
	})
}

// BenchmarkLive reports how much memory a Mesh of 10 000 members holds.
func BenchmarkLive(b *testing.B) {
	inUse := func() float64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc) / 1e6
	}
	for b.Loop() {
		c := newCrowd(b, 10_000)
		for i, f := range c.store.facts { // as if they had been read from disk
			c.store.facts[i].raw = append([]byte(nil), f.raw...)
		}
		c.ledger = nil
		m := c.mesh(b, nothing)
		with := inUse()
		runtime.KeepAlive(m)
		c.store, m = nil, nil
		b.ReportMetric(with-inUse(), "MB")
		runtime.KeepAlive(c)
	}
}

// BenchmarkKnown tells what a map of 10 000 members costs when nothing, one member's endpoints, or the ledger changed,
// and what a turn in the line of those to dial does.
func BenchmarkKnown(b *testing.B) {
	c := newCrowd(b, 10_000)
	m := c.mesh(b, nothing)
	b.Run("nothing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.rebuild()
		}
	})
	b.Run("endpoints", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			addr := [16]byte{0: 0x20, 1: 1}
			binary.BigEndian.PutUint64(addr[8:], uint64(i))
			m.PathWorks(c.ids[i%len(c.ids)].ID(), netip.AddrPortFrom(netip.AddrFrom16(addr), 1))
			m.hear()
			m.drawAt = time.Now()
			m.rebuild()
		}
	})
	b.Run("dial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			id, ok := m.book.take(time.Now())
			if !ok {
				b.Fatal("nobody is due")
			}
			m.book.dialed(time.Now().Add(-time.Hour), id, false, 0)
			m.lineUp(id)
		}
	})
	b.Run("ledger", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.NewInvite(nil, time.Hour, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
