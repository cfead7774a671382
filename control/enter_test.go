package control

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
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

// guest is somebody with a token, whom only relay servers connect with the members.
type guest struct {
	w       *world
	id      *identity.Identity
	store   *Store
	packets chan Datagram

	mu      sync.Mutex
	relays  []string       // used; guarded by mu
	open    bool           // the relay server lets it in; guarded by mu
	asked   map[string]int // Intros by place; guarded by mu
	reasons []string       // guarded by mu
}

func (w *world) guest(seed byte) *guest {
	w.t.Helper()
	store, err := OpenStore(nil, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	g := &guest{
		w: w, id: identity.FromSeed(identity.Secret{8, seed}), store: store, packets: make(chan Datagram, 16), open: true,
		asked: make(map[string]int),
	}
	w.guests.Store(g.id.ID(), g)
	return g
}

func (g *guest) take(from datagram.Place, pkt []byte) {
	select {
	case g.packets <- Datagram{from, bytes.Clone(pkt)}:
	default:
	}
}

func (g *guest) send(to datagram.Place, pkt []byte) {
	g.mu.Lock()
	g.asked[to.String()]++
	through := g.open && len(g.relays) > 0 && to.IsRelay()
	g.mu.Unlock()
	if !through {
		return
	}
	for _, m := range g.w.members {
		if m.id.ID() == to.Relay {
			m.mesh.HandleRendezvous(datagram.Place{Relay: g.id.ID()}, pkt)
		}
	}
}

// enter joins with a token.
func (g *guest) enter(ctx context.Context, token ledger.Token) error {
	network := g.w.ledger.Genesis().ID
	return Enter(ctx, Entrance{
		Identity: g.id, Token: token, Store: g.store, Packets: g.packets, Send: g.send,
		Resolve: func(_ context.Context, hostport string) ([]netip.AddrPort, error) {
			a, err := netip.ParseAddrPort(hostport)
			return []netip.AddrPort{a}, err
		},
		UseRelay: func(url string) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.relays = append(g.relays, url)
		},
		Provisional: func(Provisional) {},
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return g.w.streams.Dial(ctx, netip.AddrPortFrom(netmap.ControlAddr(network, g.id.ID()), 0), to)
		},
		Refused: func(reason string) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.reasons = append(g.reasons, reason)
		},
	})
}

// become makes a guest that got in a member of the world.
func (g *guest) become() *member {
	synctest.Wait() // nobody carries anything meanwhile
	m := &member{world: g.w, id: g.id, store: g.store, index: len(g.w.members)}
	g.w.guests.Delete(g.id.ID())
	g.w.members = append(g.w.members, m)
	return m
}

// TestJoinByRelay: UDP reaches nobody. The token leads to the founder by its relay server; the guest gets in, and goes on
// as a member like others.
func TestJoinByRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.udpBlocked = true
		w.startAll()
		defer w.stopAll()
		w.founder.mesh.SetReach(Reachability{
			Endpoints: []netip.AddrPort{w.founder.underlay()}, Homes: []netmap.Home{{Relay: relayURL}}, NAT: netmap.NATBlocked,
		})
		token, err := w.founder.mesh.NewInvite(nil, time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(token.Hints, ledger.Hint{Addr: relayURL, Node: w.founder.id.ID()}) {
			t.Fatalf("hints %v", token.Hints)
		}
		g := w.guest(1)
		begun := time.Now()
		if err := g.enter(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		t.Logf("in after %v", time.Since(begun))
		if took := time.Since(begun); took > time.Second {
			t.Errorf("in after %v", took)
		}
		if !slices.Equal(g.relays, []string{relayURL}) || g.asked["relay "+w.founder.id.ID().String()] != 1 {
			t.Errorf("relays %v, asked %v", g.relays, g.asked)
		}
		g.become().start()
		w.until("a session", 5*time.Second, w.meshed)
		if c := w.founder.mesh.Counters(); c["intros_answered"] != 1 || c["intros_cookies"] != 0 {
			t.Errorf("%v", c)
		}
	})
}

// TestJoinByLateRelay: the relay server lets the guest in only after a while: it is asked again until then.
func TestJoinByLateRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.udpBlocked = true
		w.startAll()
		defer w.stopAll()
		w.founder.mesh.SetReach(Reachability{Homes: []netmap.Home{{Relay: relayURL}}})
		token, err := w.founder.mesh.NewInvite(nil, time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		g := w.guest(1)
		g.open = false
		time.AfterFunc(10*time.Second, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.open = true
		})
		begun := time.Now()
		if err := g.enter(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < 10*time.Second || took > 20*time.Second {
			t.Errorf("in after %v", took)
		}
	})
}

// TestRefusedByRelay: an invite that was used up is refused for good, by relay as well.
func TestRefusedByRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.udpBlocked = true
		w.startAll()
		defer w.stopAll()
		w.founder.mesh.SetReach(Reachability{Homes: []netmap.Home{{Relay: relayURL}}})
		token, err := w.founder.mesh.NewInvite(nil, time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.guest(1).enter(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if err := w.guest(2).enter(t.Context(), token); !errors.Is(err, ErrInviteUsed) {
			t.Errorf("the second: %v", err)
		}
	})
}

// TestJoinWithoutInviter: the inviter is off; the token leads to another member by relay.
func TestJoinWithoutInviter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.udpBlocked = true
		other := w.admit(w.founder)
		w.startAll()
		defer w.stopAll()
		w.until("session", 5*time.Second, w.meshed)
		other.mesh.SetReach(Reachability{Homes: []netmap.Home{{Relay: relayURL}}})
		w.until("its home is known", 5*time.Second, func() bool {
			return len(w.founder.mesh.Map().Peer(other.id.ID()).Homes) == 1
		})
		token, err := w.founder.mesh.NewInvite(nil, time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		w.streams.Cut(w.founder.control(), sim.Blackhole)
		g := w.guest(1)
		if err := g.enter(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if other.mesh.Map().Peer(g.id.ID()) == nil {
			t.Error("not let in by the other")
		}
	})
}

// TestNoRelayToUse: without UseRelay the hints of relay servers are passed over, and nobody resolves their URLs.
func TestNoRelayToUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, token, err := w.ledger.Invite(w.founder.id, ledger.InviteParams{K: w.founder.store.network.Keys[0]}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		token.Hints = []ledger.Hint{{Addr: relayURL, Node: w.founder.id.ID()}, {Addr: relayURL}}
		sent := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = Enter(ctx, Entrance{
			Identity: identity.FromSeed(identity.Secret{8}), Token: *token, Store: &Store{},
			Send: func(datagram.Place, []byte) { sent++ },
			Resolve: func(_ context.Context, hostport string) ([]netip.AddrPort, error) {
				t.Errorf("resolves %s", hostport)
				return nil, errors.New("no such name")
			},
			Refused: func(string) {},
		})
		if !errors.Is(err, context.DeadlineExceeded) || sent > 0 {
			t.Errorf("%v, %d sent", err, sent)
		}
	})
}
