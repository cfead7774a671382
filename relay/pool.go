package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// DefaultHomes is how many servers a pool keeps connected unless it is told otherwise.
const DefaultHomes = 2

// Errors of Pool.Send.
var (
	// ErrNoServer: no relay server might reach the peer now.
	ErrNoServer = errors.New("no relay server leads to the peer")
	// ErrOverflow: older datagrams had to be dropped, as too many wait for a server that is being dialled.
	ErrOverflow = errors.New("too many datagrams wait for a relay server")
)

// PoolConfig configures a Pool.
type PoolConfig struct {
	Logger   *slog.Logger       // nil discards
	Identity *identity.Identity // required
	Pass     func() []byte      // the relay pass to show, asked for at each connection; nil: none
	Homes    int                // kept connected, 1 to 8; 0: DefaultHomes

	// Dial connects to a server, within 12 s; the context is only for that. nil: Dial, with the zero DialConfig.
	Dial func(context.Context, URL) (Stream, error)
	// HomesOf names the relay servers in a peer's reach, its best one first. It is called from Send, Reaches and Via, about
	// once a second for each peer that is sent to; it must be quick and not call the pool. nil: no peer has any.
	HomesOf func(identity.PeerID) []string
	// Deliver takes datagrams that came together, as ClientConfig.Deliver does. nil drops all.
	Deliver func(batch []datagram.Relayed, done func())
	// Events is told what a user or the node's reach may want to know, one at a time, by Run. It must not block.
	Events func(PoolEvent)
}

// EventKind says what happened.
type EventKind uint8

// The events of a pool.
const (
	// Connected: a server is connected; so are several at the start, to find the best ones.
	Connected EventKind = iota + 1
	// Lost: the connection to a server ended, with the error, or was closed after a while without datagrams, without one.
	Lost
	// HomesChanged: other servers, or none, are the node's homes now.
	HomesChanged
	// Refused: a server does not take this node, or is not what it should be. It is tried again, rarely.
	Refused
	// Unwell: a server has something to say to the user, or nothing any more.
	Unwell
)

// PoolEvent is something that happened to a pool.
type PoolEvent struct {
	Kind  EventKind
	URL   string   // of the server; not with HomesChanged
	Err   error    // with Lost and Refused
	Homes []string // with HomesChanged: URLs, the best one first
	Text  string   // with Unwell; empty: all is well again
}

// Pool is a node's side of all relay servers. It keeps the best ones connected as homes, where others find the node, and
// connects to others while there is something to send by them. Safe for concurrent use. Create it with NewPool, then Run
// it.
//
// Send and deliveries only read, but for a new choice of a server about once a second for each peer, which takes mu. No
// lock is held while another is taken, or while anything outside is called.
type Pool struct {
	cfg   PoolConfig
	log   *slog.Logger
	began time.Time
	kick  chan struct{} // capacity 1: Run has to plan anew
	// generation changes whenever choices may have to.
	generation atomic.Uint64
	count      poolCounters

	mu     sync.Mutex
	roster *roster

	peersMu sync.RWMutex
	peers   peerCache
}

// NewPool makes a pool without servers.
func NewPool(cfg PoolConfig) *Pool {
	cfg.Homes = min(max(cmp.Or(cfg.Homes, DefaultHomes), 1), 8)
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, u URL) (Stream, error) { return Dial(ctx, u, DialConfig{}) }
	}
	if cfg.HomesOf == nil {
		cfg.HomesOf = func(identity.PeerID) []string { return nil }
	}
	if cfg.Events == nil {
		cfg.Events = func(PoolEvent) {}
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, began: time.Now(), kick: make(chan struct{}, 1)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.roster = newRoster(p.began, cfg.Homes, rand.Float64)
	return p
}

