package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
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
	Bind       conn.Bind       // sends and receives; its ParseEndpoint gets a peer's WireGuard key in hex
	Interface  string          // name of the TUN to create; "" makes a userspace tunnel
	MTU        int             // inner; 0 is DefaultMTU
	// Want is told that packets wait for a member without a WireGuard peer, at most once per 250 ms and member, from a
	// goroutine of its own. It must not block. nil ignores.
	Want func(identity.PeerID)
	// Answering tells that an initiation of a member came a moment ago and is being answered: one of ours would end the
	// session that begins. It must not block. nil: never.
	Answering func(identity.PeerID) bool
}

// PeerSession is what contact with a member agreed on.
type PeerSession struct {
	ID         identity.PeerID
	WG         identity.WGKey
	PSK        identity.Secret
	AllowedIPs []netip.Prefix // empty: the member's addresses
	Initiate   bool           // send the handshake initiation; otherwise the other side does
}

// PeerStats is what is known of a member that was installed once.
type PeerStats struct {
	Installed     bool // it is in the device now
	RxBytes       uint64
	TxBytes       uint64
	LastHandshake time.Time
	LastReceive   time.Time // when RxBytes last grew, as sampled
}

// Tunnel is a WireGuard device with everything around it. Its methods are safe for concurrent use. New, then Run once;
// sockets may be opened before Run, but nothing moves until then.
type Tunnel struct {
	cfg      Config
	log      *slog.Logger
	name     string
	counters counters
	tap      *tap
	stack    *netstack
	forward  *forwarder
	commands chan func(*owner) // to the owner; a full queue makes callers wait
	wants    chan *peer        // to ask; when full, the next packet asks again
	started  atomic.Bool
	done     chan struct{} // Run has ended, or Close
	stats    atomic.Pointer[map[identity.PeerID]PeerStats]

	mu        sync.Mutex // orders SetSelf, SetFilter and SetMembers
	listeners closers
}

// New makes the TUN interface, if one is wanted, and the netstack. A Tunnel that never runs has to be closed.
func New(cfg Config) (*Tunnel, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	if cfg.Want == nil {
		cfg.Want = func(identity.PeerID) {}
	}
	if cfg.Bind == nil || !cfg.Control.Is6() || !cfg.Network.Prefix6.IsValid() {
		return nil, errors.New("tunnel: Bind, Control and Network.Prefix6 are needed")
	}
	t := &Tunnel{
		cfg: cfg, log: cfg.Logger,
		commands: make(chan func(*owner), 1024),
		wants:    make(chan *peer, 256),
		done:     make(chan struct{}),
	}
	t.stats.Store(&map[identity.PeerID]PeerStats{})
	dev, err := t.createTUN()
	if err != nil {
		return nil, err
	}
	t.tap = newTap(dev, cfg.MTU, &t.counters)
	t.tap.want = t.askFor
	t.tap.self.Store(newSelf(cfg.Network, cfg.Control, netip.Addr{}, netip.Addr{}, dev == nil))
	if t.stack, err = newNetstack(cfg.MTU, t.tap.fromStack); err != nil {
		t.closeTap()
		return nil, fmt.Errorf("tunnel: netstack: %w", err)
	}
	t.tap.inject = t.stack.inject
	t.stack.setAddresses(t.tap.self.Load().stackAddress)
	t.forward = newForwarder(t.stack, &t.counters, t.tap.self.Load)
	return t, nil
}

// createTUN makes the interface; nil without error in userspace mode.
func (t *Tunnel) createTUN() (tun.Device, error) {
	if t.cfg.Interface == "" {
		return nil, nil
	}
	dev, err := tun.CreateTUN(t.cfg.Interface, t.cfg.MTU)
	if err != nil {
		return nil, fmt.Errorf("%w: create %s: %w", ErrNoTUN, t.cfg.Interface, err)
	}
	if t.name, err = dev.Name(); err != nil {
		_ = dev.Close()
		return nil, fmt.Errorf("%w: name of %s: %w", ErrNoTUN, t.cfg.Interface, err)
	}
	return dev, nil
}

