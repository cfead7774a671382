package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

// The bars of changing paths; tests on a busy machine assert with a guard, the benchmarks print the figures.
const (
	fastFlow  = 500 * time.Microsecond // 2 000 datagrams per second
	slowFlow  = 5 * time.Millisecond
	stallBar  = 200 * time.Millisecond
	outageBar = 1500 * time.Millisecond
	repairBar = 3 * time.Second
	guard     = 3           // times a bar
	aside     = time.Second // for which figures count before and after a switch
)

// help is who carries packets while no direct path does: the kind of that path.
type help string

const (
	byServer help = "relay"  // a relay server
	byMember help = "member" // a common member
)

// remotes are a pair in different networks, with help in between.
type remotes struct {
	*world
	net    *netlab.Internet
	help   help
	a, b   *node
	sa, sb *netlab.Site
	member *node // nil: there is none

	relayHost *netlab.Host // nil: there is none
}

// newRemotes makes a pair behind two NATs that is connected.
func newRemotes(t testing.TB, by help) *remotes {
	t.Helper()
	w := newWorld(t)
	p := &remotes{world: w, net: w.lab.Internet(), help: by}
	if by == byServer {
		p.relayHost = p.net.Public("relay")
	}
	p.connect(t)
	return p
}

// connect puts the pair behind two NATs, beside the help that there is.
func (p *remotes) connect(t testing.TB) {
	t.Helper()
	p.sa, p.sb = p.net.Site(netlab.PortRestricted), p.net.Site(netlab.PortRestricted)
	p.a, p.b = p.on(p.sa.Host("alice")), p.on(p.sb.Host("bob"))
	var flags []string
	if p.relayHost != nil {
		flags = []string{"--relay-server", p.relay(p.relayHost).url}
	}
	if p.help == byMember {
		p.member = p.on(p.net.Public("carol"))
	}
	p.start(t, flags)
}

// start has the pair, and the member if there is one, be a network, and waits until the pair talks directly.
func (p *remotes) start(t testing.TB, flags []string) {
	t.Helper()
	all := []*node{p.a, p.b}
	if p.member != nil {
		all = []*node{p.member, p.a, p.b}
	}
	all[0].up(append([]string{"--member-relay-rate", "0"}, flags...)...) // what its limit drops is not lost by a switch
	token := all[0].invite("--uses", "0")
	for _, n := range all[1:] {
		n.up(append([]string{"--join", "@" + token}, flags...)...)
	}
	p.a.follow(t)
	p.b.follow(t)
	p.a.ping(p.b.ip4, 20*time.Second)
	p.b.ping(p.a.ip4, 20*time.Second)
	t.Logf("direct %v after the first ping", p.both(t, "direct", 60*time.Second).Round(time.Millisecond))
}

// part blocks the direct path until it is healed.
func (p *remotes) part() (heal func()) {
	return p.net.Part(p.sa.Outside.Addr4(), p.sb.Outside.Addr4())
}

// both waits until the paths of both to each other are of a kind, and returns how long that took.
func (p *remotes) both(t testing.TB, kind string, limit time.Duration) time.Duration {
	t.Helper()
	return both(t, p.a, p.b, kind, limit)
}

// upgrade heals the direct path under what begin started, once that goes by the helper, and returns after the switch.
func (p *remotes) upgrade(t testing.TB, begin func()) (healed time.Time, took time.Duration) {
	t.Helper()
	heal := p.part()
	warm := startFlows(t, p.a, p.b, slowFlow)
	p.both(t, string(p.help), 20*time.Second)
	begin()
	warm.end()
	time.Sleep(aside) // what is begun counts before the switch too, and after
	heal()
	healed = time.Now()
	took = p.both(t, "direct", 60*time.Second)
	time.Sleep(aside)
	return healed, took.Round(time.Millisecond)
}

// upgradeUDP counts what is lost of 2 000 datagrams per second each way.
func (p *remotes) upgradeUDP(t testing.TB) (lost int, text string) {
	t.Helper()
	var fs flows
	healed, took := p.upgrade(t, func() { fs = startFlows(t, p.a, p.b, fastFlow) })
	fs.end()
	for _, f := range fs {
		if at := f.lost(); len(at) > 0 {
			lost += len(at)
			t.Logf("%s: %d lost, sent from %v to %v after it could be direct", f.name, len(at),
				at[0].Sub(healed).Round(time.Millisecond), at[len(at)-1].Sub(healed).Round(time.Millisecond))
		}
	}
	return lost, fmt.Sprintf("direct after %v; %v; %v", took, fs[0], fs[1])
}

