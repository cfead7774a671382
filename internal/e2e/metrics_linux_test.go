package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/localapi"
)

// counted are the node's metrics.
func (n *node) counted(t testing.TB) samples {
	t.Helper()
	s, err := asked(n, func(ctx context.Context, c *localapi.Client) (string, error) { return c.Metrics(ctx) })
	if err != nil {
		t.Fatal(err)
	}
	return parseSamples(t, s)
}

// since is what was added to counters.
func (s samples) since(before samples) samples {
	d := maps.Clone(s)
	for name := range d {
		d[name] -= before[name]
	}
	return d
}

// short spells the counters' names out.
func (s samples) dial(mode string) float64 {
	return s[fmt.Sprintf("meshnet_dial_successes_total{mode=%q}", mode)]
}

func (s samples) punches() (attempts, successes, failures float64) {
	return s["meshnet_punch_attempts_total"], s["meshnet_punch_successes_total"], s["meshnet_punch_failures_total"]
}

func (s samples) opens(result string) float64 {
	return s[fmt.Sprintf("meshnet_relay_opens_total{result=%q}", result)]
}

func (s samples) path(kind, direction string) float64 {
	return s[fmt.Sprintf("meshnet_path_bytes{kind=%q,direction=%q}", kind, direction)]
}

// want compares counters that have to be exact.
func (s samples) want(t testing.TB, who string, exact map[string]float64) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(exact)) {
		if s[name] != exact[name] {
			t.Errorf("%s: %s is %v, want %v", who, name, s[name], exact[name])
		}
	}
}

// wantPunches checks that every attempt is over, or is the only one under way.
func (s samples) wantPunches(t testing.TB, who string) {
	t.Helper()
	if attempts, successes, failures := s.punches(); attempts-successes-failures < 0 || attempts-successes-failures > 1 {
		t.Errorf("%s: %v punches, %v of them successful and %v not", who, attempts, successes, failures)
	}
}

// pacedConn is written to slowly enough for a relay server on a busy machine, which drops what is too much for it.
type pacedConn struct{ net.Conn }

func (c pacedConn) Write(b []byte) (n int, err error) {
	const piece, pause = 64 << 10, 10 * time.Millisecond
	for part := range slices.Chunk(b, piece) {
		m, err := c.Conn.Write(part)
		if n += m; err != nil {
			return n, err
		}
		time.Sleep(pause)
	}
	return n, nil
}

