package relayserver

import (
	"cmp"
	crand "crypto/rand"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
)

// Defaults of Config.
const (
	DefaultIdle       = 60 * time.Second
	DefaultMaxClients = 65536
)

const (
	maxHalfOpen = 1024 // streams in their handshake
	// restartSpread is the time over which clients are asked to come back after Close, each at a moment of its own.
	restartSpread = 2 * time.Second
	restartTry    = 30 * time.Second
	// farewell is how long a client has to read its last frame and to close the stream.
	farewell = time.Second
)

// Bounds of what waits for one client, before the oldest is dropped.
const (
	queueFrames  = 8192
	queueBytes   = 512 << 10 // or a frame of the greatest length
	urgentBytes  = 64 << 10
	urgentFrames = 512
)

// ErrClosed is returned for a stream that comes after Close.
var ErrClosed = errors.New("relay server closed")

// Config says what a Server allows. The zero value works and is open to everybody.
type Config struct {
	Logger *slog.Logger // nil discards

	Idle     time.Duration // a stream without a byte for that long is closed; 0: DefaultIdle; at least 3 s
	MaxFrame int           // greatest payload, in bytes; 0: relay.DefaultMaxFrame; relay.MinMaxFrame to MaxMaxFrame
	Rate     int           // bytes per second read from one client, with a burst of a quarter of a second; 0: no limit
	// AllowNetworks are the relay pass keys of the networks served. Empty: everybody is.
	AllowNetworks []identity.PeerID
	MaxClients    int    // 0: DefaultMaxClients
	STUNPort      uint16 // UDP port of the STUN responder beside; 0: none
}

// Server forwards between the streams it is given. Safe for concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	id      relay.ServerID
	allowed atomic.Pointer[[]identity.PeerID]
	count   counters
	places  registry
	half    halfOpen

	mu      sync.Mutex
	live    map[*session]struct{}
	serving sync.WaitGroup // ServeConn calls; Add only while not closed
	closed  bool
}

// New makes a server. Values out of range are brought into it.
func New(cfg Config) *Server {
	cfg.Idle = max(cmp.Or(cfg.Idle, DefaultIdle), 3*time.Second)
	cfg.MaxFrame = min(max(cmp.Or(cfg.MaxFrame, relay.DefaultMaxFrame), relay.MinMaxFrame), relay.MaxMaxFrame)
	cfg.MaxClients = cmp.Or(cfg.MaxClients, DefaultMaxClients)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, live: make(map[*session]struct{})}
	crand.Read(s.id[:])
	s.places.init()
	s.Allow(cfg.AllowNetworks)
	return s
}

// ID is the id that ServerHello tells, drawn by New.
func (s *Server) ID() relay.ServerID { return s.id }

// Allow replaces Config.AllowNetworks, for clients that come from now on.
func (s *Server) Allow(networks []identity.PeerID) {
	keys := slices.Clone(networks)
	s.allowed.Store(&keys)
}

// keepAlive is how often clients are to be heard: more than twice within Idle.
func (s *Server) keepAlive() time.Duration {
	return max(time.Second, (s.cfg.Idle * 5 / 12).Truncate(time.Second))
}

// jittered is keepAlive less up to a tenth, so that clients are not served all at once.
func (s *Server) jittered() time.Duration {
	d := s.keepAlive()
	return d - rand.N(d/10)
}

// enter counts a session that was admitted. It fails when there are enough, or the server is closed.
func (s *Server) enter(c *session) (relay.Code, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.live) >= s.cfg.MaxClients {
		return relay.RefusedFull, false
	}
	s.live[c] = struct{}{}
	s.count.opened.Add(1)
	if c.home {
		s.count.homes.Add(1)
	}
	return 0, true
}

func (s *Server) leave(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, c)
	s.count.closed.Add(1)
	if c.home {
		s.count.homes.Add(^uint64(0))
	}
}

// begin counts a call of ServeConn.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.serving.Add(1)
	return true
}

// Close tells all clients that the server restarts, ends their streams, and returns when every ServeConn has. Clients
// are asked to come back one by one. Calling it again waits as well.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	all := make([]*session, 0, len(s.live))
	for c := range s.live {
		all = append(all, c)
	}
	s.mu.Unlock()
	for i, c := range all {
		in := restartSpread * time.Duration(i) / time.Duration(len(all))
		c.leaveWith(relay.AppendRestarting(nil, in, restartTry), nil)
	}
	s.half.closeAll()
	s.serving.Wait()
	return nil
}