// SetServers says which servers may become homes: the node's own configuration, then those that members offer. URLs
// that are none are left out, and named in the error.
func (p *Pool) SetServers(urls []string) error {
	var good []URL
	var errs []error
	for _, text := range urls {
		u, err := ParseURL(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.Contains(good, u) {
			good = append(good, u)
		}
	}
	p.mu.Lock()
	p.roster.setServers(time.Now(), good)
	p.mu.Unlock()
	p.changed()
	return errors.Join(errs...)
}

// LinkChanged says that the host is connected in another way than before. Servers that could not be reached are tried
// again at once, and connections are made anew beside the old ones, which may be dead.
func (p *Pool) LinkChanged() {
	p.mu.Lock()
	p.roster.linkChanged(time.Now())
	var attempts []*link
	for _, s := range p.roster.servers {
		s.renew = s.phase == connected
		if s.attempt != nil {
			attempts = append(attempts, s.attempt)
		}
	}
	p.mu.Unlock()
	for _, l := range attempts {
		l.cancel()
	}
	p.changed()
}

// Send sends datagrams to a peer by the best server; urgent ones are signals, which wait for no data. It never blocks:
// while a server is being dialled they wait, within bounds. Errors: ErrNoServer, ErrOverflow, ErrDatagram, ErrQueueFull.
// borrowed: pkts are only used during the call and not changed.
func (p *Pool) Send(to identity.PeerID, pkts [][]byte, urgent bool) error {
	now := time.Now()
	s := p.route(now, to)
	if s == nil {
		p.count.noServer.Add(uint64(len(pkts)))
		return ErrNoServer
	}
	p.touch(now, s)
	if client := s.client.Load(); client != nil {
		return client.Send(to, pkts, urgent)
	}
	return p.park(now, s, to, pkts, urgent)
}

// touch notes that something is sent by a server, and has Run watch it if nothing was lately.
func (p *Pool) touch(now time.Time, s *server) {
	since := int64(now.Sub(p.began))
	s.used.Store(since)
	if before := s.sent.Swap(since); since-before > int64(busyFor) {
		p.wake()
	}
}

// park keeps datagrams for a server until it is connected.
func (p *Pool) park(now time.Time, s *server, to identity.PeerID, pkts [][]byte, urgent bool) error {
	size := 0
	for _, pkt := range pkts {
		if len(pkt) == 0 || len(pkt) > MaxDatagram {
			return ErrDatagram
		}
		size += len(pkt)
	}
	memory := make([]byte, 0, size)
	copies := make([][]byte, len(pkts))
	for i, pkt := range pkts {
		memory = append(memory, pkt...)
		copies[i] = memory[len(memory)-len(pkt) : len(memory) : len(memory)]
	}
	return p.post(s, parcel{to: to, pkts: copies, size: size, urgent: urgent, at: now})
}

// post sends a parcel by a server, or has it wait there.
func (p *Pool) post(s *server, parcel parcel) error {
	p.mu.Lock()
	client := s.client.Load()
	dropped := 0
	if client == nil {
		p.roster.servers[s.url] = s // it may have been forgotten this moment
		dropped = s.park(parcel)
	}
	p.mu.Unlock()
	if client != nil {
		return client.Send(parcel.to, parcel.pkts, parcel.urgent)
	}
	p.wake()
	if dropped > 0 {
		p.count.waited.Add(uint64(dropped))
		return ErrOverflow
	}
	return nil
}

// resend sends parcels by whatever server is best now.
func (p *Pool) resend(parcels []parcel) {
	now := time.Now()
	for _, parcel := range parcels {
		s := p.route(now, parcel.to)
		if s == nil {
			p.count.noServer.Add(uint64(len(parcel.pkts)))
			continue
		}
		p.post(s, parcel) // what it drops is counted
	}
}

// route is the server to send to a peer by; nil: there is none.
func (p *Pool) route(now time.Time, to identity.PeerID) *server {
	peer := p.peer(to)
	if c := p.choiceOf(now, peer); c != nil {
		return c.server
	}
	c := &choice{generation: p.generation.Load(), until: now.Add(choiceTime)}
	homes := p.homesOf(to)
	p.mu.Lock()
	s, named := p.roster.pick(now, peer, homes)
	if named != (URL{}) {
		s = p.roster.named(now, named)
	}
	p.mu.Unlock()
	c.server = s
	peer.choice.Store(c)
	return s
}

// choiceOf is the choice made for a peer a moment ago; nil: one has to be made.
func (p *Pool) choiceOf(now time.Time, peer *peer) *choice {
	if c := peer.choice.Load(); c != nil && c.generation == p.generation.Load() && now.Before(c.until) {
		return c
	}
	return nil
}

// look is route without making anything: no peer and no server is known afterwards that was not before. A server that is
// not known is returned as its URL.
func (p *Pool) look(now time.Time, to identity.PeerID) (s *server, named URL) {
	p.peersMu.RLock()
	peer := p.peers.peek(to)
	p.peersMu.RUnlock()
	if peer != nil {
		if c := p.choiceOf(now, peer); c != nil {
			return c.server, URL{}
		}
	}
	c := &choice{generation: p.generation.Load(), until: now.Add(choiceTime)}
	homes := p.homesOf(to)
	p.mu.Lock()
	s, named = p.roster.pick(now, peer, homes)
	p.mu.Unlock()
	if c.server = s; peer != nil && named == (URL{}) {
		peer.choice.Store(c)
	}
	return s, named
}

// Reaches reports whether a server might reach the peer now: one is connected, or can be dialled, and has not said that
// the peer is not there. It is cheap and may be called from anywhere.
func (p *Pool) Reaches(id identity.PeerID) bool {
	s, named := p.look(time.Now(), id)
	return s != nil || named != URL{}
}

// Via is the URL of the server that datagrams for the peer go by; empty: there is none.
func (p *Pool) Via(id identity.PeerID) string {
	switch s, named := p.look(time.Now(), id); {
	case s != nil:
		return s.text
	case named != URL{}:
		return named.String()
	}
	return ""
}

// homesOf is what the peer's reach names, but for what is no URL.
func (p *Pool) homesOf(id identity.PeerID) []URL {
	texts := p.cfg.HomesOf(id)
	if len(texts) == 0 {
		return nil
	}
	homes := make([]URL, 0, len(texts))
	for _, text := range texts {
		if u, err := ParseURL(text); err == nil {
			homes = append(homes, u)
		}
	}
	return homes
}

// peer finds or makes a peer.
func (p *Pool) peer(id identity.PeerID) *peer {
	p.peersMu.RLock()
	found := p.peers.find(id)
	p.peersMu.RUnlock()
	if found != nil {
		return found
	}
	p.peersMu.Lock()
	defer p.peersMu.Unlock()
	return p.peers.get(id)
}

// changed makes all choices void and has Run plan anew.
func (p *Pool) changed() {
	p.generation.Add(1)
	p.wake()
}

func (p *Pool) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// String names the event in logs.
func (k EventKind) String() string {
	names := [...]string{"", "connected", "lost", "homes changed", "refused", "unwell"}
	if int(k) >= len(names) {
		return fmt.Sprintf("event %d", uint8(k))
	}
	return names[k]
}