// moved sends bytes through the tunnel, and checks that they are counted for a kind of path and no other: within 3 % of
// what WireGuard makes of them.
func moved(t *testing.T, from, to *node, kind string, size int64) {
	t.Helper()
	const (
		perPacket = 1280 - 20 - 32 // inner packets of IPv4 and TCP with time stamps
		onWire    = 1280 + 32      // their WireGuard datagrams
	)
	listener, err := to.host.Listen("tcp", netip.AddrPortFrom(to.ip4, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	before, beforeTo := from.counted(t), to.counted(t)
	rx := from.peer(to).TxBytes
	c, err := from.host.Dial(t.Context(), "tcp", netip.AddrPortFrom(to.ip4, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	transfer(t, listener, pacedConn{c}, size)
	after, afterTo := from.counted(t).since(before), to.counted(t).since(beforeTo)
	want := float64(size) * onWire / perPacket
	t.Logf("%s: %d bytes are %.0f sent and %.0f received, %.4f of what was expected", kind, size,
		after.path(kind, "tx"), afterTo.path(kind, "rx"), after.path(kind, "tx")/want)
	for _, got := range []float64{after.path(kind, "tx"), afterTo.path(kind, "rx"), float64(from.peer(to).TxBytes - rx)} {
		if got < 0.97*want || got > 1.03*want {
			t.Errorf("%s: %v bytes counted, want %.0f", kind, got, want)
		}
	}
	for _, other := range []string{"direct", "relay", "member"} {
		if other != kind && after.path(other, "tx") > want/50 {
			t.Errorf("%v bytes counted for %s, which was not used", after.path(other, "tx"), other)
		}
	}
}

// TestMetrics plays through what nodes and relay servers count.
func TestMetrics(t *testing.T) {
	const relayAt, nodeAt = "127.0.0.1:9100", "127.0.0.1:9101"
	const size = 10 << 20
	w := newWorld(t)
	inet := w.lab.Internet()
	host := inet.Public("relay")
	s := w.serve(host, "relay", append(public(host, "9000"), "--metrics", relayAt)...)
	sa, sb := inet.Site(netlab.PortRestricted), inet.Site(netlab.PortRestricted)
	a, b := w.on(sa.Host("alice")), w.on(sb.Host("bob"))
	flags := []string{"--relay-server", s.url, "--metrics", nodeAt, "--portmap=false"}
	a.up(flags...)
	b.up(append([]string{"--join", "@" + a.invite()}, flags...)...)
	b.ping(a.ip4, settleTime)
	both(t, a, b, "direct", settleTime)
	for _, n := range []*node{a, b} { // each told the other where it is, once, and that was enough
		attempts, successes, failures := n.counted(t).punches()
		if successes != 1 || attempts != successes+failures {
			t.Errorf("%s: %v punches, %v of them successful and %v not", n.name, attempts, successes, failures)
		}
	}

	// The relay server is all there is when bob starts again.
	heal := inet.Part(sa.Outside.Addr4(), sb.Outside.Addr4())
	relayed := scrape(t, host, relayAt)
	b.proc.Kill()
	if !waitFor(settleTime, func() bool { return scrape(t, host, relayAt)["meshnet_relay_sessions"] == 1 }) {
		t.Fatal("the relay server does not notice that bob is gone")
	}
	b.up(flags...)
	b.ping(a.ip4, settleTime)
	both(t, a, b, "relay", settleTime)
	got := b.counted(t)
	got.want(t, "bob", map[string]float64{
		"meshnet_dial_attempts_total": 1, "meshnet_dial_failures_total": 0,
		`meshnet_dial_successes_total{mode="relay"}`: 1, `meshnet_dial_successes_total{mode="direct"}`: 0,
		`meshnet_dial_successes_total{mode="member"}`: 0,
		`meshnet_relay_opens_total{result="ok"}`:      1, `meshnet_relay_opens_total{result="fail"}`: 0,
		"meshnet_punch_successes_total": 0,
		`meshnet_paths{kind="relay"}`:   1, `meshnet_paths{kind="direct"}`: 0, "meshnet_peers": 1, "meshnet_peers_connected": 1,
	})
	got.wantPunches(t, "bob")
	moved(t, b, a, "relay", size)
	got = scrape(t, host, relayAt).since(relayed)
	got.want(t, "relay server", map[string]float64{
		"meshnet_relay_sessions_opened_total": 1, "meshnet_relay_sessions_closed_total": 1, "meshnet_relay_sessions": 0,
	})
	if bytes := got["meshnet_relay_forwarded_bytes_total"]; bytes < size || bytes > 1.25*size {
		t.Errorf("%v bytes forwarded", bytes)
	}
	if !waitFor(settleTime, func() bool { _, _, failed := b.counted(t).punches(); return failed > 0 }) {
		t.Error("no punch failed while both were parted")
	}

	// A direct path comes about.
	beforeA, beforeB := a.counted(t), b.counted(t)
	heal()
	stop := keepPinging(a, b)
	both(t, a, b, "direct", 2*settleTime)
	stop()
	for n, before := range map[*node]samples{a: beforeA, b: beforeB} {
		got := n.counted(t)
		got.wantPunches(t, n.name)
		got.since(before).want(t, n.name, map[string]float64{
			"meshnet_dial_attempts_total": 0, "meshnet_relay_opens_total{result=\"ok\"}": 0,
			`meshnet_paths{kind="relay"}`: -1, `meshnet_paths{kind="direct"}`: 1,
		})
	}
	moved(t, a, b, "direct", size)

	// The relay server goes and comes back.
	beforeA, beforeB = a.counted(t), b.counted(t)
	if err := s.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	for n, before := range map[*node]samples{a: beforeA, b: beforeB} {
		if !waitFor(settleTime, func() bool { return n.counted(t).since(before).opens("fail") > 0 }) {
			t.Errorf("%s counts no connection that failed", n.name)
		}
	}
	s.start()
	if !waitFor(settleTime, func() bool { return scrape(t, host, relayAt)["meshnet_relay_sessions"] == 2 }) {
		t.Error("not all come back")
	}
	for n, before := range map[*node]samples{a: beforeA, b: beforeB} {
		if ok := n.counted(t).since(before).opens("ok"); ok != 1 {
			t.Errorf("%s: %v connections, want 1", n.name, ok)
		}
	}
	got = scrape(t, host, relayAt)
	got.want(t, "relay server", map[string]float64{
		"meshnet_relay_sessions_opened_total": 2, "meshnet_relay_sessions_closed_total": 0, "meshnet_relay_sessions": 2,
	})

	// Bob goes for good.
	before := a.counted(t)
	b.proc.Kill()
	stop = keepPinging(a, b)
	gone := waitFor(2*settleTime, func() bool { return a.counted(t).since(before)["meshnet_dial_failures_total"] > 0 })
	stop()
	got = a.counted(t).since(before)
	attempts, failures := got["meshnet_dial_attempts_total"], got["meshnet_dial_failures_total"]
	if !gone || attempts < failures || attempts > failures+1 || got.dial("direct")+got.dial("relay")+got.dial("member") > 0 {
		t.Errorf("%v dials, %v failed, succeeded: direct %v, relay %v", attempts, failures, got.dial("direct"), got.dial("relay"))
	}
	// What is served is what the command prints.
	served := slices.Sorted(maps.Keys(scrape(t, a.host, nodeAt)))
	if printed := slices.Sorted(maps.Keys(parseSamples(t, a.must("metrics")))); !slices.Equal(served, printed) {
		t.Errorf("served %s\nprinted %s", strings.Join(served, "\n"), strings.Join(printed, "\n"))
	}
}

// keepPinging has packets go both ways until it is stopped.
func keepPinging(a, b *node) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			once, cancel := context.WithTimeout(ctx, time.Second)
			_, _ = a.host.PingUntil(once, b.ip4)
			cancel()
			select {
			case <-time.After(50 * time.Millisecond): // the pace of the packets
			case <-ctx.Done():
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// TestRTT compares what is said of round trips with the line that they take. What others do on the machine slows
// everything down for moments, so there are several tries, each with statistics that begin anew.
func TestRTT(t *testing.T) {
	const oneWay = 50 * time.Millisecond
	const want = float64(2*oneWay) / float64(time.Millisecond)
	w := newWorld(t)
	inet := w.lab.Internet()
	a := w.on(inet.Public("alice"))
	b := w.on(inet.AddSite(netlab.SiteConfig{Kind: netlab.PortRestricted, Line: netlab.Line{Delay: oneWay}}).Host("bob"))
	a.up()
	b.up("--join", "@"+a.invite())
	near := func(ms *float64) bool { return ms != nil && *ms > 0.98*want && *ms < 1.2*want }
	for try := 1; ; try++ {
		stop := keepPinging(b, a)
		var p meshnet.PeerStatus
		ok := waitFor(settleTime/2, func() bool {
			got := b.peer(a)
			if got == nil {
				return false
			}
			p = *got
			r := p.RTT
			return near(p.Path.RTTMs) && near(r.LastMs) && near(r.AvgMs) && near(r.P95Ms) && r.Loss != nil && *r.Loss == 0 &&
				r.StddevMs != nil && *r.StddevMs < 0.2*want
		})
		stop()
		t.Logf("path %v ms; last %v, mean %v ± %v, p95 %v, loss %v; the line takes %v ms", value(p.Path.RTTMs),
			value(p.RTT.LastMs), value(p.RTT.AvgMs), value(p.RTT.StddevMs), value(p.RTT.P95Ms), value(p.RTT.Loss), want)
		if ok {
			return
		}
		if try == 3 {
			t.Fatal("that is not what it takes")
		}
		if err := b.proc.Stop(); err != nil {
			t.Fatal(err)
		}
		b.up()
	}
}

func value(f *float64) any {
	if f == nil {
		return nil
	}
	return *f
}
