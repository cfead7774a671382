package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/netmap"
)

// world is a network whose control streams run in memory.
type world struct {
	t          *testing.T
	streams    *sim.Streams
	founder    *member
	udpBlocked bool                       // datagrams of joining go by relay only
	guests     sync.Map                   // *guest by PeerID
	apart      func(a, b netip.Addr) bool // who has no path to whom; nil: nobody
	ledger     *ledger.Ledger             // the founder's facts, to admit more from
	members    []*member
}

// member is one node of a world.
type member struct {
	world *world
	id    *identity.Identity
	store *Store
	mesh  *Mesh
	boot  byte
	index int // among the world's members

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	events  []Event  // guarded by mu
	signals []string // guarded by mu
}

// newWorld founds a network at the bubble's time.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, streams: sim.NewStreams()}
	w.streams.SetDelay(time.Millisecond)
	store, err := OpenStore(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id := identity.FromSeed(identity.Secret{1})
	err = store.Found(id, ledger.FoundParams{Name: "town", Prefix4: netip.MustParsePrefix("100.88.0.0/16")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.founder = &member{world: w, id: id, store: store}
	w.members = []*member{w.founder}
	genesis, err := store.genesis()
	if err != nil {
		t.Fatal(err)
	}
	if w.ledger, err = ledger.New(genesis.Signed); err != nil {
		t.Fatal(err)
	}
	return w
}

// admit makes a member whose store knows what the given one knew of the ledger when it was let in by it.
func (w *world) admit(by *member) *member {
	w.t.Helper()
	_, token, err := w.ledger.Invite(w.founder.id, ledger.InviteParams{K: w.founder.store.network.Keys[0]}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	m := &member{world: w, id: identity.FromSeed(identity.Secret{1, byte(len(w.members)), byte(len(w.members) >> 8)})}
	admit := ledger.NewAdmit(m.id, w.ledger.Genesis().ID, token.InviteID(), token.Seed)
	if _, err := w.ledger.AddAdmit(admit.Raw); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.ledger.Accept(by.id, admit.ID, time.Now()); err != nil {
		w.t.Fatal(err)
	}
	if m.store, err = OpenStore(nil, time.Now()); err != nil {
		w.t.Fatal(err)
	}
	network := *w.founder.store.network
	if err := m.store.begin(&network, w.facts()); err != nil {
		w.t.Fatal(err)
	}
	m.index = len(w.members)
	w.members = append(w.members, m)
	w.founder.learn(w.facts())
	by.learn(w.facts())
	return m
}

// learn gives a member, running or not, what it did itself in the world's ledger.
func (m *member) learn(all []fact) {
	if m.mesh == nil {
		m.store.facts = all
		return
	}
	err := m.mesh.update(func(u *update) error {
		for _, f := range pack(all) {
			if err := m.mesh.mergeFacts(u, f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.world.t.Fatal(err)
	}
}

func (w *world) facts() []fact {
	var all []fact
	for s := range w.ledger.Statements(0) {
		all = append(all, statementFact(s))
	}
	for r := range w.ledger.Records(0) {
		all = append(all, recordFact(r))
	}
	return all
}

func (m *member) control() netip.Addr {
	return netmap.ControlAddr(m.world.ledger.Genesis().ID, m.id.ID())
}

// start runs the member. A stopped one starts anew from its store, as after a restart.
func (m *member) start() {
	m.world.t.Helper()
	m.boot++
	listener, err := m.world.streams.Listen(netip.AddrPortFrom(m.control(), Port))
	if err != nil {
		m.world.t.Fatal(err)
	}
	cfg := Config{
		Identity: m.id, Store: m.store, Boot: [8]byte{m.boot, 1}, Name: fmt.Sprintf("node%d", m.index),
		Version: "test", Port: 41820, Listener: listener,
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if m.world.apart != nil && m.world.apart(m.control(), to.Addr()) {
				return nil, errors.New("no path")
			}
			return m.world.streams.Dial(ctx, netip.AddrPortFrom(m.control(), 0), to)
		},
		Rendezvous:  func(to datagram.Place, pkt []byte) { m.world.carry(m, to, pkt) },
		Provisional: func(Provisional) {},
		OnSignal: func(pkt []byte) {
			m.mu.Lock()
			m.signals = append(m.signals, string(pkt))
			m.mu.Unlock()
		},
		Events: func(e Event) {
			m.mu.Lock()
			m.events = append(m.events, e)
			m.mu.Unlock()
		},
	}
	if os.Getenv("MESHNET_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("me", m.id.ID().Short())
	}
	if m.mesh, err = New(cfg); err != nil {
		m.world.t.Fatal(err)
	}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	m.wg.Go(func() { m.mesh.Run(ctx) })
}

// stop ends the member and keeps what it knew, as its state folder would.
func (m *member) stop() {
	m.cancel()
	m.wg.Wait()
	m.store.facts = nil
	for s := range m.mesh.ledger.Statements(0) {
		m.store.facts = append(m.store.facts, statementFact(s))
	}
	for r := range m.mesh.ledger.Records(0) {
		m.store.facts = append(m.store.facts, recordFact(r))
	}
	m.store.facts = append(m.store.facts, m.mesh.cardFacts()...)
}

func (m *member) saw(t EventType, peer *member) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, e := range m.events {
		if e.Type == t && (peer == nil || e.Peer == peer.id.ID()) {
			n++
		}
	}
	return n
}

// until waits for a condition in the bubble's time and returns how long it took.
func (w *world) until(what string, limit time.Duration, cond func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			w.t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

func (w *world) startAll() {
	for _, m := range w.members {
		m.start()
	}
}

func (w *world) stopAll() {
	for _, m := range w.members {
		m.cancel()
	}
	for _, m := range w.members {
		m.wg.Wait()
	}
}

// meshed reports whether everybody has a session with everybody.
func (w *world) meshed() bool {
	for _, m := range w.members {
		if len(m.mesh.Sessions()) != len(w.members)-1 {
			return false
		}
	}
	return true
}

// named reports whether everybody knows everybody by name.
func (w *world) named() bool {
	for _, m := range w.members {
		current := m.mesh.Map()
		if len(current.Peers) != len(w.members)-1 || current.Self.Name == "" {
			return false
		}
		for i := range current.Peers {
			if current.Peers[i].Name == "" {
				return false
			}
		}
	}
	return true
}

func TestTwentyNodesMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 19 {
			w.admit(w.founder)
		}
		w.startAll()
		defer w.stopAll()
		took := w.until("full mesh", 10*time.Second, func() bool { return w.meshed() && w.named() })
		t.Logf("20 nodes meshed and named after %v", took)
		late := w.admit(w.members[3])
		late.start()
		took = w.until("a new node is known to all", 5*time.Second, func() bool { return w.meshed() && w.named() })
		t.Logf("the 21st is known to all after %v", took)
		w.sameEverywhere()
	})
}

// sameEverywhere checks that every node computed the same addresses and names.
func (w *world) sameEverywhere() {
	w.t.Helper()
	want := ""
	for _, m := range w.members {
		var lines []string
		current := m.mesh.Map()
		for _, p := range append([]netmap.Peer{current.Self}, current.Peers...) {
			lines = append(lines, fmt.Sprint(p.ID, p.Name, p.IP4, p.IP6, p.Admitted))
		}
		slices.Sort(lines)
		if got := fmt.Sprint(lines); want == "" {
			want = got
		} else if got != want {
			w.t.Fatalf("two nodes see the network differently:\n%s\n%s", want, got)
		}
	}
}

// TestSimultaneousDials starts two nodes at the same moment, many times: exactly one session stays and none flaps.
func TestSimultaneousDials(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.admit(w.founder)
			w.startAll()
			defer w.stopAll()
			w.until("session", 5*time.Second, w.meshed)
			time.Sleep(20 * time.Second)
			for i, m := range w.members {
				other := w.members[1-i]
				if up, down := m.saw(EventSessionUp, other), m.saw(EventSessionDown, other); up != 1 || down != 0 {
					t.Fatalf("node %d saw %d sessions come and %d go", i, up, down)
				}
			}
		})
	}
}

func TestGoodbyeAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.founder, w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		b.stop()
		w.until("a sees b leave", time.Second, func() bool { return a.saw(EventSessionDown, b) == 1 })
		if p := a.mesh.Map().Peer(b.id.ID()); p == nil {
			t.Fatal("who leaves is still a member")
		}
		b.start()
		w.until("session again", 5*time.Second, w.meshed)
	})
}

// TestSilentPeer cuts a peer off without a word: its session ends, it stays a member, and it comes back by itself.
func TestSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.founder, w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		w.streams.Cut(b.control(), sim.Blackhole)
		took := w.until("a notices", livelyBeat*5/4+answerFor+time.Second, func() bool { return a.saw(EventSessionDown, b) == 1 })
		t.Logf("noticed after %v", took)
		time.Sleep(time.Hour)
		if a.mesh.Map().Peer(b.id.ID()) == nil {
			t.Fatal("silence removed a member")
		}
		w.streams.Heal(b.control())
		w.until("session again", 75*time.Second, w.meshed)
	})
}

// TestPartitionHeals lets both halves learn things, and compares afterwards.
func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 9 {
			w.admit(w.founder)
		}
		w.startAll()
		defer w.stopAll()
		w.until("mesh", 10*time.Second, func() bool { return w.meshed() && w.named() })
		apart := w.members[5]
		w.streams.Cut(apart.control(), sim.Reset)
		time.Sleep(time.Second)
		if err := w.founder.mesh.RevokeMember(w.members[9].id.ID(), false); err != nil {
			t.Fatal(err)
		}
		apart.mesh.SetReach(Reachability{Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.5:41820")}})
		time.Sleep(time.Second)
		if apart.mesh.Map().Peer(w.members[9].id.ID()) == nil {
			t.Fatal("the revocation crossed a cut")
		}
		w.streams.Heal(apart.control())
		took := w.until("both halves agree", 30*time.Second, func() bool {
			p := w.founder.mesh.Map().Peer(apart.id.ID())
			return apart.mesh.Map().Peer(w.members[9].id.ID()) == nil && len(p.Endpoints) == 1
		})
		t.Logf("healed after %v", took)
	})
}

