package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/localapi"
)

// on is the node of a host that is in the world already.
func (w *world) on(host *netlab.Host) *node {
	return &node{w: w, host: host, iface: host.Card(), name: host.Name(), state: filepath.Join(w.dir, host.Name())}
}

// relayServer is a relay server on a host of its own.
type relayServer struct {
	proc *netlab.Process
	url  string
}

// relay runs a relay server on a public host.
func (w *world) relay(host *netlab.Host) *relayServer {
	w.t.Helper()
	proc, err := host.Start(netlab.Proc{Path: w.bin, Args: []string{
		"relay", "--state", filepath.Join(w.dir, host.Name()), "--public", host.Card().Addr4().String() + ":9000",
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	const scheme = "\nhttps://"
	if err := proc.WaitOutput(ctx, scheme); err != nil {
		w.t.Fatal(err)
	}
	var url string
	if !waitFor(5*time.Second, func() bool {
		_, rest, _ := strings.Cut(proc.Output(), scheme)
		line, _, whole := strings.Cut(rest, "\n")
		url = strings.TrimSpace(scheme + line)
		return whole
	}) {
		w.t.Fatalf("no URL of a relay server in %q", proc.Output())
	}
	return &relayServer{proc, url}
}

// asked is what the node itself says; it saves starting a program for each question.
func asked[T any](n *node, ask func(context.Context, *localapi.Client) (T, error)) (T, error) {
	c := localapi.NewClient(filepath.Join(n.state, localapi.SocketFile))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return ask(ctx, c)
}

// path is the path from a node to another; of kind "" when the node does not say.
func (n *node) path(to *node) meshnet.PathStatus {
	s, err := asked(n, func(ctx context.Context, c *localapi.Client) (*meshnet.Status, error) { return c.Status(ctx) })
	if err != nil {
		return meshnet.PathStatus{}
	}
	for _, p := range s.Peers {
		if p.Name != nil && *p.Name == to.name {
			return p.Path
		}
	}
	return meshnet.PathStatus{}
}

// why explains the path from a node to another, for messages.
func (n *node) why(to *node) string {
	out, err := n.run("why", to.name)
	if err != nil {
		return err.Error()
	}
	return n.name + ": " + out
}

// both waits until the paths of both nodes to each other are of a kind, and returns how long that took.
func both(t testing.TB, a, b *node, kind string, limit time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	is := func(n, to *node) func() bool { return func() bool { return n.path(to).Kind == kind } }
	if !waitFor(limit, is(a, b)) || !waitFor(limit-time.Since(start), is(b, a)) {
		t.Fatalf("not %s within %v\n%s\n%s", kind, limit, a.why(b), b.why(a))
	}
	return time.Since(start)
}

// drops are what the node counted of packets that it threw away.
func (n *node) drops() string {
	text, err := asked(n, func(ctx context.Context, c *localapi.Client) (string, error) { return c.Metrics(ctx) })
	if err != nil {
		return err.Error()
	}
	var all []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "drop") && !strings.HasPrefix(line, "#") && !strings.HasSuffix(line, " 0") {
			all = append(all, line)
		}
	}
	return strings.Join(all, "\n")
}

// follow notes the events of a node, for the messages of a test that fails.
func (n *node) follow(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var lines []string
	go func() {
		defer close(done)
		c := localapi.NewClient(filepath.Join(n.state, localapi.SocketFile))
		defer c.Close()
		_ = c.Events(ctx, func(e meshnet.Event) error { // ends with ctx, or with the node
			name := ""
			if e.Name != nil {
				name = *e.Name
			}
			lines = append(lines, fmt.Sprintf("%s %s %s %s %v", e.Time.Format("05.000"), n.name, e.Type, name, e.Data))
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if t.Failed() {
			t.Logf("events:\n%s\ndropped:\n%s", strings.Join(lines, "\n"), n.drops())
		}
	})
}
