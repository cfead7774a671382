package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	mainline "github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/log"
	"golang.org/x/time/rate"

	"github.com/meshnet/meshnet/discovery"
)

const (
	searchLimit     = 10 * time.Second // one location
	queriesOut      = 45               // queries a second, of all searches; with the burst, 50 in any second
	queriesOutBurst = 5
	queryLimit      = 2 * time.Second
	resolveLimit    = 5 * time.Second
	// helpAfter is when a search that few nodes have answered asks the bootstrap nodes too.
	helpAfter = 500 * time.Millisecond
	// enoughContacts is with how many known nodes a search begins without the bootstrap nodes.
	enoughContacts = 8
	searchTick     = 100 * time.Millisecond
	startContacts  = 32
	// meetEvery and meetAtOnce bound how many nodes are pinged by one that serves.
	meetEvery  = 2 * time.Second
	meetAtOnce = 4
)

var (
	// ErrNotRunning is returned while Run is not under way.
	ErrNotRunning = errors.New("DHT node is not running")
	// ErrNoNodes is returned when no node of the DHT answered in time.
	ErrNoNodes = errors.New("no DHT node answered")
	// ErrNotStored is returned when no node took a record.
	ErrNotStored = errors.New("no DHT node stored the record")
)

// DefaultBootstrap are nodes that have been ways into the public DHT for many years.
func DefaultBootstrap() []string {
	return []string{
		"router.bittorrent.com:6881", "dht.transmissionbt.com:6881",
		"router.utorrent.com:6881", "dht.libtorrent.org:25401",
	}
}

// Config is what a Node works with. The zero value joins the public DHT by a free port and answers nobody.
type Config struct {
	// Port is the UDP port, 0 for a free one.
	Port uint16
	// Open opens the socket instead, such as one whose packets a tunnel leaves alone. nil: UDP on Port.
	Open func() (net.PacketConn, error)
	// Bootstrap are "host:port" of nodes to begin with, asked all at once and only when too few others are known. nil:
	// DefaultBootstrap; empty: none.
	Bootstrap []string
	// Nodes is what Save returned at an earlier run. Malformed: as if there was none.
	Nodes []byte
	// Serve answers others' queries, at most 100 a second, and keeps up to 1000 items for them. For nodes that anybody
	// can reach; others are read-only (BEP 43).
	Serve  bool
	Logger *slog.Logger // nil: discarded
}

// Status is what a Node has been doing.
type Status struct {
	Nodes, Good             int       // nodes of the DHT known, and of them those that answered within 15 min
	LastLookup, LastPublish time.Time // the end of the last that reached the DHT; zero: none
	Err                     error     // of the last lookup or publish; nil: none
	Queries, Dropped        uint64    // queries sent; packets that arrived and were of no use or one too many
}

// Node reads and writes records in the DHT, by a socket of its own. Safe for concurrent use.
type Node struct {
	cfg      Config
	contacts contacts
	limit    *rate.Limiter

	mu      sync.Mutex
	engine  *engine // nil while not running
	status  Status
	dropped uint64 // by engines that have ended
}

// engine is what one Run has. Immutable.
type engine struct {
	server  *mainline.Server
	guard   *guard
	stopped context.Context
}

// New makes a Node. Nothing is opened or sent before Run, and nothing sent before the first lookup.
func New(cfg Config) *Node {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Bootstrap == nil {
		cfg.Bootstrap = DefaultBootstrap()
	}
	n := &Node{cfg: cfg, limit: rate.NewLimiter(queriesOut, queriesOutBurst)}
	if len(cfg.Nodes) > 0 {
		if err := n.contacts.load(cfg.Nodes); err != nil {
			cfg.Logger.Debug("saved DHT nodes left out", "err", err)
		}
	}
	return n
}

