package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
)

// program builds the program once for all tests.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "meshnet-e2e-*")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "meshnet")
	out, err := exec.Command("go", "build", "-o", path, "github.com/meshnet/meshnet/cmd/meshnet").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// world is a lab with nodes in it.
type world struct {
	t   testing.TB
	lab *netlab.Lab
	bin string
	dir string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir() // before the lab, so that it is removed after the lab's programs have ended
	lab := netlab.New(t)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, lab: lab, bin: bin, dir: dir}
}

// node is a host that runs, or ran, meshnet.
type node struct {
	w     *world
	host  *netlab.Host
	iface *netlab.Iface
	name  string
	state string
	proc  *netlab.Process
	ready time.Duration // from start to the ready line
	ip4   netip.Addr
	ip6   netip.Addr
}

// plug makes a host on a switch.
func (w *world) plug(sw *netlab.Switch, name string, addrs ...string) *node {
	w.t.Helper()
	n := &node{w: w, host: w.lab.Host(name), name: name, state: filepath.Join(w.dir, name)}
	n.iface = n.host.Plug(sw, addrs...)
	return n
}

// up starts the node and waits until it is ready.
func (n *node) up(args ...string) *node {
	n.w.t.Helper()
	n.begin(args...)
	n.awaitReady(30 * time.Second)
	return n
}

// begin starts the node without waiting.
func (n *node) begin(args ...string) {
	n.w.t.Helper()
	all := append([]string{"up", "--state", n.state, "--hostname", n.name}, args...)
	if os.Getenv("MESHNET_TEST_LOG") != "" {
		all = append(all, "-v")
	}
	proc, err := n.host.Start(netlab.Proc{Path: n.w.bin, Args: all})
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.proc = proc
}

// awaitReady waits for the ready line and reads the addresses from it.
func (n *node) awaitReady(limit time.Duration) {
	n.w.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := n.proc.WaitOutput(ctx, "\nready: "); err != nil {
		n.w.t.Fatalf("%s is not ready: %v\n%s", n.name, err, n.proc.Output())
	}
	n.ready = time.Since(start)
	_, line, _ := strings.Cut(n.proc.Output(), "\nready: ")
	fields := strings.Fields(line)
	if len(fields) < 4 {
		n.w.t.Fatalf("ready line of %s: %q", n.name, line)
	}
	n.ip4, n.ip6 = netip.MustParseAddr(fields[1]), netip.MustParseAddr(fields[2])
}

// run runs a command against the node and returns what it printed.
func (n *node) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	return n.host.Run(ctx, n.w.bin, append(args, "--state", n.state)...)
}

// must is run for a command that has to work.
func (n *node) must(args ...string) string {
	n.w.t.Helper()
	out, err := n.run(args...)
	if err != nil {
		n.w.t.Fatalf("meshnet %s on %s: %v", strings.Join(args, " "), n.name, err)
	}
	return out
}

// invite makes a token and returns the file that holds it.
func (n *node) invite(args ...string) string {
	n.w.t.Helper()
	f, err := os.CreateTemp(n.w.dir, "token")
	if err != nil {
		n.w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(n.must(append([]string{"invite"}, args...)...)); err != nil {
		n.w.t.Fatal(err)
	}
	return f.Name()
}

func (n *node) status() *meshnet.Status {
	n.w.t.Helper()
	s := new(meshnet.Status)
	if err := json.Unmarshal([]byte(n.must("status", "--json")), s); err != nil {
		n.w.t.Fatal(err)
	}
	return s
}

// ping pings an address of another node from the OS until a reply comes, and returns how long that took.
func (n *node) ping(to netip.Addr, limit time.Duration) time.Duration {
	n.w.t.Helper()
	took, err := n.tryPing(to, limit)
	if err != nil {
		n.w.t.Fatalf("ping from %s to %s: %v", n.name, to, err)
	}
	return took
}

func (n *node) tryPing(to netip.Addr, limit time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return n.host.PingUntil(ctx, to)
}

// pingNode pings another node by the mesh's own ping until a reply comes; it works without a TUN.
func (n *node) pingNode(to *node, limit time.Duration) time.Duration {
	n.w.t.Helper()
	start := time.Now()
	for {
		if _, err := n.run("ping", to.name, "-c", "1", "--timeout", "2s"); err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			n.w.t.Fatalf("no mesh ping from %s to %s within %v", n.name, to.name, limit)
		}
	}
}

// lan is a switch with IPv4 and IPv6, and hosts named as given on it.
func (w *world) lan(names ...string) []*node {
	w.t.Helper()
	sw := w.lab.Switch("lan")
	var all []*node
	for i, name := range names {
		all = append(all, w.plug(sw, name, fmt.Sprintf("192.168.7.%d/24", i+1), fmt.Sprintf("2001:db8:7::%d/64", i+1)))
	}
	return all
}

// pair founds a network on a and lets b join, with the flags of each.
func (w *world) pair(aFlags, bFlags []string) (a, b *node) {
	w.t.Helper()
	nodes := w.lan("alice", "bob")
	a, b = nodes[0], nodes[1]
	a.up(aFlags...)
	b.up(append([]string{"--join", "@" + a.invite()}, bFlags...)...)
	return a, b
}

// contains reports whether a needle is in a haystack of captured frames.
func contains(c *netlab.Capture, needle []byte) bool { return len(needle) > 0 && c.Contains(needle) }
