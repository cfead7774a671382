package main

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/prom"
)

const (
	relayURL   = "https://r.example:9000"
	lonely     = "nobody from outside finds this node"
	lonelyHint = "start a relay server"
)

// relayStatus makes a status that of a node behind a hard NAT, which reaches alice by a relay.
func relayStatus(s *meshnet.Status) {
	s.Self.Homes = []string{relayURL + "#sha256=ab", "bob"}
	s.Self.Listen.Relay, s.Self.Listen.Metrics = ptr("[::]:9000"), ptr("127.0.0.1:9100")
	p := &s.Peers[0]
	p.Path = meshnet.PathStatus{Kind: "relay", Via: ptr(relayURL), Reason: ptr("hard NATs on both sides")}
	p.RTT = meshnet.RTTStatus{LastMs: ptr(40.0), StddevMs: ptr(3.25), Loss: ptr(0.02)}
	s.Health = append(s.Health, meshnet.Health{Code: "no_rendezvous", Severity: "warning", Text: lonely, Hint: lonelyHint})
}

func (f *fakeNode) Netcheck(context.Context) (*meshnet.Netcheck, error) {
	addr := netip.MustParseAddrPort("203.0.113.7:41820")
	return &meshnet.Netcheck{
		UDP: true, IPv4: &addr, NAT: ptr("hard"), Mapping: ptr("address-and-port-dependent"), Filtering: ptr("address-dependent"),
		Hairpin: ptr(false), Took: 1234,
		PortMap: meshnet.NetcheckPortMap{PCP: ptr(false), UPnP: ptr(true), External: &addr, Protocol: ptr("UPnP")},
		STUN: []meshnet.NetcheckServer{
			{Server: "stun.example:3478", Mapped: &addr, LatencyMs: ptr(12.0)},
			{Server: "gone.example:3478", Error: ptr("no answer in 3s")},
		},
		Relays: []meshnet.NetcheckRelay{
			{URL: relayURL, Connected: true, Home: true, LatencyMs: ptr(20.0)},
			{URL: "https://s.example:9000", Connected: true, LatencyMs: ptr(31.0)},
			{URL: "https://gone.example:9000", Error: ptr("certificate expired")},
		},
	}, nil
}

func (f *fakeNode) Why(peer string) (*meshnet.Why, error) {
	who, err := f.Lookup(peer)
	if err != nil {
		return nil, err
	}
	since := time.Now().Add(-90 * time.Second)
	return &meshnet.Why{
		Peer: who,
		Path: meshnet.PathStatus{Kind: "relay", Via: ptr(relayURL), RTTMs: ptr(40.0), Since: &since, Reason: ptr("no pong from any address")},
		Rule: "no direct path answered, no member relays: the relay server of the peer's home",
		Ours: meshnet.WhySide{
			NAT: ptr("hard"), Homes: []string{relayURL},
			Candidates: []meshnet.EndpointStatus{{Addr: netip.MustParseAddrPort("192.168.1.2:41820"), Source: "local"}},
		},
		Theirs: meshnet.WhySide{Candidates: []meshnet.EndpointStatus{{Addr: netip.MustParseAddrPort("192.0.2.1:41820"), Source: "stun"}}},
		Probes: []meshnet.WhyProbe{
			{Path: meshnet.PathStatus{Kind: "direct", Addr: ptr("192.0.2.1:41820")}, Pings: 5, Verdict: "no answer\x1b[2J"},
			{
				Path: meshnet.PathStatus{Kind: "relay", Via: ptr(relayURL), RTTMs: ptr(40.0)}, Pings: 3, Pongs: 3, LastPong: &since,
				Size: 1312, RxBytes: 4096, TxBytes: 100, Verdict: "in use",
			},
		},
	}, nil
}

func (f *fakeNode) Metrics() []prom.Family {
	return []prom.Family{{Name: "meshnet_up", Help: "Whether it is.", Type: prom.Gauge, Samples: []prom.Sample{prom.Of(1)}}}
}

func TestNetcheckForPeople(t *testing.T) {
	r := newRig(t)
	r.serve()
	res := r.run("netcheck")
	r.want(res, exitDone)
	const want = `UDP           works
IPv4          seen as 203.0.113.7:41820
IPv6          not seen by anybody
NAT           hard: a port per destination; direct paths need an easy NAT on the other side
mapping       address-and-port-dependent: another port for each address and port
filtering     address-dependent: only from addresses that were written to
hairpin       no: nodes behind this NAT reach each other by inside addresses only
port mapping  203.0.113.7:41820 is ours by UPnP; the router speaks UPnP
took          1.234s

STUN SERVER        SEES               LATENCY
stun.example:3478  203.0.113.7:41820  12.0 ms
gone.example:3478  no answer in 3s    -

RELAY                      STATE                LATENCY
https://r.example:9000     home                 20.0 ms
https://s.example:9000     connected            31.0 ms
https://gone.example:9000  certificate expired  -
`
	if res.stdout != want {
		t.Errorf("got\n%s\nwant\n%s", res.stdout, want)
	}
}

