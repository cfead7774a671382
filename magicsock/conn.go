package magicsock

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/udp"
	"github.com/meshnet/meshnet/netmap"
)

// DefaultPort is where a node listens unless it is told otherwise.
const DefaultPort = 41820

// Config of a Conn.
type Config struct {
	Logger   *slog.Logger // nil discards
	Identity *identity.Identity
	Port     uint16   // 0 takes a free one
	Strict   bool     // a taken Port is an error; otherwise a free one is taken instead
	Mark     uint32   // SO_MARK of the sockets on Linux
	Relay    relayLeg // nil: there are no relay servers
	// Events is told what happens, one at a time and in order, by the goroutine of Run.
	Events func(Event)
	// Rendezvous gets packets of joining (first byte 0xC1 to 0xC3). borrowed: pkt is only valid during the call.
	Rendezvous func(from datagram.Place, pkt []byte)
	// STUN gets the STUN messages of the sockets (RFC 8489). borrowed: pkt is only valid during the call.
	STUN func(from netip.AddrPort, pkt []byte)
	// Signal carries a sealed signal to a member by whatever there is besides a path: over the control session with one
	// that has a session with it. It reports whether it left. It must not block, nor call the Conn.
	Signal func(to identity.PeerID, pkt []byte) bool
	// MemberRelay is what this node does for members that do not reach each other. Default: nothing.
	MemberRelay MemberRelay
	// MTU of the inner packets, in bytes: a path has to carry datagrams of MTU + 32. Default 1280.
	MTU int
}

// The families, as indices of Conn.sockets: where packets leave by unless their way names an extra socket.
const (
	family4 = iota
	family6
	families
)

// Conn is the socket of a node.
type Conn struct {
	cfg     Config
	log     *slog.Logger
	sockets [families + maxExtra]atomic.Pointer[udp.Socket] // of the families, and extra ones that carry data
	extras  extras
	relayed chan relayBatch
	wake    chan struct{} // the next deadline may have moved
	ended   chan struct{} // closed with the Conn

	mu      sync.Mutex
	core    *core         // guarded by mu
	swapped chan struct{} // closed and replaced when sockets change; guarded by mu
	port    uint16        // guarded by mu
	closed  bool          // guarded by mu
	events  []Event       // for Run to tell, in order; at most maxEvents; guarded by mu
}

// New opens the sockets: IPv4 and, where the host has it, IPv6 on the same port.
func New(cfg Config) (*Conn, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var boot disco.BootID
	seed := identity.NewSecret()
	copy(boot[:], seed[:])
	c := &Conn{
		cfg: cfg, log: cfg.Logger,
		relayed: make(chan relayBatch, relayQueue),
		wake:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
		swapped: make(chan struct{}),
		core:    newCore(cfg.Identity, boot, rand.New(rand.NewChaCha8(identity.NewSecret()))),
	}
	c.core.conn, c.core.relay, c.core.carried = c, cfg.Relay, cfg.Signal != nil
	c.core.serving = newServing(cfg.MemberRelay)
	if cfg.MTU > 0 {
		c.core.mtu = cfg.MTU
	}
	err := c.open(cfg.Port)
	if err != nil && !cfg.Strict && cfg.Port != 0 {
		err = c.open(0)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on udp port %d: %w", cfg.Port, err)
	}
	return c, nil
}

// open opens both sockets on one port. A host without IPv6 does without.
func (c *Conn) open(port uint16) error {
	const tries = 8 // for a free port that is free in both families
	var err error
	for range tries {
		if err = c.openPair(port); err == nil || port != 0 {
			break
		}
	}
	return err
}

func (c *Conn) openPair(port uint16) error {
	v4, err := udp.Listen(udp.Config{Network: "udp4", Port: port, Mark: c.cfg.Mark})
	if err != nil {
		return err
	}
	v6, err := udp.Listen(udp.Config{Network: "udp6", Port: v4.Port(), Mark: c.cfg.Mark})
	if err != nil && portTaken(err) {
		v4.Close()
		return err
	}
	if err != nil {
		c.log.Debug("no IPv6 socket", "err", err)
		v6 = nil
	}
	c.sockets[family4].Store(v4)
	c.sockets[family6].Store(v6)
	c.mu.Lock()
	c.port = v4.Port()
	c.mu.Unlock()
	return nil
}

// Run handles deadlines until ctx is done, then closes the sockets.
func (c *Conn) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer c.endExtras()
	for {
		select {
		case <-ctx.Done():
			c.close()
			return nil
		case <-c.wake:
		case <-timer.C:
		}
		var orders []order
		c.do(func(now time.Time, core *core) {
			core.tick(now)
			orders = core.takeOrders()
		})
		c.follow(orders)
		c.deliver()
		var next time.Time
		c.do(func(_ time.Time, core *core) { next = core.nextDeadline() })
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), 0)
		}
		timer.Reset(wait)
	}
}

// deliver tells the events that wait.
func (c *Conn) deliver() {
	c.mu.Lock()
	events := c.events
	c.events = nil
	c.mu.Unlock()
	for _, e := range events {
		c.cfg.Events(e)
	}
}

// Close releases the sockets. It is for a Conn whose Run was never called; Run closes by itself.
func (c *Conn) Close() { c.close() }

func (c *Conn) close() {
	if c.shut() {
		c.dropRelayed()
	}
}