// TestRevocation removes a member everywhere; the others lose nothing.
func TestRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 4 {
			w.admit(w.founder)
		}
		w.startAll()
		defer w.stopAll()
		w.until("mesh", 10*time.Second, w.meshed)
		gone := w.members[2]
		if err := w.members[1].mesh.RevokeMember(gone.id.ID(), false); err != ErrNotAdmin {
			t.Fatalf("a plain member revokes: %v", err)
		}
		if err := w.founder.mesh.RevokeMember(gone.id.ID(), false); err != nil {
			t.Fatal(err)
		}
		w.until("everybody knows", 5*time.Second, func() bool {
			for _, m := range w.members {
				if m != gone && (m.mesh.Map().Peer(gone.id.ID()) != nil || m.saw(EventRevoked, gone) != 1) {
					return false
				}
			}
			return true
		})
		time.Sleep(2 * time.Minute)
		for _, m := range w.members {
			if m != gone && len(m.mesh.Sessions()) != 3 {
				t.Fatalf("%d sessions, want 3", len(m.mesh.Sessions()))
			}
		}
	})
}

// TestFounderGone restarts everybody but the founder; they mesh without it and let others in.
func TestFounderGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 5 {
			w.admit(w.founder)
		}
		w.startAll()
		w.until("mesh", 10*time.Second, w.meshed)
		for _, m := range w.members {
			m.stop()
		}
		founder := w.founder
		w.members = w.members[1:]
		w.startAll()
		defer w.stopAll()
		w.until("mesh without the founder", 10*time.Second, func() bool {
			for _, m := range w.members {
				if len(m.mesh.Sessions()) != len(w.members)-1 {
					return false
				}
			}
			return true
		})
		if w.members[0].mesh.Map().Peer(founder.id.ID()) == nil {
			t.Fatal("the founder is no member any more")
		}
	})
}

// TestIdleHour keeps one session for an hour in which nothing happens.
func TestIdleHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("mesh", 10*time.Second, w.meshed)
		time.Sleep(time.Hour)
		for _, m := range w.members {
			if m.saw(EventSessionUp, nil) != 1 {
				t.Fatalf("an idle hour saw %d sessions", m.saw(EventSessionUp, nil))
			}
		}
	})
}
