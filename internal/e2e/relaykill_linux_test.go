package e2e

import (
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

const killBar = 2 * time.Second

// relayed is a pair that no direct path joins, with a relay server that can be killed and something to take its place.
type relayed struct {
	*remotes
	servers map[string]*relayServer // by URL
	hosts   map[string]*netlab.Host // of them
}

// newRelayed has one relay server and a common member, or two relay servers.
func newRelayed(t testing.TB, spare help) *relayed {
	t.Helper()
	w := newWorld(t)
	r := &relayed{
		remotes: &remotes{world: w, net: w.lab.Internet(), help: byServer},
		servers: map[string]*relayServer{}, hosts: map[string]*netlab.Host{},
	}
	names := []string{"one", "two"}
	if spare == byMember {
		names = names[:1]
	}
	var flags []string
	for _, name := range names {
		host := r.net.Public(name)
		s := w.relay(host)
		r.servers[s.url], r.hosts[s.url] = s, host
		flags = append(flags, "--relay-server", s.url)
	}
	r.sa, r.sb = r.net.Site(netlab.PortRestricted), r.net.Site(netlab.PortRestricted)
	r.a, r.b = w.on(r.sa.Host("alice")), w.on(r.sb.Host("bob"))
	if spare == byMember {
		r.member = w.on(r.net.Public("carol"))
	}
	r.start(t, flags)
	return r
}

// lose ends the relay server that the data goes by, and returns the longest time without a packet since. end begins the
// loss, and gives what makes the server be there again.
func (r *relayed) lose(t testing.TB, end func(url string) (back func())) time.Duration {
	t.Helper()
	r.both(t, "direct", 60*time.Second)
	if r.member != nil { // it comes back when the data goes by the relay server
		r.member.proc.Kill()
	}
	heal := r.part()
	fs := startFlows(t, r.a, r.b, slowFlow)
	r.both(t, string(byServer), 20*time.Second)
	via := r.a.path(r.b).Via
	if via == nil || r.servers[*via] == nil {
		t.Fatalf("data goes by the relay server %v\n%s", via, r.a.why(r.b))
	}
	if r.member != nil {
		r.member.up()
		both(t, r.a, r.member, "direct", 20*time.Second)
		both(t, r.b, r.member, "direct", 20*time.Second)
	} else {
		time.Sleep(aside)
	}
	kind, begun := r.a.path(r.b).Kind, time.Now()
	back := end(*via)
	fs.resume(t, time.Now().Add(100*time.Millisecond), 60*time.Second)
	time.Sleep(2 * aside)
	outage := fs.outage(begun)
	t.Logf("data went by %s: nothing arrived for %v; now by %s", kind, outage.Round(time.Millisecond), r.a.path(r.b).Kind)
	back()
	heal()
	r.both(t, "direct", 60*time.Second)
	fs.end()
	return outage
}

// kill kills the server's program.
func (r *relayed) kill(url string) (back func()) {
	r.servers[url].proc.Kill()
	return func() { r.servers[url] = r.relay(r.hosts[url]) }
}

// vanish loses whatever goes to the server and comes from it: nobody is told.
func (r *relayed) vanish(url string) (back func()) {
	card := r.hosts[url].Card()
	card.Cut()
	return card.Mend
}

// losses are the ways in which a relay server goes.
var losses = []struct {
	name string
	end  func(*relayed) func(url string) func()
}{
	{"killed", func(r *relayed) func(string) func() { return r.kill }},
	{"vanished", func(r *relayed) func(string) func() { return r.vanish }},
}

// TestRelayServerGone ends the relay server that data goes by.
func TestRelayServerGone(t *testing.T) {
	for _, spare := range []help{byServer, byMember} {
		t.Run("then "+string(spare), func(t *testing.T) {
			r := newRelayed(t, spare)
			ways := losses
			if spare == byMember {
				ways = losses[:1] // the member has taken over by the second
			}
			for _, l := range ways {
				outage := r.lose(t, l.end(r))
				if outage > guard*killBar {
					t.Errorf("%s: an outage of %v", l.name, outage)
				}
			}
		})
	}
}

// BenchmarkBarRelayServerGone prints the outage when the relay server that data goes by is killed, with a second one or a
// common member to take its place: at most 2 s.
func BenchmarkBarRelayServerGone(b *testing.B) {
	const rounds = 4
	for _, spare := range []help{byServer, byMember} {
		b.Run("then "+string(spare), func(b *testing.B) {
			r := newRelayed(b, spare)
			for _, l := range losses {
				var outages []time.Duration
				for range rounds {
					outages = append(outages, r.lose(b, l.end(r)))
				}
				middle, worst := median(outages)
				b.ReportMetric(ms(middle), "ms-"+l.name+"-median")
				b.ReportMetric(ms(worst), "ms-"+l.name+"-worst")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
