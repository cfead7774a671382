package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// Errors of this package that callers branch on.
var (
	// ErrNoTUN wraps why the interface could not be made; a userspace tunnel works without one.
	ErrNoTUN = errors.New("no TUN interface")
	// ErrControlAddress is the answer to whoever wants a program to use the control subnet.
	ErrControlAddress = errors.New("control addresses are not for programs")
	// ErrNoMember says that nobody has the address.
	ErrNoMember = errors.New("no member has this address")
	// ErrNoAddress says that this node has no own address of the wanted family yet.
	ErrNoAddress = errors.New("no own address of this family yet")
	// ErrClosed is for calls after the tunnel ended.
	ErrClosed = fmt.Errorf("tunnel closed: %w", fs.ErrClosed)
	// ErrInterfaceGone is what Run returns when the OS took the interface away.
	ErrInterfaceGone = errors.New("TUN interface is gone")
)

// DefaultMTU is the inner MTU, the least that IPv6 allows.
const DefaultMTU = 1280

// Config says what a Tunnel is made of.
type Config struct {
	Logger     *slog.Logger    // nil discards
	PrivateKey identity.Secret // of WireGuard
	Network    netmap.Network  // ID and Prefix6 are needed; Prefix4 may come later through SetSelf
	Control    netip.Addr      // own control address
	Socket     socket          // carries datagrams
	Interface  string          // name of the TUN to create; "" makes a userspace tunnel
	MTU        int             // inner; 0 is DefaultMTU
	// Want is told each time that a handshake with a member is tried which has no session. It must not block. nil ignores.
	Want func(identity.PeerID)
	// Established is told of each new session; first: there was none before. It must not block. nil ignores.
	Established func(id identity.PeerID, first bool)
	// Reserved is the time up to which an earlier run may have stamped initiations; others refuse older stamps. Reserve
	// is called before a stamp goes beyond what was last reserved, and at the end with what was used; it should keep the
	// time on disk. nil: nothing is kept.
	Reserved time.Time
	Reserve  func(until time.Time)
}

// PeerStats is what is known of a member.
type PeerStats struct {
	Session       bool   // packets go
	RxBytes       uint64 // of datagrams
	TxBytes       uint64
	LastHandshake time.Time // the zero time: never
	LastReceive   time.Time
}

// Tunnel is a WireGuard device with everything around it. Its methods are safe for concurrent use. New, then Run once;
// sockets may be opened before Run, but nothing moves until then.
type Tunnel struct {
	cfg      Config
	log      *slog.Logger
	name     string
	counters counters
	machine  *wg.Machine // Run's owner has it
	door     *door
	tap      *tap
	stack    *netstack
	forward  *forwarder
	commands chan func(*owner) // to the owner; a full queue makes callers wait
	started  atomic.Bool
	done     chan struct{} // Run has ended, or Close

	mu        sync.Mutex // orders SetSelf, SetFilter and SetMembers
	listeners closers
}

// New makes the TUN interface, if one is wanted, and the netstack. A Tunnel that never runs has to be closed.
func New(cfg Config) (*Tunnel, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	t := &Tunnel{
		cfg: cfg, log: cfg.Logger,
		commands: make(chan func(*owner), 1024),
		done:     make(chan struct{}),
	}
	var err error
	now, seed := time.Now(), identity.NewSecret()
	if t.machine, err = wg.New(cfg.PrivateKey, now, rand.New(rand.NewChaCha8(seed))); err != nil {
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	t.machine.NotBefore(cfg.Reserved)
	t.door = newDoor(t.machine.Static(), cfg.Socket.Reply, &t.counters)
	host, err := t.openTUN()
	if err != nil {
		return nil, err
	}
	t.tap = newTap(host, cfg.MTU, t.machine.Clock(), &t.counters)
	t.tap.self.Store(newSelf(cfg.Network, cfg.Control, netip.Addr{}, netip.Addr{}, host == nil))
	if t.stack, err = newNetstack(cfg.MTU, newStackWriter(t.tap).write); err != nil {
		t.closeTUN()
		return nil, fmt.Errorf("tunnel: netstack: %w", err)
	}
	t.tap.inject, t.tap.injectParts = t.stack.inject, t.stack.injectParts
	t.stack.setAddresses(t.tap.self.Load().stackAddress)
	t.forward = newForwarder(t.stack, &t.counters, t.tap.self.Load)
	return t, nil
}

// complete fills in the defaults.
func (c *Config) complete() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.Want == nil {
		c.Want = func(identity.PeerID) {}
	}
	if c.Established == nil {
		c.Established = func(identity.PeerID, bool) {}
	}
	if c.Socket == nil || !c.Control.Is6() || !c.Network.Prefix6.IsValid() {
		return errors.New("tunnel: Socket, Control and Network.Prefix6 are needed")
	}
	return nil
}

// openTUN makes the interface; nil without error in userspace mode.
func (t *Tunnel) openTUN() (host, error) {
	if t.cfg.Interface == "" {
		return nil, nil
	}
	h, err := openHost(t.cfg.Interface, t.cfg.MTU)
	if err != nil {
		return nil, fmt.Errorf("%w: create %s: %w", ErrNoTUN, t.cfg.Interface, err)
	}
	t.name = h.name()
	return h, nil
}