// shut closes the sockets, and reports whether it was it that did.
func (c *Conn) shut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.closed = true
	for i := range c.sockets {
		if s := c.sockets[i].Load(); s != nil {
			s.Close()
		}
	}
	close(c.swapped)
	close(c.ended)
	return true
}

// maxEvents bounds the events that wait for Run. Above it new ones are dropped; all of them come again.
const maxEvents = 4096

// do is doAt now.
func (c *Conn) do(f func(now time.Time, core *core)) {
	now := time.Now()
	c.doAt(now, func(core *core) { f(now, core) })
}

// doAt runs f on the core and then sends what the core decided. Events and deadlines that f moved wake Run.
func (c *Conn) doAt(now time.Time, f func(core *core)) {
	c.mu.Lock()
	before := c.core.nextDeadline()
	f(c.core)
	sends, events := c.core.take()
	after := c.core.nextDeadline()
	if c.cfg.Events != nil && len(c.events) < maxEvents {
		c.events = append(c.events, events...)
	}
	wake := len(c.events) > 0 || len(c.core.guesses.orders) > 0 || !after.IsZero() && (before.IsZero() || after.Before(before))
	c.mu.Unlock()
	for i := range sends {
		c.emit(&sends[i])
	}
	if wake {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// SetMap takes over the members, their keys and addresses.
func (c *Conn) SetMap(m *netmap.Map) {
	c.do(func(now time.Time, core *core) { core.setMap(now, m) })
}

// SetOwn tells the node's own underlay addresses, so that it never probes itself, and the zones of its links.
func (c *Conn) SetOwn(own []netip.AddrPort) {
	c.do(func(_ time.Time, core *core) { core.setOwn(own) })
}

// SetSkew tells how far the mesh's clock is ahead of the host's.
func (c *Conn) SetSkew(skew time.Duration) {
	c.do(func(_ time.Time, core *core) { core.setSkew(skew) })
}

// Contact looks for a member that packets wait for, until Connected or for 5 s. Event Reachable follows when it
// answers.
func (c *Conn) Contact(id identity.PeerID) {
	c.do(func(now time.Time, core *core) { core.contact(now, id) })
}

// AddProvisional makes a peer reachable that is no member yet, or whose network we do not know yet, at the place where
// Intro and Welcome went.
func (c *Conn) AddProvisional(id identity.PeerID, wg identity.WGKey, at datagram.Place) {
	c.do(func(now time.Time, core *core) { core.addProvisional(now, id, wg, wayTo(at)) })
}

// RemoveProvisional forgets a peer that did not become a member.
func (c *Conn) RemoveProvisional(id identity.PeerID) {
	c.do(func(_ time.Time, core *core) { core.removeProvisional(id) })
}

// Found takes what an Intro or Welcome told of a member: a place where it answers, and how far its clock is ahead.
func (c *Conn) Found(id identity.PeerID, at datagram.Place, ahead time.Duration) {
	c.do(func(now time.Time, core *core) { core.found(now, id, wayTo(at), ahead) })
}

// SetEndpoints tells where others may find this node, at most 32 of them counting, and what NAT is in front of it. It is
// what calls to members say, so those that look for us without success are told at once.
func (c *Conn) SetEndpoints(addrs []netip.AddrPort, nat netmap.NAT) {
	c.do(func(now time.Time, core *core) { core.setEndpoints(now, addrs, nat) })
}

// SetHomes tells which members are homes of this node: the paths to them are kept open.
func (c *Conn) SetHomes(ids []identity.PeerID) {
	c.do(func(now time.Time, core *core) { core.setHomes(now, ids) })
}

// DeliverSignal takes a sealed signal of a member that came over a control session. borrowed: pkt is only used during the
// call and not changed.
func (c *Conn) DeliverSignal(pkt []byte) {
	c.do(func(now time.Time, core *core) { core.handleSignal(now, pkt) })
}

// LinkChanged verifies every path in use anew, at once, after the host's links or addresses changed.
func (c *Conn) LinkChanged() {
	c.do(func(now time.Time, core *core) { core.linkChanged(now) })
}

// Port is the UDP port in use.
func (c *Conn) Port() uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.port
}

// BootID is drawn at New and tells others that this node restarted.
func (c *Conn) BootID() [8]byte { return c.core.boot }

// Peer describes how a peer is reached; ok is false for one that is not in the map.
func (c *Conn) Peer(id identity.PeerID) (info PeerInfo, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.core.peers[id]; p != nil {
		return c.core.info(time.Now(), p), true
	}
	if n := c.core.members.Peer(id); n != nil {
		return c.core.infoOfMember(n), true
	}
	return PeerInfo{}, false
}

// Rebind opens new sockets on the same port, or on a free one where that is taken by now. Receivers go on with the
// new ones; peers are verified anew.
func (c *Conn) Rebind() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	port := c.port
	c.mu.Unlock()
	for i := range c.sockets {
		if s := c.sockets[i].Load(); s != nil {
			s.Close()
		}
	}
	err := c.open(port)
	if err != nil {
		err = c.open(0)
	}
	c.mu.Lock()
	if c.closed { // lost the race with close: nobody else will
		for i := range c.sockets {
			if s := c.sockets[i].Load(); s != nil {
				s.Close()
			}
		}
		c.mu.Unlock()
		return nil
	}
	close(c.swapped)
	c.swapped = make(chan struct{})
	c.mu.Unlock()
	c.do(func(now time.Time, core *core) { core.rebound(now) })
	return err
}
