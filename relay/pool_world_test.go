package relay_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/relayserver"
)

// world is relay servers in memory, by name, and nodes.
type world struct {
	t *testing.T

	mu    sync.Mutex
	relay map[string]*worldRelay
}

type worldRelay struct {
	*relayserver.Memory
	latency time.Duration
	err     error // of dialling it
	hangs   bool  // dialling it never ends
	conns   []*wire
}

// newWorld makes it. It has to end before the bubble does.
func newWorld(t *testing.T) *world {
	w := &world{t: t, relay: make(map[string]*worldRelay)}
	t.Cleanup(func() {
		for _, r := range w.relay {
			r.Close()
		}
	})
	return w
}

func urlOf(name string) string { return "https://" + name + ".example" }

func urlsOf(names string) (urls []string) {
	for name := range strings.FieldsSeq(names) {
		urls = append(urls, urlOf(name))
	}
	return urls
}

func namesOf(urls []string) string {
	var names []string
	for _, url := range urls {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(url, "https://"), ".example"))
	}
	return strings.Join(names, " ")
}

// start starts a relay of that name, also one that was there before.
func (w *world) start(name string, latency time.Duration, cfg relayserver.Config) *worldRelay {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &worldRelay{Memory: relayserver.NewMemory(cfg), latency: latency}
	w.relay[name] = r
	return r
}

// crash ends a relay without a word.
func (w *world) crash(name string) {
	w.mu.Lock()
	r := w.relay[name]
	delete(w.relay, name)
	conns := r.conns
	r.conns = nil
	w.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	r.Close()
}

// shut has a relay tell its clients that it restarts, and end.
func (w *world) shut(name string) {
	w.mu.Lock()
	r := w.relay[name]
	r.err = errNobody
	w.mu.Unlock()
	r.Close()
}

// hang has attempts to connect to a relay end, or not.
func (w *world) hang(name string, hangs bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.relay[name].hangs = hangs
}

// each does something with all connections to a relay.
func (w *world) each(name string, f func(*wire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.relay[name].conns {
		f(c)
	}
}

func (w *world) dial(ctx context.Context, u relay.URL) (relay.Stream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.relay[strings.TrimSuffix(u.Host, ".example")]
	switch {
	case r == nil:
		return relay.Stream{}, errNobody
	case r.err != nil:
		return relay.Stream{}, r.err
	case r.hangs:
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		return relay.Stream{}, context.Cause(ctx)
	}
	s, err := r.Dial(ctx)
	if err != nil {
		return s, err
	}
	c := newWire(s.Conn, r.latency)
	r.conns = append(r.conns, c)
	s.Conn = c
	return s, nil
}

var errNobody = errors.New("nobody listens")

// wire is a connection with a latency, that can go dead.
type wire struct {
	net.Conn
	in   chan parcelAt
	rest []byte
	mu   sync.Mutex
	dead bool
}

type parcelAt struct {
	data []byte
	at   time.Time
	err  error
}

func newWire(conn net.Conn, latency time.Duration) *wire {
	c := &wire{Conn: conn, in: make(chan parcelAt, 1024)}
	go func() { // ends with conn
		for {
			buf := make([]byte, 64<<10)
			n, err := conn.Read(buf)
			c.in <- parcelAt{buf[:n], time.Now().Add(latency), err}
			if err != nil {
				return
			}
		}
	}()
	return c
}

// cut has nothing pass any more, without anybody being told.
func (c *wire) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
}

func (c *wire) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

func (c *wire) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		next := <-c.in
		time.Sleep(time.Until(next.at))
		if next.err != nil {
			return 0, next.err
		}
		if !c.isDead() {
			c.rest = next.data
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *wire) Write(p []byte) (int, error) {
	if c.isDead() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// poolNode is a node with its pool, and all that it was told.
type poolNode struct {
	*relay.Pool
	id   identity.PeerID
	stop func()

	mu     sync.Mutex
	homes  map[identity.PeerID]string // names of relays, by peer
	got    []string                   // text of datagrams
	from   []identity.PeerID
	at     []time.Time
	events []string
}

// node runs a pool with servers of its own until the test ends.
func (w *world) node(servers string, change ...func(*relay.PoolConfig)) *poolNode {
	w.t.Helper()
	key := identity.New()
	n := &poolNode{id: key.ID(), homes: make(map[identity.PeerID]string)}
	cfg := relay.PoolConfig{
		Identity: key, Dial: w.dial, HomesOf: n.homesOf, Deliver: n.deliver, Events: n.event,
	}
	for _, f := range change {
		f(&cfg)
	}
	n.Pool = relay.NewPool(cfg)
	if err := n.SetServers(urlsOf(servers)); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.Run(ctx) })
	n.stop = func() {
		cancel()
		wg.Wait()
	}
	w.t.Cleanup(n.stop)
	return n
}

// knows says where a peer's homes are.
func (n *poolNode) knows(peer *poolNode, homes string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.homes[peer.id] = homes
}

func (n *poolNode) homesOf(id identity.PeerID) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return urlsOf(n.homes[id])
}

func (n *poolNode) deliver(batch []datagram.Relayed, done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range batch {
		n.got = append(n.got, string(d.Data))
		n.from = append(n.from, d.From)
		n.at = append(n.at, time.Now())
	}
	done()
}

func (n *poolNode) event(e relay.PoolEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := e.Kind.String() + " " + namesOf(append(slices.Clone(e.Homes), e.URL))
	n.events = append(n.events, strings.TrimSpace(text))
}

// say sends one datagram.
func (n *poolNode) say(to *poolNode, text string) error {
	return n.Send(to.id, [][]byte{[]byte(text)}, false)
}

// heard takes what came, as "text text".
func (n *poolNode) heard() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := strings.Join(n.got, " ")
	n.got, n.from, n.at = nil, nil, nil
	return got
}

// told takes the events.
func (n *poolNode) told() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	events := strings.Join(n.events, ", ")
	n.events = nil
	return events
}

// up are the servers that are connected, homes with a star.
func (n *poolNode) up() string {
	var up []string
	for _, s := range n.Status() {
		if s.Connected {
			name := namesOf([]string{s.URL})
			if s.Home {
				name += "*"
			}
			up = append(up, name)
		}
	}
	return strings.Join(up, " ")
}

// stream sends numbered datagrams every 10 ms for a time, while something happens in its middle, and returns the longest
// time without one at the other side and how many were lost.
func stream(t *testing.T, from, to *poolNode, d time.Duration, middle func()) (outage time.Duration, lost int) {
	t.Helper()
	to.heard()
	const every = 10 * time.Millisecond
	n := int(d / every)
	last := time.Now()
	for i := range n {
		if i == n/2 {
			middle()
		}
		if err := from.say(to, fmt.Sprint(i)); err != nil && !errors.Is(err, relay.ErrNoServer) {
			t.Errorf("datagram %d: %v", i, err)
		}
		time.Sleep(every)
	}
	time.Sleep(time.Second)
	to.mu.Lock()
	defer to.mu.Unlock()
	for _, at := range to.at {
		outage = max(outage, at.Sub(last))
		last = at
	}
	return max(outage, time.Since(last)-time.Second), n - len(to.got)
}

// inBubble runs a test in virtual time. What the test has to clean up ends in the bubble.
func inBubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}
