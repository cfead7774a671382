package relayserver

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/relay"
)

// maxWaiting is how many connections may be on their way to becoming a stream: in TLS, or in HTTP.
const maxWaiting = 1024

// gate bounds the connections that are no streams yet, in number and in time. When there are too many, the oldest one
// of the prefix that has most of them goes: who opens connections and says nothing loses them, and others get in.
// Guarded by mu.
type gate struct {
	mu      sync.Mutex
	n       int
	waiting map[netip.Prefix][]*entrant // oldest first
	pushed  uint64                      // out, for newer ones
}

func newGate() *gate { return &gate{waiting: make(map[netip.Prefix][]*entrant)} }

// entrant is a connection that is no stream yet, or was. It leaves the gate when it is closed or passes.
type entrant struct {
	net.Conn
	gate   *gate
	prefix netip.Prefix
	timer  *time.Timer // closes it
}

// enter takes a connection in.
func (g *gate) enter(conn net.Conn) *entrant {
	e := &entrant{Conn: conn, gate: g, prefix: bucket.PrefixOf(remote(conn).Addr())}
	g.mu.Lock()
	var out *entrant
	if g.n >= maxWaiting {
		out = g.oldest()
		g.remove(out)
		g.pushed++
	}
	e.timer = time.AfterFunc(relay.HandshakeTime, func() { e.Close() })
	g.waiting[e.prefix] = append(g.waiting[e.prefix], e)
	g.n++
	g.mu.Unlock()
	if out != nil {
		out.Close()
	}
	return e
}

// oldest is who has to go.
func (g *gate) oldest() *entrant {
	var most []*entrant
	for _, of := range g.waiting {
		if len(of) > len(most) {
			most = of
		}
	}
	return most[0]
}

// remove forgets e, if it is there.
func (g *gate) remove(e *entrant) {
	of := g.waiting[e.prefix]
	i := slices.Index(of, e)
	if i < 0 {
		return
	}
	e.timer.Stop()
	g.n--
	if of = slices.Delete(of, i, i+1); len(of) == 0 {
		delete(g.waiting, e.prefix)
		return
	}
	g.waiting[e.prefix] = of
}

// pass lets e through: it is a stream now, and others look after it. False: it was closed before.
func (e *entrant) pass() bool {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	waits := slices.Contains(e.gate.waiting[e.prefix], e)
	e.gate.remove(e)
	return waits
}

// Close closes the connection.
func (e *entrant) Close() error {
	e.pass()
	return e.Conn.Close()
}

// NetConn is the connection under it.
func (e *entrant) NetConn() net.Conn { return e.Conn }

// closeAll closes those who wait.
func (g *gate) closeAll() {
	g.mu.Lock()
	var all []*entrant
	for _, of := range g.waiting {
		all = append(all, of...)
	}
	g.mu.Unlock()
	for _, e := range all {
		e.Close()
	}
}

// The wait after an accept that failed, as of too many open files: doubled up to the second.
const (
	acceptWait    = 5 * time.Millisecond
	acceptMaxWait = time.Second
)

// acceptor accepts through the gate. A failure that may pass is waited for, and logged once in a row of them.
type acceptor struct {
	net.Listener
	gate *gate
	log  *slog.Logger
	done <-chan struct{}
}

// Accept returns an *entrant.
func (a *acceptor) Accept() (net.Conn, error) {
	for wait := acceptWait; ; wait = min(2*wait, acceptMaxWait) {
		conn, err := a.Listener.Accept()
		if err == nil {
			return a.gate.enter(conn), nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if wait == acceptWait {
			a.log.Warn("cannot accept clients", "err", err)
		}
		select {
		case <-time.After(wait):
		case <-a.done:
			return nil, net.ErrClosed
		}
	}
}