// Run carries packets until ctx ends, then returns nil after everything it started ended and every socket is closed.
// It can be called once.
func (t *Tunnel) Run(ctx context.Context) error {
	if !t.started.CompareAndSwap(false, true) {
		return errors.New("tunnel: runs or ran already")
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(t.done)
	defer t.closeSockets()
	asking, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(t.tap.run)
	dev, closed, err := newDevice(t.tap, t.cfg.Bind, t.cfg.PrivateKey, t.log)
	if err != nil {
		_ = t.tap.Close()
		return fmt.Errorf("tunnel: %w", err)
	}
	defer dev.close()
	wg.Go(func() { t.ask(asking) })
	return t.loop(ctx, t.newOwner(dev), closed)
}

func (t *Tunnel) newOwner(e engine) *owner {
	answers := t.cfg.Answering
	if answers == nil {
		answers = func(identity.PeerID) bool { return false }
	}
	return &owner{
		engine: e, lot: t.tap.lot, counters: &t.counters, log: t.log, clock: time.Now, answers: answers,
		lookup:   func(id identity.PeerID) *peer { return t.tap.table.Load().byID[id] },
		publish:  func(m map[identity.PeerID]PeerStats) { t.stats.Store(&m) },
		sessions: make(map[identity.PeerID]*session),
	}
}

// loop is the owner's: the only goroutine that configures the device.
func (t *Tunnel) loop(ctx context.Context, o *owner, closed <-chan struct{}) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if next := o.tick(); !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-closed:
			return fmt.Errorf("tunnel: %s: %w", t.name, ErrInterfaceGone)
		case f := <-t.commands:
			f(o)
		case <-due:
		}
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
		t.closeSockets()
		t.closeTap()
		close(t.done)
	}
}

// closeTap closes the interface and waits for its listener.
func (t *Tunnel) closeTap() {
	_ = t.tap.Close()
	if t.tap.os != nil {
		t.tap.watch()
	}
}

// Install adds the member's WireGuard peer or changes it, and lets its packets go. With Initiate a handshake initiation
// is sent at once and again after 0.25, 0.5, 1 and 2 s, as long as there is no session.
func (t *Tunnel) Install(p PeerSession) {
	t.do(func(o *owner) { o.install(p) })
}

// Reset ends the session and repeats the last Install, initiating in any case, since the other side may believe in the
// old session: it restarted, or does not answer. Packets that wait for a handshake are kept, in order. Without an
// earlier Install it does nothing.
func (t *Tunnel) Reset(id identity.PeerID) {
	t.do(func(o *owner) { o.reset(id) })
}

// SetPSK changes the pre-shared key from the next handshake on; the session goes on.
func (t *Tunnel) SetPSK(id identity.PeerID, psk identity.Secret) {
	t.do(func(o *owner) { o.setPSK(id, psk) })
}

// Remove takes the WireGuard peer out and drops what waits for it. As a member it may come back by Install.
func (t *Tunnel) Remove(id identity.PeerID) {
	t.do(func(o *owner) { o.remove(id) })
}

// Stats tells about every member that was installed, as of now while Run works, as of its end afterwards.
func (t *Tunnel) Stats() map[identity.PeerID]PeerStats {
	fresh := make(chan struct{})
	if t.started.Load() {
		t.do(func(o *owner) {
			o.refresh(o.clock())
			close(fresh)
		})
		select {
		case <-fresh:
		case <-t.done:
		}
	}
	return *t.stats.Load() // never changed after it was published
}

// Counters are the drops by reason, and a few other rare events.
func (t *Tunnel) Counters() map[string]uint64 { return t.counters.snapshot() }

// InterfaceName is what the OS calls the TUN, "" in userspace mode.
func (t *Tunnel) InterfaceName() string { return t.name }

// MTU is the inner MTU.
func (t *Tunnel) MTU() int { return t.cfg.MTU }

// Userspace tells whether there is no TUN.
func (t *Tunnel) Userspace() bool { return t.tap.os == nil }
