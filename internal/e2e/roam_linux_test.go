package e2e

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

const (
	roamBar = 1500 * time.Millisecond
	// talkBar is how long a TCP connection may take to go on: its own retransmissions back off meanwhile.
	talkBar = 5 * time.Second
	// away is how long an interface is without its link.
	away = 700 * time.Millisecond
)

// roaming is what can happen to a host under traffic. It returns when the host has what it needs to go on.
type roaming struct {
	name string
	do   func(p *remotes)
}

var roamings = []roaming{
	{"new address at home", func(p *remotes) {
		card := p.a.host.Card()
		b := card.Addr4().As4()
		b[3] += 50
		card.SetAddr(netip.PrefixFrom(netip.AddrFrom4(b), 24).String())
	}},
	{"new address outside", func(p *remotes) { p.net.Renumber(p.sa.Outside) }},
	{"both outside", func(p *remotes) {
		p.net.Renumber(p.sa.Outside)
		p.net.Renumber(p.sb.Outside)
	}},
	{"another network", func(p *remotes) { p.move(netlab.FullCone) }},
	{"a network with a hard NAT", func(p *remotes) { p.move(netlab.Symmetric) }},
	{"back behind an easy NAT", func(p *remotes) { p.move(netlab.PortRestricted) }},
	{"both in other networks", func(p *remotes) {
		p.move(netlab.PortRestricted)
		p.sb = p.net.Site(netlab.PortRestricted)
		p.sb.Move(p.b.host)
	}},
	{"interface down and up", func(p *remotes) {
		card := p.a.host.Card()
		card.SetDown()
		time.Sleep(away)
		card.SetUp()
	}},
	{"cable out and in", func(p *remotes) {
		card := p.a.host.Card()
		card.Unplug()
		time.Sleep(away)
		card.Replug()
	}},
	{"flows forgotten", func(p *remotes) { p.sa.Router.ForgetFlows() }},
	{"flows forgotten at both ends", func(p *remotes) {
		p.sa.Router.ForgetFlows()
		p.sb.Router.ForgetFlows()
	}},
}

// move takes alice to another site.
func (p *remotes) move(kind netlab.Kind) {
	p.sa = p.net.Site(kind)
	p.sa.Move(p.a.host)
}

// roam has something happen under traffic, and returns how long after it datagrams arrived both ways, and how long a
// connection that had been open before was silent.
func (p *remotes) roam(t testing.TB, do func(*remotes), k *talk) (resumed, silent time.Duration) {
	t.Helper()
	fs := startFlows(t, p.a, p.b, slowFlow)
	time.Sleep(aside)
	do(p)
	since := time.Now()
	resumed = fs.resume(t, since, 60*time.Second)
	k.mark()
	if !waitFor(60*time.Second, func() bool { _, got := k.stall(); return got > 0 }) {
		t.Fatal("the connection does not go on")
	}
	silent = time.Since(since)
	time.Sleep(aside)
	fs.end()
	return resumed, silent
}

// TestRoaming keeps a pair talking whatever happens to one host's networks, with the same addresses and connections.
func TestRoaming(t *testing.T) {
	for _, by := range []help{byServer, byMember} {
		t.Run(string(by), func(t *testing.T) {
			p := newRemotes(t, by)
			ab, ba := startTalk(t, p.a, p.b, 20*time.Millisecond), startTalk(t, p.b, p.a, 20*time.Millisecond)
			self := p.a.status().Self.IPs
			for _, r := range roamings {
				resumed, silent := p.roam(t, r.do, ab)
				t.Logf("%s: datagrams after %v, TCP after %v, now %s", r.name, resumed.Round(time.Millisecond),
					silent.Round(time.Millisecond), p.a.path(p.b).Kind)
				if resumed > guard*roamBar {
					t.Errorf("%s: the traffic goes on only after %v", r.name, resumed)
				}
				if silent > guard*talkBar {
					t.Errorf("%s: the connection goes on only after %v", r.name, silent)
				}
			}
			if now := p.a.status().Self.IPs; now[0] != self[0] || now[1] != self[1] {
				t.Errorf("addresses changed from %v to %v", self, now)
			}
			for _, k := range []*talk{ab, ba} {
				if err := k.end(); err != nil {
					t.Errorf("a connection ended: %v", err)
				}
			}
		})
	}
}

// BenchmarkBarRoaming prints how long after each change datagrams and a connection go on, at worst: at most 1.5 s for the
// former.
func BenchmarkBarRoaming(b *testing.B) {
	const rounds = 3
	for _, by := range []help{byServer, byMember} {
		b.Run(string(by), func(b *testing.B) {
			p := newRemotes(b, by)
			k := startTalk(b, p.a, p.b, 20*time.Millisecond)
			worst, slowest := map[string]time.Duration{}, map[string]time.Duration{}
			for range rounds {
				for _, r := range roamings {
					resumed, silent := p.roam(b, r.do, k)
					worst[r.name], slowest[r.name] = max(worst[r.name], resumed), max(slowest[r.name], silent)
				}
			}
			if err := k.end(); err != nil {
				b.Errorf("the connection ended: %v", err)
			}
			for _, r := range roamings {
				b.Logf("%s: datagrams after %v, TCP after %v at worst", r.name, worst[r.name].Round(time.Millisecond), slowest[r.name].Round(time.Millisecond))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ms(slices.Max(slices.Collect(maps.Values(worst)))), "ms-worst")
			b.ReportMetric(ms(slices.Max(slices.Collect(maps.Values(slowest)))), "ms-TCP-worst")
		})
	}
}
