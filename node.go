package meshnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/discovery"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/platform"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/tunnel"
)

// system is the host that the node runs on.
type system interface {
	Apply(platform.Desired) error
	Clear() error
	Snapshot() (platform.Host, error)
	Watch(ctx context.Context, changed func()) error
	Problems(d platform.Desired, port uint16) []platform.Problem
}

// Node is a running member of a network. Its methods are safe for concurrent use.
type Node struct {
	cfg     Config
	log     *slog.Logger
	state   *state
	id      *identity.Identity
	network identity.NetworkID
	sys     system
	conn    *magicsock.Conn
	tun     *tunnel.Tunnel
	out     outside
	seek    finders
	pool    *relay.Pool
	passes  passes
	mesh    *control.Mesh // set before member
	bus     bus
	started time.Time
	noTUN   error // why there is no TUN, where one was tried

	rendezvous atomic.Pointer[func(datagram.Place, []byte)] // who takes datagrams of joining
	applied    atomic.Pointer[netmap.Map]                   // what the workers were told last
	listening  atomic.Pointer[ListenStatus]
	relay      atomic.Pointer[ownRelay]
	member     atomic.Bool // mesh is there
	stopping   atomic.Bool
	problems   atomic.Pointer[[]Health]

	cancel context.CancelFunc // ends the node
	wg     sync.WaitGroup     // every goroutine of the node but its workers
	lower  context.CancelFunc // ends magicsock and tunnel, after the rest
	lowers sync.WaitGroup
	done   chan struct{}
	change chan struct{} // a new map is there

	applying sync.Mutex // one change of what the workers know at a time; held over calls into them

	mu          sync.Mutex
	up          bool                                    // Start has returned a node; guarded by mu
	err         error                                   // why the node stopped; guarded by mu
	provisional map[identity.PeerID]control.Provisional // guarded by mu
	sessions    map[identity.PeerID]bool                // with a control session; guarded by mu
	asked       map[identity.PeerID]time.Time           // packets began to wait for it then; guarded by mu
}

// Start starts a node and returns once it is a member of its network: at once for one that is or that founds it, when
// somebody let it in for one that joins. ctx bounds the start only. Errors: ErrInUse, ErrToken, ErrOtherNetwork,
// ErrInviteExpired, ErrInviteUsed, ErrRevoked, ErrJoinTimeout, ErrNoTUN, and those of the system.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Hostname == "" {
		cfg.Hostname, _ = os.Hostname() // "" becomes "node"
	}
	cfg.Hostname = ledger.SanitizeName(cfg.Hostname)
	st, err := openState(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, state: st, id: st.id, sys: newSystem(cfg.Logger), started: time.Now(),
		out: outside{own: discovery.NewOwn(cfg.Advertise)}, done: make(chan struct{}), change: make(chan struct{}, 1),
		provisional: make(map[identity.PeerID]control.Provisional), sessions: make(map[identity.PeerID]bool),
		asked: make(map[identity.PeerID]time.Time),
	}
	for _, note := range st.store.Notes() {
		n.log.Warn(note)
	}
	if err := errors.Join(n.start(ctx), n.begun()); err != nil {
		n.shutdown()
		return nil, fmt.Errorf("start: %w", err)
	}
	return n, nil
}

// begun lets the node stop by itself from here on. It returns why it would have stopped already.
func (n *Node) begun() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = true
	return n.err
}

// start goes the whole way up. What it made when it fails, shutdown takes down.
func (n *Node) start(ctx context.Context) error {
	token, err := n.choose()
	if err != nil {
		return err
	}
	if err := n.openWorkers(); err != nil {
		return err
	}
	if token != nil {
		if err := n.join(ctx, *token); err != nil {
			return err
		}
	}
	if err := n.openMesh(); err != nil {
		return err
	}
	return n.run()
}

// choose decides which network this node is of. A token is returned when it has yet to be let in.
func (n *Node) choose() (*ledger.Token, error) {
	has, exists := n.state.store.Exists()
	if !exists && n.cfg.Join == "" && n.state.store.Damaged() {
		return nil, &Hinted{
			errors.New("the state folder holds members of a network, but not the network itself"),
			"restore network.cbor from a backup, join again with --join, or use another folder with --state",
		}
	}
	if n.cfg.Join == "" {
		if !exists {
			host, err := n.sys.Snapshot()
			if err != nil {
				return nil, err
			}
			if err := n.state.found(n.cfg, host); err != nil {
				return nil, err
			}
			has, _ = n.state.store.Exists()
		}
		n.network = has
		return nil, nil
	}
	token, err := parseToken(n.cfg.Join)
	if err != nil {
		return nil, err
	}
	n.network = token.Network
	if !exists {
		return &token, nil
	}
	if has == token.Network {
		return nil, nil // a member already
	}
	if !n.state.mayReplace() {
		return nil, &Hinted{ErrOtherNetwork, "use another folder with --state, or move this one away"}
	}
	n.log.Warn("the network that was founded here is replaced: it had no other members and no open invites")
	return &token, nil
}

// Close ends the node: it says goodbye, takes down its addresses and returns when everything has ended. A second call
// waits for the first.
func (n *Node) Close() error {
	n.stop(nil)
	<-n.done
	return nil
}

// stop begins the end, once.
func (n *Node) stop(reason error) {
	n.mu.Lock()
	if !n.up { // Start is still at work and will see it
		n.err = cmp.Or(n.err, reason)
		n.mu.Unlock()
		return
	}
	first := n.stopping.CompareAndSwap(false, true)
	if first {
		n.err = reason
	}
	n.mu.Unlock()
	if !first {
		return
	}
	n.publish(EventNodeStopping, nil, nil)
	go func() { // owner: whoever waits for done; nothing else can, since callers may be the node's own goroutines
		n.shutdown()
		close(n.done)
	}()
}

// goodbyeGrace is how long the last words of control streams may take to leave.
const goodbyeGrace = 50 * time.Millisecond

// shutdown ends what start made, from the top down.
func (n *Node) shutdown() {
	if n.cancel != nil {
		n.cancel()
		n.wg.Wait()
	}
	if n.lower != nil {
		if n.mesh != nil {
			grace := time.NewTimer(goodbyeGrace)
			<-grace.C
		}
		if err := n.sys.Clear(); err != nil && !errors.Is(err, platform.ErrNoTUN) {
			n.log.Warn("take down the interface", "err", err)
		}
		n.lower()
		n.lowers.Wait()
	}
	n.bus.close()
	n.state.close()
}

// Done is closed when the node has ended, by Close or by itself.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err is why the node ended by itself, after Done; nil after Close.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// Events yields what happens from now on, until ctx is done or the node has ended. A subscriber that falls behind
// loses events; the next one it gets says how many.
func (n *Node) Events(ctx context.Context) iter.Seq[Event] { return n.bus.events(ctx) }

func (n *Node) publish(t EventType, peer *netmap.Peer, data map[string]any) {
	e := Event{Time: time.Now().UTC(), Type: t, Data: data}
	if peer != nil {
		id := peer.ID.String()
		e.Peer, e.Name = &id, optional(peer.Name)
	}
	n.bus.publish(e)
}

// KeyPublic is who this node is, and its public key in PEM.
func (n *Node) KeyPublic() (id string, publicPEM []byte) {
	publicPEM, err := n.id.MarshalPublicPEM()
	if err != nil {
		n.log.Error("encode public key", "err", err)
	}
	return n.id.ID().String(), publicPEM
}