// Run keeps the socket open until ctx ends, whose error it returns, or the socket fails for 5 s. It may be called again
// after it has returned.
func (n *Node) Run(ctx context.Context) error {
	conn, err := n.open()
	if err != nil {
		return fmt.Errorf("open DHT socket: %w", err)
	}
	guard := newGuard(conn, n.cfg.Serve)
	server, err := mainline.NewServer(&mainline.ServerConfig{
		Conn: guard, Passive: !n.cfg.Serve, NoSecurity: true, Logger: silent(),
		Store: newStore(), Exp: storeFor, SendLimiter: rate.NewLimiter(queriesPerSec, queriesBurst),
		QueryResendDelay: func() time.Duration { return queryLimit },
	})
	if err != nil {
		conn.Close()
		return fmt.Errorf("start DHT node: %w", err)
	}
	stopped, stop := context.WithCancel(ctx)
	defer stop()
	e := &engine{server: server, guard: guard, stopped: stopped}
	n.mu.Lock()
	n.engine = e
	n.mu.Unlock()
	n.cfg.Logger.Debug("DHT node started", "endpoint", conn.LocalAddr(), "serve", n.cfg.Serve)
	var wg sync.WaitGroup
	if n.cfg.Serve {
		wg.Go(func() { n.meet(e) })
	}
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-guard.failed:
		err = fmt.Errorf("read DHT socket: %w", err)
	}
	stop()
	n.mu.Lock()
	n.engine = nil
	n.dropped += guard.drops.Load()
	n.mu.Unlock()
	wg.Wait()
	guard.shut(server.Close)
	return err
}

// open opens the socket, for both families if the host has them.
func (n *Node) open() (net.PacketConn, error) {
	if n.cfg.Open != nil {
		return n.cfg.Open()
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(n.cfg.Port)})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// silent takes what the library logs: it logs every packet, and at levels that say nothing about what a user would do.
func silent() log.Logger {
	l := log.NewLogger()
	l.SetHandlers()
	return l
}

// Addr is the socket's own address; invalid while not running.
func (n *Node) Addr() netip.AddrPort {
	e := n.running()
	if e == nil {
		return netip.AddrPort{}
	}
	if udp, ok := e.guard.LocalAddr().(*net.UDPAddr); ok {
		return udp.AddrPort()
	}
	return netip.AddrPort{}
}

// Save is the known nodes, at most 200, for Config.Nodes of a later run.
func (n *Node) Save() []byte { return n.contacts.save() }

// Status is how it stands.
func (n *Node) Status() Status {
	nodes, good := n.contacts.count(time.Now())
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.status
	s.Nodes, s.Good, s.Dropped = nodes, good, n.dropped
	if n.engine != nil {
		s.Dropped += n.engine.guard.drops.Load()
	}
	return s
}

func (n *Node) running() *engine {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.engine
}

// note keeps how a lookup or publish ended.
func (n *Node) note(last *time.Time, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status.Err = err
	if err == nil {
		*last = time.Now()
	}
}

// ask sends one query, within the rate that all searches share, and waits for its answer.
func (n *Node) ask(ctx context.Context, e *engine, addr netip.AddrPort, q string, args krpc.MsgArgs) (krpc.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	done := e.guard.asking(addr)
	defer done()
	n.mu.Lock()
	n.status.Queries++
	n.mu.Unlock()
	res := e.server.Query(ctx, mainline.NewAddr(net.UDPAddrFromAddrPort(addr)), q, mainline.QueryInput{
		MsgArgs: args, RateLimiting: mainline.QueryRateLimiting{NotAny: true},
	})
	return res.Reply, res.ToError()
}

// meet pings the nodes that have queried this one, so that it may name to others those that answer.
func (n *Node) meet(e *engine) {
	ctx := e.stopped
	tried := make(map[netip.AddrPort]time.Time)
	ticker := time.NewTicker(meetEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		maps.DeleteFunc(tried, func(_ netip.AddrPort, at time.Time) bool { return now.Sub(at) > goodFor*2/3 })
		left := meetAtOnce
		for _, who := range contactsOf(e.server.Nodes()) {
			if _, done := tried[who.addr]; done || left == 0 || n.limit.Wait(ctx) != nil {
				continue
			}
			left--
			tried[who.addr] = now
			if msg, err := n.ask(ctx, e, who.addr, "ping", krpc.MsgArgs{}); err == nil && msg.R != nil && nodeID(msg.R.ID) == who.id {
				n.contacts.answered(who, now)
			}
		}
	}
}

// resolve has the bootstrap nodes' addresses sent to found, each as soon as it is known. It returns when all are, or ctx
// ends.
func (n *Node) resolve(ctx context.Context, found func(netip.AddrPort)) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	var wg sync.WaitGroup
	for _, name := range n.cfg.Bootstrap {
		wg.Go(func() {
			addrs, err := discovery.Resolve(ctx, name)
			if err != nil && ctx.Err() == nil {
				n.cfg.Logger.Debug("DHT bootstrap node not found", "endpoint", name, "err", err)
			}
			for _, a := range addrs {
				found(a)
			}
		})
	}
	wg.Wait()
}
