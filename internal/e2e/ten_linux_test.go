package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

const tenHosts = 10

// TestTenHosts joins each host through the one before it, the only one it reaches at first; then all reach each other.
// It goes on without the founder: an eleventh joins, everybody restarts.
func TestTenHosts(t *testing.T) {
	w := newWorld(t)
	nodes := chain(w, tenHosts)
	nodes[0].up()
	token := nodes[0].invite("--uses", "0")
	for i, n := range nodes[1:] {
		n.up("--join", "@"+token, "--bootstrap", fmt.Sprintf("10.9.%d.1:41820", i))
	}
	lan := w.lab.Switch("lan")
	start := time.Now()
	for i, n := range nodes {
		n.host.Plug(lan, fmt.Sprintf("192.168.7.%d/24", i+1))
	}
	took := pingAll(t, nodes, 30*time.Second)
	t.Logf("all %d pairs ping %v after they share a network (slowest pair %v)", tenHosts*(tenHosts-1)/2, time.Since(start).Round(time.Millisecond), took)

	nodes[0].proc.Kill()
	rest := nodes[1:]
	late := w.plug(lan, "late", "192.168.7.99/24")
	late.up("--join", "@"+token, "--bootstrap", "192.168.7.7:41820")
	rest = append(rest, late)
	took = pingAll(t, rest, 30*time.Second)
	t.Logf("an eleventh joined without the founder; slowest pair %v", took)

	var wg sync.WaitGroup
	for _, n := range rest {
		wg.Go(n.proc.Kill)
	}
	wg.Wait()
	for _, n := range rest {
		n.begin()
	}
	start = time.Now()
	for _, n := range rest {
		n.awaitReady(20 * time.Second)
	}
	took = pingAll(t, rest, 10*time.Second)
	t.Logf("everybody restarted without the founder: all pairs %v after the start (slowest ping %v)", time.Since(start).Round(time.Millisecond), took)
}

// chain makes hosts of which each shares a link with the one before it and one with the one behind it.
func chain(w *world, count int) []*node {
	w.t.Helper()
	var nodes []*node
	before := w.lab.Switch("link0")
	for i := range count {
		next := w.lab.Switch(fmt.Sprintf("link%d", i+1))
		n := w.plug(next, fmt.Sprintf("host%d", i), fmt.Sprintf("10.9.%d.1/24", i))
		if i > 0 {
			n.host.Plug(before, fmt.Sprintf("10.9.%d.2/24", i-1))
		}
		nodes, before = append(nodes, n), next
	}
	return nodes
}

// pingAll pings every pair in both families at once and returns the slowest first reply.
func pingAll(t *testing.T, nodes []*node, limit time.Duration) time.Duration {
	t.Helper()
	var mu sync.Mutex
	var slowest time.Duration
	var failed []string
	var wg sync.WaitGroup
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			for _, to := range []netip.Addr{b.ip4, b.ip6} {
				wg.Go(func() {
					took, err := a.tryPing(to, limit)
					mu.Lock()
					defer mu.Unlock()
					slowest = max(slowest, took)
					if err != nil {
						failed = append(failed, fmt.Sprintf("%s to %s: %v", a.name, b.name, err))
					}
				})
			}
		}
	}
	wg.Wait()
	if len(failed) > 0 {
		t.Fatalf("%d of %d pings failed:\n%s", len(failed), len(nodes)*(len(nodes)-1), strings.Join(failed, "\n"))
	}
	return slowest
}