// Run carries packets until ctx ends, then returns nil after everything it started ended and every socket is closed.
// It can be called once.
//
// It has a goroutine for the OS TUN, one for each leg of the socket, and the owner.
func (t *Tunnel) Run(ctx context.Context) error {
	if !t.started.CompareAndSwap(false, true) {
		return errors.New("tunnel: runs or ran already")
	}
	var workers sync.WaitGroup
	receiving, stop := context.WithCancel(ctx)
	gone := make(chan error, 1)
	if h := t.tap.host; h != nil {
		workers.Go(h.run)
		workers.Go(func() { gone <- newHostReader(t.tap).run() })
	}
	for leg := range t.cfg.Socket.Legs() {
		in := t.newInbox()
		workers.Go(func() {
			if err := t.cfg.Socket.Receive(receiving, leg, in.take); err != nil {
				t.log.Error("receive", "leg", leg, "err", err)
			}
		})
	}
	o := t.newOwner()
	err := t.loop(ctx, o, gone)
	stop()
	if h := t.tap.host; h != nil {
		_ = h.close()
	}
	close(t.done)
	t.closeSockets()
	workers.Wait()
	o.close()
	return err
}

func (t *Tunnel) newInbox() *inbox {
	in := &inbox{tap: t.tap, sessions: t.machine.Table(), door: t.door}
	if t.tap.host != nil {
		in.out = t.tap.host.writer()
	}
	return in
}

func (t *Tunnel) newOwner() *owner {
	return &owner{
		machine: t.machine, tap: t.tap, door: t.door, out: newOutbox(t.tap, stackArena),
		cfg: &t.cfg, log: t.log, relink: t.relink, reserved: t.cfg.Reserved,
	}
}

// do hands f to the owner. It waits while the owner's queue is full, and gives up when the tunnel ended.
func (t *Tunnel) do(f func(*owner)) {
	select {
	case t.commands <- f:
	case <-t.done:
	}
}

// closeSockets ends the netstack with everything that uses it.
func (t *Tunnel) closeSockets() {
	t.listeners.close()
	t.forward.close()
	t.stack.close()
}

// Close frees a Tunnel that never ran. After Run it does nothing.
func (t *Tunnel) Close() {
	if t.started.CompareAndSwap(false, true) {
		close(t.done)
		t.closeSockets()
		t.closeTUN()
	}
}

// closeTUN closes the interface and waits for its listener.
func (t *Tunnel) closeTUN() {
	if h := t.tap.host; h != nil {
		_ = h.close()
		h.run()
	}
}

// Kick repeats an initiation that waits for its answer at once: a path to the member began to work.
func (t *Tunnel) Kick(id identity.PeerID) {
	t.withPeer(id, func(now time.Time, o *owner, p *peer) {
		o.perform(now, o.machine.Kick(now, p.wg))
	})
}

// Renew begins a handshake with a member even if there is a session, which goes on until the new one works: the member
// restarted, or has another pre-shared key.
func (t *Tunnel) Renew(id identity.PeerID) {
	t.withPeer(id, func(now time.Time, o *owner, p *peer) {
		o.perform(now, o.machine.Renew(now, p.wg))
	})
}

// Disconnect ends the session with a member, which said goodbye. The next packet begins a new one.
func (t *Tunnel) Disconnect(id identity.PeerID) {
	t.withPeer(id, func(now time.Time, o *owner, p *peer) {
		o.perform(now, o.machine.Drop(now, p.wg))
	})
}

// Keepalive sends a member an empty packet, if there is a session with it.
func (t *Tunnel) Keepalive(id identity.PeerID) {
	t.withPeer(id, func(now time.Time, o *owner, p *peer) {
		if p.wg.Ready(t.machine.Clock().At(now)) {
			o.keepalive(now, p)
		}
	})
}

// Heard is when the last packet of a member's session came; the zero time: none did.
func (t *Tunnel) Heard(id identity.PeerID) time.Time {
	p := t.tap.table.Load().byID[id]
	if p == nil {
		return time.Time{}
	}
	return p.wg.Stats(t.machine.Clock(), time.Now()).LastReceive
}

// withPeer has the owner do something about a member.
func (t *Tunnel) withPeer(id identity.PeerID, f func(now time.Time, o *owner, p *peer)) {
	t.do(func(o *owner) {
		if p := o.tap.table.Load().byID[id]; p != nil {
			f(time.Now(), o, p)
			return
		}
		o.tap.counters.add(unknownMember)
	})
}

// Stats tells about every member.
func (t *Tunnel) Stats() map[identity.PeerID]PeerStats {
	now, peers := time.Now(), t.tap.table.Load().byID
	all := make(map[identity.PeerID]PeerStats, len(peers))
	for id, p := range peers {
		s := p.wg.Stats(t.machine.Clock(), now)
		all[id] = PeerStats{
			Session: s.Session, RxBytes: s.RxBytes, TxBytes: s.TxBytes,
			LastHandshake: s.LastHandshake, LastReceive: s.LastReceive,
		}
	}
	return all
}

// Counters are the drops by reason, and a few other rare events.
func (t *Tunnel) Counters() map[string]uint64 { return t.counters.snapshot() }

// InterfaceName is what the OS calls the TUN, "" in userspace mode.
func (t *Tunnel) InterfaceName() string { return t.name }

// MTU is the inner MTU.
func (t *Tunnel) MTU() int { return t.cfg.MTU }

// Userspace tells whether there is no TUN.
func (t *Tunnel) Userspace() bool { return t.tap.host == nil }