// A node that is cut off says so, and what would help.
func TestNetcheckOfNothing(t *testing.T) {
	var out strings.Builder
	a := &app{stdout: &out}
	a.showNetcheck(&meshnet.Netcheck{NAT: ptr("blocked"), Mapping: ptr("odd"), Hairpin: ptr(true)})
	for _, want := range []string{
		"UDP           blocked: ", "NAT           blocked: ", "mapping       odd\n", "filtering     unknown\n", "hairpin       yes: ",
		"port mapping  unknown\n", "meshnet up --stun HOST:PORT", "start one with: meshnet relay",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestPortMapText(t *testing.T) {
	addr := netip.MustParseAddrPort("192.0.2.1:1")
	yes, no := ptr(true), ptr(false)
	for want, p := range map[string]meshnet.NetcheckPortMap{
		"unknown":                                         {},
		"the router offers none":                          {PCP: no, NATPMP: no, UPnP: no},
		"the router speaks PCP, UPnP":                     {PCP: yes, NATPMP: no, UPnP: yes},
		"192.0.2.1:1 is ours by PCP":                      {External: &addr, Protocol: ptr("PCP")},
		"192.0.2.1:1 is ours by -; the router speaks PCP": {PCP: yes, External: &addr},
	} {
		if got := portMapText(p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWhyForPeople(t *testing.T) {
	r := newRig(t)
	r.serve()
	res := r.run("why", "alice")
	r.want(res, exitDone)
	const want = `peer         alice (100.88.9.9)
path         relay https://r.example:9000 in 40.0 ms, chosen 1m ago (no pong from any address)
because      no direct path answered, no member relays: the relay server of the peer's home
our NAT      hard: a port per destination; direct paths need an easy NAT on the other side
their NAT    unknown
our homes    https://r.example:9000
their homes  -

ADDRESS OF  ADDRESS            LEARNT FROM
this node   192.168.1.2:41820  local
alice       192.0.2.1:41820    stun

PATH                          PINGS  PONGS  LAST PONG  RTT      FITS  RECEIVED  SENT   VERDICT
direct 192.0.2.1:41820        5      0      -          -        -     0 B       0 B    no answer[2J
relay https://r.example:9000  3      3      1m ago     40.0 ms  1312  4.0 KiB   100 B  in use
`
	if res.stdout != want {
		t.Errorf("got\n%s\nwant\n%s", res.stdout, want)
	}
	res = r.run("why", "nobody")
	r.want(res, exitFailed)
	if res.stderr != "meshnet: why: unknown peer\nhint: see who is there with: meshnet status\n" {
		t.Errorf("stderr %q", res.stderr)
	}
}

// A path that is not direct comes with its reason, everywhere.
func TestStatusRelayed(t *testing.T) {
	r := newRig(t)
	r.node.relayed = true
	r.serve()
	res := r.run("status")
	r.want(res, exitDone)
	for _, want := range []string{
		"homes      https://r.example:9000 bob\n", "relay      [::]:9000\n", "metrics    127.0.0.1:9100\n",
		"HANDSHAKE  WHY NOT DIRECT\n", "relay https://r.example:9000  40.0 ms ±3.2  2%    2.0 KiB   10 B  12s ago    hard NATs on both sides\n",
	} {
		if !strings.Contains(res.stdout, want) {
			t.Errorf("%q is not in\n%s", want, res.stdout)
		}
	}
}

func TestUntilDirectSaysWhy(t *testing.T) {
	r := newRig(t)
	r.node.pings = []meshnet.PingResult{
		{OK: true, RTTMs: ptr(5.0), Path: meshnet.PathStatus{Kind: "member", Via: ptr("bob"), Addr: ptr("192.0.2.3:41820"), Reason: ptr("hard NATs")}},
	}
	r.serve()
	res := r.run("ping", "alice", "--until-direct", "-c", "1")
	r.want(res, exitFailed)
	if res.stdout != "pong from alice (100.88.9.9) via member bob 192.0.2.3:41820 in 5.0 ms\n" {
		t.Errorf("stdout %q", res.stdout)
	}
	if want := "meshnet: ping: no direct path to alice (100.88.9.9): hard NATs\nhint: what is in the way: meshnet why alice\n"; res.stderr != want {
		t.Errorf("stderr %q, want %q", res.stderr, want)
	}
}

func TestApprove(t *testing.T) {
	for _, tt := range []struct{ args, want, note string }{
		{"members approve alice", "approve alice relay true", "alice counts as a relay"},
		{"members approve alice relay", "approve alice relay true", "alice counts as a relay"},
		{"members approve --withdraw alice", "approve alice relay false", "alice does not count as a relay"},
	} {
		r := newRig(t)
		r.serve()
		res := r.run(strings.Fields(tt.args)...)
		r.want(res, exitDone)
		if r.node.revoked != tt.want || !strings.HasPrefix(res.stderr, tt.note) {
			t.Errorf("%s: asked %q, stderr %q", tt.args, r.node.revoked, res.stderr)
		}
	}
	r := newRig(t)
	r.node.err = meshnet.ErrNotAdmin
	r.serve()
	r.want(r.run("members", "approve", "alice"), exitFailed)
}

// Who makes a token hears that nobody will find the node it leads to; the token stays alone on stdout.
func TestInviteWarns(t *testing.T) {
	r := newRig(t)
	r.node.relayed = true
	r.serve()
	res := r.run("invite")
	r.want(res, exitDone)
	if res.stdout != "mesh1token\n" || !strings.HasSuffix(res.stderr, "uses 1\n"+lonely+"\nhint: "+lonelyHint+"\n") {
		t.Errorf("got %+v", res)
	}
}

func TestUpWarns(t *testing.T) {
	r := newRig(t)
	r.node.relayed = true
	done := r.up()
	r.signals <- os.Interrupt
	res := <-done
	r.want(res, exitDone)
	if strings.Count(res.stderr, lonely+"\nhint: "+lonelyHint+"\n") != 1 || !strings.Contains(res.stderr, "relay server on [::]:9000\n") {
		t.Errorf("stderr %q", res.stderr)
	}
}

var healthEvent = meshnet.Event{Type: meshnet.EventHealth, Data: map[string]any{
	"code": "no_rendezvous", "severity": "warning", "text": lonely, "hint": lonelyHint,
}}

func TestEventDetails(t *testing.T) {
	relay := meshnet.PathStatus{Kind: "relay", Via: ptr("r1")}
	direct := meshnet.PathStatus{Kind: "direct", Addr: ptr("192.0.2.1:1"), RTTMs: ptr(1.21)}
	back := meshnet.PathStatus{Kind: "relay", Via: ptr("r1"), Reason: ptr("no pong for 1s")}
	for _, tt := range []struct {
		kind string
		data map[string]any
		want string
	}{
		{"path_changed", map[string]any{"path": direct, "from": relay}, "direct 192.0.2.1:1 in 1.2 ms, was relay r1"},
		{"path_changed", map[string]any{"path": back, "from": direct}, "relay r1, was direct 192.0.2.1:1 (no pong for 1s)"},
		{"path_changed", map[string]any{"path": meshnet.PathStatus{Kind: "none"}, "from": meshnet.PathStatus{Kind: "none"}}, "-"},
		{"path_changed", map[string]any{"path": "odd"}, `{"path":"odd"}`},
		{"relay_connected", map[string]any{"url": "https://r"}, "https://r"},
		{"relay_lost", map[string]any{"url": "https://r", "reason": "EOF"}, "https://r (EOF)"},
		{"relay_lost", map[string]any{"url": "https://r", "lost": 3}, "https://r (3 events before it were lost: this reader is too slow)"},
		{"home_changed", map[string]any{"homes": []string{"https://r", "bob"}, "reason": "20 ms nearer"}, "https://r bob (20 ms nearer)"},
		{"home_changed", map[string]any{"homes": []string{}}, "-"},
		{"health", healthEvent.Data, "warning: " + lonely + "; hint: " + lonelyHint},
		{"bootstrap_failed", map[string]any{"reason": "x", "target": "y"}, `{"reason":"x","target":"y"}`},
		{"node_ready", nil, ""},
	} {
		got, err := eventDetails(meshnet.Event{Type: meshnet.EventType(tt.kind), Data: tt.data})
		if err != nil || got != tt.want {
			t.Errorf("%s %v: %q, %v, want %q", tt.kind, tt.data, got, err, tt.want)
		}
	}
}
