package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/localapi"
)

// place is a row and a column of the NAT matrix.
type place struct {
	name string
	cfg  netlab.SiteConfig
}

// places are all kinds of netlab, on IPv4 alone as far as they have it, and a home network that has both families.
func places() []place {
	var all []place
	for _, kind := range netlab.Kinds() {
		all = append(all, at(kind))
	}
	return append(all, place{"dual stack", netlab.SiteConfig{Kind: netlab.PortRestricted, IPv6: true}})
}

func at(kind netlab.Kind) place { return place{kind.String(), netlab.SiteConfig{Kind: kind}} }

func (p place) is(kinds ...netlab.Kind) bool { return slices.Contains(kinds, p.cfg.Kind) }
func (p place) has4() bool                   { return !p.is(netlab.IPv6Only) }
func (p place) has6() bool                   { return p.is(netlab.IPv6Only) || p.cfg.IPv6 }

// nat is what a node there finds out about its NATs where there is a relay server.
func (p place) nat() string {
	switch {
	case p.is(netlab.None, netlab.Firewalled, netlab.IPv6Only):
		return "none"
	case p.is(netlab.Symmetric):
		return "hard"
	case p.is(netlab.UDPBlocked):
		return "blocked"
	}
	return "easy"
}

// outcome is what a pair has to come to.
type outcome string

// The outcomes.
const (
	direct    outcome = "direct"
	predicted outcome = "predicted" // direct in nine of ten runs
	carried   outcome = "carried"   // by a relay server or a member
	apart     outcome = "apart"     // there is no path at all
)

// goal is what a pair has to come to, and what its status has to say when that is nothing better.
type goal struct {
	outcome
	because string
}

// expect is what two places have to come to, with a relay server or with a common member.
func expect(a, b place, relay bool) goal {
	strict := []netlab.Kind{netlab.PortRestricted, netlab.CGNAT, netlab.Firewalled}
	switch {
	case !relay && (a.is(netlab.UDPBlocked) || b.is(netlab.UDPBlocked)):
		return goal{outcome: apart}
	case a.is(netlab.UDPBlocked) || b.is(netlab.UDPBlocked):
		return goal{carried, "UDP is blocked"}
	case a.has6() && b.has6():
		return goal{outcome: direct}
	case !a.has4() || !b.has4():
		return goal{carried, "no direct"}
	case relay && a.is(netlab.Symmetric) && b.is(netlab.Symmetric):
		return goal{carried, "both NATs are hard (symmetric)"}
	case a.is(netlab.Symmetric) && b.is(netlab.Symmetric): // one member alone cannot tell
		return goal{carried, "no direct"}
	case a.is(netlab.Symmetric) && b.is(strict...), a.is(strict...) && b.is(netlab.Symmetric):
		return goal{outcome: predicted}
	}
	return goal{outcome: direct}
}

// crew runs jobs beside each other, and what they may not do themselves on the test's own goroutine.
type crew struct {
	ctx   context.Context // of the test
	calls chan func()
}

// do runs up to width jobs at a time, and returns when all of them have.
func (c *crew) do(jobs, width int, job func(i int)) {
	done := make(chan struct{})
	slots := make(chan struct{}, width)
	var wg sync.WaitGroup
	for i := range jobs {
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				job(i)
			case <-c.ctx.Done():
			}
		})
	}
	go func() { // ends with the jobs
		wg.Wait()
		close(done)
	}()
	for {
		select {
		case fn := <-c.calls:
			fn()
		case <-done:
			return
		}
	}
}