// upgradeTCP is the longest stall of a transfer.
func (p *remotes) upgradeTCP(t testing.TB) (stall time.Duration, text string) {
	t.Helper()
	var k *talk
	_, took := p.upgrade(t, func() {
		k = startTalk(t, p.a, p.b, 0)
		waitFor(10*time.Second, func() bool { _, got := k.stall(); return got > 4<<20 })
		k.mark()
	})
	stall, got := k.stall()
	if err := k.end(); err != nil {
		t.Errorf("the transfer ended: %v", err)
	}
	return stall, fmt.Sprintf("direct after %v; %d MiB, longest stall %v", took, got>>20, stall.Round(time.Millisecond))
}

// TestUpgradeLosesNothing switches from a helper to the direct path under traffic.
func TestUpgradeLosesNothing(t *testing.T) {
	for _, by := range []help{byServer, byMember} {
		t.Run(string(by), func(t *testing.T) {
			p := newRemotes(t, by)
			lost, text := p.upgradeUDP(t)
			t.Log(text)
			if lost > 0 {
				t.Errorf("%d datagrams lost", lost)
			}
			stall, text := p.upgradeTCP(t)
			t.Log(text)
			if stall > guard*stallBar {
				t.Errorf("the transfer stalled for %v", stall)
			}
		})
	}
}

// BenchmarkBarUpgrade prints what switches from a helper to the direct path cost: 0 of 2 000 datagrams per second, and a
// stall of a transfer of at most 200 ms.
func BenchmarkBarUpgrade(b *testing.B) {
	const rounds = 4
	for _, by := range []help{byServer, byMember} {
		b.Run(string(by), func(b *testing.B) {
			p := newRemotes(b, by)
			var lost int
			var stalls []time.Duration
			for range rounds {
				missing, text := p.upgradeUDP(b)
				b.Log(text)
				lost += missing
				stall, text := p.upgradeTCP(b)
				b.Log(text)
				stalls = append(stalls, stall)
			}
			middle, worst := median(stalls)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(lost), "lost")
			b.ReportMetric(ms(middle), "ms-stall-median")
			b.ReportMetric(ms(worst), "ms-stall-worst")
		})
	}
}

// cut loses everything on the direct path under traffic, silently, and lets it be again once the helper carries. It
// returns the longest time without a packet, and how long the repaired path took to carry again.
func (p *remotes) cut(t testing.TB) (outage, repair time.Duration) {
	t.Helper()
	p.both(t, "direct", 60*time.Second)
	fs := startFlows(t, p.a, p.b, slowFlow)
	time.Sleep(aside)
	heal, begun := p.part(), time.Now()
	p.both(t, string(p.help), 20*time.Second)
	fs.resume(t, time.Now(), 20*time.Second)
	outage = fs.outage(begun)
	heal()
	repair = p.both(t, "direct", 60*time.Second)
	fs.end()
	return outage, repair
}

// TestDirectPathCut loses the direct path, and finds it again.
func TestDirectPathCut(t *testing.T) {
	for _, by := range []help{byServer, byMember} {
		t.Run(string(by), func(t *testing.T) {
			p := newRemotes(t, by)
			for range 3 {
				outage, repair := p.cut(t)
				t.Logf("nothing arrived for %v; direct again %v after the repair", outage.Round(time.Millisecond), repair.Round(time.Millisecond))
				if outage > guard*outageBar {
					t.Errorf("an outage of %v", outage)
				}
				if repair > guard*repairBar {
					t.Errorf("direct again only after %v", repair)
				}
			}
		})
	}
}

// BenchmarkBarDirectPathCut prints the median of twenty cuts of the direct path: an outage of at most 1.5 s, and direct
// again at most 3 s after the repair.
func BenchmarkBarDirectPathCut(b *testing.B) {
	const rounds = 20
	for _, by := range []help{byServer, byMember} {
		b.Run(string(by), func(b *testing.B) {
			p := newRemotes(b, by)
			var outages, repairs []time.Duration
			for range rounds {
				outage, repair := p.cut(b)
				outages, repairs = append(outages, outage), append(repairs, repair)
			}
			b.ReportMetric(0, "ns/op")
			middle, worst := median(outages)
			b.ReportMetric(ms(middle), "ms-outage-median")
			b.ReportMetric(ms(worst), "ms-outage-worst")
			middle, worst = median(repairs)
			b.ReportMetric(ms(middle), "ms-repair-median")
			b.ReportMetric(ms(worst), "ms-repair-worst")
		})
	}
}
