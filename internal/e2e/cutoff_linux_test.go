package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/netlab"
)

const (
	// idleCPU is the share of a processor that an idle node may take, in percent.
	idleCPU = 0.2
	hotLoop = 20 // percent: somebody tries again without a pause
	// nowhere is a relay server that does not exist.
	nowhere = "https://203.0.113.9:9000"
)

var pin = "#sha256=" + strings.Repeat("5a", 32)

// cutoff is a LAN without the Internet, and what its hosts believe that there is.
type cutoff struct {
	name  string
	flags []string
	route func(w *world, sw *netlab.Switch, n *node) // nil: no default route
}

var cutoffs = []cutoff{
	{"nothing configured", nil, nil},
	{"no route", []string{"--relay-server", nowhere + pin, "--stun", "203.0.113.9:3478"}, nil},
	{"no gateway", []string{"--relay-server", nowhere + pin, "--stun", "203.0.113.9:3478"}, gateway(".254")},
	{"everything lost", []string{"--relay-server", nowhere + pin, "--stun", "203.0.113.9:3478"}, gateway(".250")},
	{"no name resolved", []string{
		"--relay-server", "https://relay.example.org:9000", "--stun", "stun.example.org:3478", "--bootstrap", "node.example.org:41820",
	}, gateway(".250")},
}

// gateway has a default route lead to a host of the LAN.
func gateway(last string) func(*world, *netlab.Switch, *node) {
	return func(_ *world, _ *netlab.Switch, n *node) { n.host.DefaultRoute("192.168.7" + last) }
}

// alone is a pair on a LAN of its own.
type alone struct {
	cutoff
	a, b         *node
	join, again  time.Duration // until the first ping reply, of a join and of a restart
	pairA, pairB float64       // percent of a processor while idle
	single       float64       // of a, without b
	sent         int           // frames of a, without b
}

// cutOff makes the LANs of all cases, measures how fast pairs connect there, and how much an idle node costs for a while.
func cutOff(t testing.TB, idle time.Duration) []*alone {
	t.Helper()
	w := newWorld(t)
	var all []*alone
	for i, c := range cutoffs {
		all = append(all, w.alone(t, i, c))
	}
	share := func(n *node, before time.Duration) float64 { return float64(cpu(t, n)-before) / float64(idle) * 100 }
	rest := func(measure func(p *alone, before func(n *node) time.Duration)) {
		time.Sleep(3 * time.Second) // what was begun comes to an end
		used := map[*node]time.Duration{}
		for _, p := range all {
			for _, n := range []*node{p.a, p.b} {
				if n.running() {
					used[n] = cpu(t, n)
				}
			}
		}
		time.Sleep(idle)
		for _, p := range all {
			measure(p, func(n *node) time.Duration { return used[n] })
		}
	}
	rest(func(p *alone, before func(*node) time.Duration) {
		p.pairA, p.pairB = share(p.a, before(p.a)), share(p.b, before(p.b))
	})
	captures := map[*alone]*netlab.Capture{}
	for _, p := range all {
		p.b.proc.Kill()
		captures[p] = p.a.host.Capture(p.a.iface.Name())
	}
	rest(func(p *alone, before func(*node) time.Duration) {
		p.single = share(p.a, before(p.a))
		for _, f := range captures[p].Packets() {
			if f.Outgoing {
				p.sent++
			}
		}
	})
	return all
}

// alone makes one pair.
func (w *world) alone(t testing.TB, i int, c cutoff) *alone {
	t.Helper()
	sw := w.lab.Switch(fmt.Sprintf("lan%d", i))
	router := w.lab.Router(fmt.Sprintf("router%d", i)) // which knows no way to anywhere, and says nothing
	router.Plug(sw, "192.168.7.250/24")
	router.DropRule(netlab.Match{Hooks: netlab.Input | netlab.Forward | netlab.Output, Proto: unix.IPPROTO_ICMP})
	p := &alone{cutoff: c}
	nodes := make([]*node, 2)
	for j := range nodes {
		n := w.plug(sw, fmt.Sprintf("node%d%d", i, j), fmt.Sprintf("192.168.7.%d/24", j+1))
		if c.route != nil {
			c.route(w, sw, n)
		}
		nodes[j] = n
	}
	p.a, p.b = nodes[0], nodes[1]
	p.a.up(c.flags...)
	token := p.a.invite()
	start := time.Now()
	p.b.begin(append([]string{"--join", "@" + token}, c.flags...)...)
	for {
		if _, err := p.b.tryPing(p.a.ip4, 20*time.Millisecond); err == nil {
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("%s: no ping from a joiner", c.name)
		}
	}
	p.join = time.Since(start)
	p.b.awaitReady(20 * time.Second)
	if err := p.b.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	p.b.up(c.flags...)
	p.again = p.b.ping(p.a.ip4, 20*time.Second)
	return p
}

// running reports whether the node's program has not ended.
func (n *node) running() bool {
	select {
	case <-n.proc.Done():
		return false
	default:
		return true
	}
}

// cpu is the processor time that a node has taken, in both modes.
func cpu(t testing.TB, n *node) time.Duration {
	t.Helper()
	const sched = 2 // CPUCLOCK_SCHED: the clock of a process by its id
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^n.proc.Pid()<<3|sched), &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func (p *alone) String() string {
	return fmt.Sprintf("%s: joined %v after the start, first reply %v after a restart; idle %.3f %% and %.3f %% of a processor, %.3f %% and %d frames alone",
		p.name, p.join.Round(time.Millisecond), p.again.Round(time.Millisecond), p.pairA, p.pairB, p.single, p.sent)
}

// TestCutOff connects pairs that have nothing but their LAN, as fast as ever, and leaves them in peace then.
func TestCutOff(t *testing.T) {
	t.Parallel()
	for _, p := range cutOff(t, 15*time.Second) {
		t.Log(p)
		if p.join > firstGuard || p.again > firstGuard {
			t.Errorf("%s: slow to connect", p.name)
		}
		if max(p.pairA, p.pairB, p.single) > hotLoop {
			t.Errorf("%s: an idle node is busy", p.name)
		}
	}
}

// reportCutOff prints the same for a minute each, for a benchmark.
func reportCutOff(b *testing.B) {
	var worst float64
	var slowest time.Duration
	for _, p := range cutOff(b, time.Minute) {
		b.Log(p)
		worst = max(worst, p.pairA, p.pairB, p.single)
		slowest = max(slowest, p.join, p.again)
	}
	b.ReportMetric(worst, "%-CPU-worst")
	b.ReportMetric(ms(slowest), "ms-connect-worst")
}