// ask runs fn on the test's own goroutine.
func (c *crew) ask(fn func()) error {
	done := make(chan struct{})
	select {
	case c.calls <- func() { defer close(done); fn() }:
		<-done
		return c.ctx.Err()
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// matrix is an Internet with a network of its own for each pair that is measured.
type matrix struct {
	*world
	*crew
	internet *netlab.Internet
	relay    *netlab.Host // nil: there is no relay server
	url      string       // of the relay server
	count    int          // of hosts so far
}

// relayName is the relay server's name, which every host knows, with an address of either family.
const relayName = "relay.example"

func newMatrix(t testing.TB, relay bool) *matrix {
	t.Helper()
	w := newWorld(t)
	m := &matrix{world: w, crew: &crew{t.Context(), make(chan func())}, internet: w.lab.Internet()}
	if relay {
		m.startRelay()
	}
	return m
}

// startRelay runs an open relay server on a public host.
func (m *matrix) startRelay() {
	m.t.Helper()
	m.relay = m.internet.Public("relay")
	m.introduce(m.relay)
	proc, err := m.relay.Start(netlab.Proc{Path: m.bin, Args: []string{
		"relay", "--public", relayName + ":9000", "--state", filepath.Join(m.dir, "relay"),
	}})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(m.ctx, 20*time.Second)
	defer cancel()
	if err := proc.WaitOutput(ctx, "use it with: "); err != nil {
		m.t.Fatalf("%v\n%s", err, proc.Output())
	}
	if m.url = regexp.MustCompile(`https://[^\s']+`).FindString(proc.Output()); m.url == "" {
		m.t.Fatalf("no URL: %s", proc.Output())
	}
}

// introduce tells a host the relay server's addresses.
func (m *matrix) introduce(h *netlab.Host) {
	m.t.Helper()
	if m.relay == nil {
		return
	}
	card := m.relay.Card()
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n%s %s\n", card.Addr4(), relayName, card.Addr6(), relayName)
	if err := h.Inside(func() error { return os.WriteFile("/etc/hosts", []byte(hosts), 0o644) }); err != nil {
		m.t.Fatal(err)
	}
}

// party is one of the two that are measured, or the member between them.
type party struct {
	*node
	site *netlab.Site // nil: a public host
	api  *localapi.Client
	id   string
}

func (m *matrix) newEnd(name string, site *netlab.Site) *party {
	m.t.Helper()
	m.count++
	n := &node{w: m.world, name: name, state: filepath.Join(m.dir, fmt.Sprintf("%d", m.count))}
	if site != nil {
		n.host = site.Host(name)
	} else {
		n.host = m.internet.Public(name)
	}
	n.iface = n.host.Card()
	m.introduce(n.host)
	return &party{node: n, site: site, api: localapi.NewClient(filepath.Join(n.state, "meshnet.sock"))}
}

// start begins the node; await waits until it is ready.
func (e *party) start(args ...string) error {
	all := append([]string{"up", "--state", e.state, "--hostname", e.name}, args...)
	if os.Getenv("MESHNET_TEST_LOG") != "" {
		all = append(all, "-v")
	}
	proc, err := e.host.Start(netlab.Proc{Path: e.w.bin, Args: all})
	e.proc = proc
	return err
}

func (e *party) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	if err := e.proc.WaitOutput(ctx, "\nready: "); err != nil {
		return fmt.Errorf("%s: %w\n%s", e.name, err, e.proc.Output())
	}
	s, err := e.api.Status(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	e.id, e.ip4, e.ip6 = s.Self.ID, s.Self.IPs[0], s.Self.IPs[1]
	return nil
}

// forget has everything between the host and the Internet forget its flows.
func (e *party) forget() {
	e.host.ForgetFlows()
	for s := e.site; s != nil; s = s.Carrier {
		if s.Router != nil {
			s.Router.ForgetFlows()
		}
	}
}

// token makes an invite and returns the file that holds it.
func (e *party) token(ctx context.Context, uses uint64) (string, error) {
	invite, err := e.api.Invite(ctx, meshnet.InviteOptions{Uses: uses})
	if err != nil {
		return "", fmt.Errorf("invite: %w", err)
	}
	path := e.state + ".token"
	return path, os.WriteFile(path, []byte(invite.Token), 0o600)
}

// pair is a network of two nodes at two places, with a public member between them where there is no relay server.
type pair struct {
	m       *matrix
	at      [2]place
	ends    [2]*party
	between *party // nil: there is a relay server
	goal    goal
	flags   []string // of both
}

// pair makes the places and the hosts, from any goroutine.
func (m *matrix) pair(a, b place, flags ...string) (*pair, error) {
	p := &pair{m: m, at: [2]place{a, b}, goal: expect(a, b, m.relay != nil), flags: flags}
	return p, m.ask(func() {
		for i, name := range []string{"alice", "bob"} {
			p.ends[i] = m.newEnd(name, m.internet.AddSite(p.at[i].cfg))
		}
		if m.relay == nil {
			p.between = m.newEnd("carol", nil)
		}
	})
}

// found makes the network: by alice, or by the member between.
func (p *pair) found(ctx context.Context) error {
	first, rest, uses := p.ends[0], p.ends[1:], uint64(1)
	if p.between != nil {
		first, rest, uses = p.between, p.ends[:], 2
	}
	if err := p.begin(first); err != nil {
		return err
	}
	if err := first.await(ctx); err != nil {
		return err
	}
	token, err := first.token(ctx, uses)
	if err != nil {
		return err
	}
	for _, e := range rest {
		if err := p.begin(e, "--join", "@"+token); err != nil {
			return err
		}
		if err := e.await(ctx); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	return p.acquainted(ctx)
}

// acquainted waits until both ends know that the other is a member.
func (p *pair) acquainted(ctx context.Context) error {
	for i, e := range p.ends {
		other := p.ends[1-i]
		if err := p.poll(ctx, 20*time.Second, func() (bool, error) {
			_, err := e.api.Lookup(ctx, other.id)
			return err == nil, nil
		}); err != nil {
			return fmt.Errorf("%s does not know %s: %w", e.name, other.name, err)
		}
	}
	return nil
}

// poll asks every 20 ms.
func (p *pair) poll(ctx context.Context, limit time.Duration, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := ask(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin starts a node of the pair, with its flags.
func (p *pair) begin(e *party, args ...string) error {
	args = append(args, p.flags...)
	if p.m.url != "" {
		args = append(args, "--relay-server", p.m.url)
	}
	return e.start(args...)
}

// cold restarts both ends, and everything on the way has forgotten them.
func (p *pair) cold(ctx context.Context) error {
	for _, e := range p.ends {
		e.proc.Kill()
	}
	if err := p.m.ask(func() {
		for _, e := range p.ends {
			e.forget()
		}
	}); err != nil {
		return err
	}
	for _, e := range p.ends {
		if err := p.begin(e); err != nil {
			return err
		}
	}
	for _, e := range p.ends {
		if err := e.await(ctx); err != nil {
			return err
		}
	}
	return p.acquainted(ctx) // what one heard of a moment before it was killed, it may have to hear again
}

// figures are what was measured in one direction.
type figures struct {
	first  time.Duration // from the first ping to the first reply
	by     string        // the kind of path that it was over
	direct time.Duration // from the first ping to the first reply that came directly; 0: none did
	pings  int
	failed string             // why the last ping failed that did
	path   meshnet.PathStatus // in the end
}

const (
	pingEvery = 100 * time.Millisecond
	pingAgain = 10 * time.Millisecond // after one that failed at once
)

// measure pings from one end to the other for up to limit: until a reply comes directly or, where none is expected,
// until the status says why.
func (p *pair) measure(ctx context.Context, from int, limit time.Duration) (f figures, err error) {
	a, b := p.ends[from], p.ends[1-from]
	start := time.Now()
	for time.Since(start) < limit {
		f.pings++
		pong, err := a.api.Ping(ctx, b.id, f.pings, 56, 2*time.Second)
		if err != nil {
			return f, fmt.Errorf("ping: %w", err)
		}
		pause := pingEvery
		switch f.path = pong.Path; {
		case !pong.OK:
			pause, f.failed = pingAgain, *pong.Error
		case f.first == 0:
			f.first, f.by = time.Since(start), pong.Path.Kind
		}
		if pong.OK && f.path.Kind == "direct" {
			f.direct = time.Since(start)
			return f, nil
		}
		if p.goal.outcome == carried && f.first > 0 && strings.Contains(f.word(), p.goal.because) {
			return f, nil
		}
		select {
		case <-ctx.Done():
			return f, ctx.Err()
		case <-time.After(pause):
		}
	}
	if f.first == 0 {
		return f, fmt.Errorf("no reply within %v: %s", limit, f.failed)
	}
	return f, nil
}

// findsNAT waits until an end says what NATs are in front of it.
func (p *pair) findsNAT(ctx context.Context, i int) error {
	e, want, got := p.ends[i], p.at[i].nat(), "unknown"
	err := p.poll(ctx, slack*5*time.Second, func() (bool, error) {
		why, err := e.api.Why(ctx, p.ends[1-i].id)
		if err == nil && why.Ours.NAT != nil {
			got = *why.Ours.NAT
		}
		return got == want, err
	})
	if err != nil {
		return fmt.Errorf("%s at %s finds NAT %q, want %q: %w", e.name, p.at[i].name, got, want, err)
	}
	return nil
}

// explain is what both ends say about the path between them.
func (p *pair) explain(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var all strings.Builder
	for i, e := range p.ends {
		why, err := e.api.Why(ctx, p.ends[1-i].id)
		if err != nil {
			fmt.Fprintf(&all, "%s: %v\n", e.name, err)
			continue
		}
		text, _ := json.Marshal(why) // of plain fields
		fmt.Fprintf(&all, "%s: %s\n%s\n", e.name, text, e.proc.Output())
	}
	return all.String()
}

// stop ends the pair's nodes, so that the others have the machine for themselves.
func (p *pair) stop() {
	for _, e := range append(p.ends[:], p.between) {
		if e != nil && e.proc != nil {
			e.proc.Kill()
		}
	}
}
