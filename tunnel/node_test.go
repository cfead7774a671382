package tunnel

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// needRoot skips a test that needs a real TUN.
func needRoot(t testing.TB) {
	t.Helper()
	why := ""
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		why = err.Error()
	} else if os.Geteuid() != 0 {
		why = "needs root for a TUN"
	}
	switch {
	case why == "":
	case os.Getenv("MESHNET_CI") == "1":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

// eventually polls until ok, or fails after a generous while.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func testNetwork() netmap.Network {
	id := identity.NetworkID{1, 2, 3}
	return netmap.Network{ID: id, Prefix6: netmap.Prefix6(id), Prefix4: netip.MustParsePrefix("100.77.0.0/16")}
}

// node is a tunnel with what a test needs of it.
type node struct {
	*Tunnel
	id    *identity.Identity
	ip4   netip.Addr
	ip6   netip.Addr
	ctl   netip.Addr
	sock  *airSocket
	stop  func() // ends Run and waits
	mu    sync.Mutex
	wants []time.Time
	ups   []bool // calls of Established: first
}

func (n *node) wanted() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.wants)
}

func (n *node) established() []bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.ups)
}

func (n *node) member() Member { return n.memberWith(testPSK) }

func (n *node) memberWith(psks ...identity.Secret) Member {
	return Member{ID: n.id.ID(), WG: n.id.WG(), IPs: []netip.Addr{n.ip4, n.ip6, n.ctl}, PSKs: psks}
}

func seeded(b byte) *identity.Identity { return identity.FromSeed(identity.Secret{b, 1}) }

// addressesOf is a node that does not run.
func addressesOf(b byte) *node {
	network, id := testNetwork(), seeded(b)
	return &node{
		id: id, ip4: netip.AddrFrom4([4]byte{100, 77, 1, b}),
		ip6: netmap.IdentityAddr(network.ID, id.ID()), ctl: netmap.ControlAddr(network.ID, id.ID()),
	}
}

// config is that of a userspace tunnel.
func (n *node) config() Config {
	return Config{
		PrivateKey: n.id.WGPrivate(), Network: testNetwork(), Control: n.ctl, Socket: n.sock,
		Want: func(identity.PeerID) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.wants = append(n.wants, time.Now())
		},
		Established: func(_ identity.PeerID, first bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.ups = append(n.ups, first)
		},
	}
}

// newNode makes and runs a userspace tunnel; b names it. change may alter the config.
func newNode(t testing.TB, a *air, b byte, change func(*Config)) *node {
	t.Helper()
	n := addressesOf(b)
	n.sock = a.socket(n.id.WG())
	cfg := n.config()
	if change != nil {
		change(&cfg)
	}
	n.start(t, cfg)
	return n
}

// start makes and runs the tunnel of a node.
func (n *node) start(t testing.TB, cfg Config) {
	t.Helper()
	tun, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Tunnel = tun
	tun.SetSelf(testNetwork(), n.ip4, n.ip6)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tun.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("Run does not end")
		}
	})
	t.Cleanup(n.stop)
}

// sync waits until the owner has done all that it was told so far.
func (n *node) sync(t testing.TB) {
	t.Helper()
	done := make(chan struct{})
	n.do(func(*owner) { close(done) })
	select {
	case <-done:
	case <-n.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the owner hangs")
	}
}

func know(nodes ...*node) {
	for _, n := range nodes {
		var others []Member
		for _, o := range nodes {
			if o != n {
				others = append(others, o.member())
			}
		}
		n.SetMembers(others)
	}
}

var testPSK = identity.Secret{9, 9, 9}

// pair is two members with a session.
func pair(t testing.TB) (a, b *node, sky *air) {
	t.Helper()
	sky = newAir()
	a, b = newNode(t, sky, 1, nil), newNode(t, sky, 2, nil)
	know(a, b)
	ping(t, a, b, 8)
	return a, b, sky
}

// ping fails the test unless b answers a.
func ping(t testing.TB, a, b *node, size int) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	took, err := a.Ping(ctx, b.ctl, size)
	if err != nil {
		t.Fatalf("ping of %d bytes: %v; %v; %v", size, err, nonZero(a.Counters()), nonZero(b.Counters()))
	}
	return took
}

// pingAgain pings until there is an answer: one that b sends under a session that a lost is lost with it.
func pingAgain(t testing.TB, a, b *node) {
	t.Helper()
	eventually(t, "an answer", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		_, err := a.Ping(ctx, b.ctl, 8)
		return err == nil
	})
}

func nonZero(m map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64)
	for k, v := range m {
		if v > 0 {
			out[k] = v
		}
	}
	return out
}
