package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

func TestUsage(t *testing.T) {
	for _, args := range []string{
		"frobnicate", "--frobnicate", "status --frobnicate", "status extra", "ping", "ping a b", "ping a -c x", "ping a -c -1",
		"ping a --size -1", "ping a --timeout 0s", "ping a --interval 0s", "whois", "whois bob", "whois 1.2.3.4 5", "invite extra",
		"invite revoke", "invite revoke a b", "invite --expires -1h", "invite --uses -1", "invite list extra", "members extra",
		"members revoke", "members rename a", "members approve", "members approve a exit", "members approve a relay b", "ip a b", "key", "key frobnicate", "key export --format der", "key import a b",
		"key import --format der", "events extra", "version extra", "completion", "completion tcsh", "help frobnicate",
		"help status extra", "down now", "netcheck extra", "why", "why a b", "metrics extra", "leave", "up extra", "up --mdns=perhaps", "up --dns=false", "up --exit-node a", "up --cidr 10.0.0.0",
		"up --cidr 10.0.0.0/7", "up --cidr 10.0.0.0/21", "up --cidr 10.0.0.1/16", "up --cidr fd00::/16", "up --port 65536",
		"up --mtu 1279", "up --tun= ", "up --tun x --userspace", "up --advertise host", "up --advertise :1", "up --advertise a:0",
		"up --bootstrap a", "up --bootstrap-dns a..b", "up --dht-bootstrap a:1", "up --dht --dht-bootstrap a", "up --socks5 1080", "up --http-proxy a:b", "up --join-timeout -1s", "up --ready-fd 0", "up --ready-fd 987",
		"up --stun a", "up --stun a:0", "up --relay-server http://a", "up --relay-server https://a:9000#sha256=00", "up --relay-addr :1",
		"up --relay-public a:1", "up --relay --relay-addr 9000", "up --relay --relay-public :1", "up --relay --relay-public a:0",
		"up --relay --relay-tls-cert /nonexistent", "up --relay --relay-tls-key x", "up --relay --relay-tls-cert /nonexistent --relay-tls-key y",
		"up --relay-tls-cert x --relay-tls-key y", "up --relay-ca /nonexistent", "up --member-relay maybe", "up --member-relay-rate 20",
		"up --member-relay-rate -1Mbit", "up --metrics 9000", "up --portmap=perhaps",
		"up --log-format xml", "status --log-format xml", "up --hostname=",
	} {
		t.Run(args, func(t *testing.T) {
			r := newRig(t)
			res := r.run(strings.Fields(args)...)
			r.want(res, exitUsage)
			if res.stdout != "" {
				t.Errorf("stdout: %q", res.stdout)
			}
			if r.cfg.Dir != "" {
				t.Error("a node was started")
			}
		})
	}
}

func TestUsageHint(t *testing.T) {
	r := newRig(t)
	for args, want := range map[string]string{
		"statis":                    "meshnet: unknown command: statis\nhint: did you mean: meshnet status\n",
		"invite lits":               "meshnet: invite: unknown command: lits\nhint: did you mean: meshnet invite list\n",
		"up --frob":                 "meshnet: up: unknown flag: --frob\nhint: see: meshnet up --help\n",
		"up --cidr x":               "meshnet: up: --cidr: \"x\" is not a prefix such as 100.88.0.0/16\nhint: see: meshnet up --help\n",
		"up --relay-server ftp://x": "meshnet: up: --relay-server: relay URL \"ftp://x\": a relay URL begins with https://\nhint: see: meshnet up --help\n",
		"up --member-relay-rate 20": `meshnet: up: invalid argument "20" for "--member-relay-rate" flag: not a number with a unit, such as 20Mbit ` +
			"(bit, kbit, Mbit, Gbit; 0: no limit)\nhint: see: meshnet up --help\n",
		"ping -c 1":    "meshnet: ping: an argument is missing: meshnet ping PEER [flags]\nhint: see: meshnet ping --help\n",
		"status extra": "meshnet: status: unexpected argument \"extra\"\nhint: see: meshnet status --help\n",
	} {
		if res := r.run(strings.Fields(args)...); res.stderr != want {
			t.Errorf("%s: got %q, want %q", args, res.stderr, want)
		}
	}
}

func TestNoNode(t *testing.T) {
	for _, args := range []string{
		"down", "invite", "invite list", "invite list --json", "invite revoke x", "status", "status --json", "status --watch",
		"ping alice", "ip", "ip alice", "whois 100.88.9.9", "members", "members revoke alice", "events", "events --json",
		"netcheck", "netcheck --json", "why alice", "why alice --json", "metrics", "members approve alice",
	} {
		t.Run(args, func(t *testing.T) {
			r := newRig(t)
			res := r.run(strings.Fields(args)...)
			r.want(res, exitNoNode)
			if res.stdout != "" || !strings.HasSuffix(res.stderr, "\nhint: start one with: meshnet up\n") {
				t.Errorf("got %+v", res)
			}
		})
	}
}

func TestWhichNode(t *testing.T) {
	r := newRig(t)
	r.serve()
	own := filepath.Join(r.state(), localapi.SocketFile)
	elsewhere := t.TempDir()
	for _, tt := range []struct {
		args string
		env  map[string]string
		want int
	}{
		{"ip", nil, exitDone},
		{"ip --state " + r.state(), nil, exitDone},
		{"ip --state " + elsewhere, nil, exitNoNode},
		{"ip", map[string]string{"MESHNET_STATE": elsewhere}, exitNoNode},
		{"ip --socket " + own + " --state " + elsewhere, nil, exitDone},
		{"ip --socket " + elsewhere + "/s", nil, exitNoNode},
		{"ip", map[string]string{"MESHNET_SOCKET": elsewhere + "/s"}, exitNoNode},
		{"ip", map[string]string{"XDG_STATE_HOME": elsewhere}, exitNoNode},
	} {
		r.env = map[string]string{"HOME": r.dir}
		for k, v := range tt.env {
			r.env[k] = v
		}
		r.want(r.run(strings.Fields(tt.args)...), tt.want)
	}
	r.env = map[string]string{"HOME": elsewhere} // another user
	r.host.system = own
	r.want(r.run("ip"), exitDone)
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct{ args, stdout string }{
		{"ip", "100.88.3.4\nfd00::4\n"},
		{"ip alice", "100.88.9.9\n"},
		{"invite", "mesh1token\n"},
		{"invite --qr", "mesh1token\n"},
		{"invite revoke inv1", ""},
		{"members revoke alice", ""},
		{"members approve alice", ""},
		{"members approve alice relay --withdraw", ""},
		{"metrics", "# HELP meshnet_up Whether it is.\n# TYPE meshnet_up gauge\nmeshnet_up 1\n"},
		{"down", ""},
		{"key show", "SELF\n-----PEM-----\n"},
		{"invite list", "ID    STATE  USED  EXPIRES  TAGS\ninv1  open   0/1   never    -\n"},
		{"whois 100.88.9.9", "name       alice\nfqdn       -\nid         ALICE\naddresses  100.88.9.9\nroles      -\ntags       -\n"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := newRig(t)
			r.serve()
			res := r.run(strings.Fields(tt.args)...)
			r.want(res, exitDone)
			if res.stdout != tt.stdout {
				t.Errorf("stdout %q, want %q", res.stdout, tt.stdout)
			}
		})
	}
}

func TestStatusForPeople(t *testing.T) {
	r := newRig(t)
	r.serve()
	res := r.run("status")
	r.want(res, exitDone)
	for _, want := range []string{
		"web (SELF)", "amber-falcon, members: 2", "100.88.3.4 fd00::4", "userspace, SOCKS5 127.0.0.1:1080",
		"alice  100.88.9.9  connected  direct 192.0.2.1:41820  1.2 ms  -     2.0 KiB   10 B  12s ago", "warning: no IPv6", "hint: ask for it",
	} {
		if !strings.Contains(res.stdout, want) {
			t.Errorf("%q is not in\n%s", want, res.stdout)
		}
	}
	if strings.Contains(res.stdout, "\x1b") {
		t.Error("colours without a terminal")
	}
	peers := r.run("status", "--peers")
	if strings.Contains(peers.stdout, "amber") || !strings.Contains(peers.stdout, "alice") {
		t.Errorf("--peers: %s", peers.stdout)
	}
}

// fields are the keys of a document, nested ones with a dot; those of the first element for a list.
func fields(v any, prefix string) []string {
	var out []string
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			out = append(out, prefix+key)
			out = append(out, fields(value, prefix+key+".")...)
		}
	case []any:
		if len(v) > 0 {
			out = append(out, fields(v[0], prefix)...)
		}
	}
	slices.Sort(out)
	return out
}

func TestJSON(t *testing.T) {
	const who = "fqdn id ips name roles self tags"
	const ping = "error ok path path.addr path.kind path.reason path.rtt_ms path.since path.via rtt_ms seq"
	for _, tt := range []struct{ args, want string }{
		{"status --json", `health health.code health.hint health.severity health.text
			network network.id network.members network.name network.prefix4 network.prefix6 network.relay_key network.suffix
			peers peers.admitted peers.endpoints peers.fqdn peers.id peers.ips peers.last_handshake peers.last_seen peers.name
			peers.path peers.path.addr peers.path.kind peers.path.reason peers.path.rtt_ms peers.path.since peers.path.via
			peers.pq peers.roles peers.routes peers.rtt peers.rtt.avg_ms peers.rtt.last_ms peers.rtt.loss peers.rtt.p95_ms
			peers.rtt.stddev_ms peers.rx_bytes peers.services peers.state peers.tags peers.tx_bytes
			self self.endpoints self.fqdn self.homes self.id self.interface self.ips self.listen self.listen.dns
			self.listen.http_proxy self.listen.metrics self.listen.relay self.listen.socks5 self.listen.udp self.listen.web
			self.mode self.name self.port self.relay_url self.roles self.started state version`},
		{"members --json", "admitted by id invite ips name revoked roles self tags"},
		{"invite list --json", "created expires id state tags used uses"},
		{"ip --json", who},
		{"ip alice --json", who},
		{"whois 100.88.9.9 --json", who},
		{"ping alice -c 1 --json", ping},
		{"key show --json", "id public"},
		{"netcheck --json", `filtering hairpin ipv4 ipv6 mapping nat portmap portmap.external portmap.nat_pmp portmap.pcp
			portmap.protocol portmap.upnp relays relays.connected relays.error relays.home relays.latency_ms relays.url
			stun stun.error stun.latency_ms stun.mapped stun.server took_ms udp`},
		{"why alice --json", `ours ours.candidates ours.candidates.addr ours.candidates.source ours.homes ours.nat
			path path.addr path.kind path.reason path.rtt_ms path.since path.via
			peer peer.fqdn peer.id peer.ips peer.name peer.roles peer.self peer.tags
			probes probes.last_ping probes.last_pong probes.path probes.path.addr probes.path.kind probes.path.reason
			probes.path.rtt_ms probes.path.since probes.path.via probes.pings probes.pongs probes.rx_bytes probes.size
			probes.tx_bytes probes.verdict rule
			theirs theirs.candidates theirs.candidates.addr theirs.candidates.source theirs.homes theirs.nat`},
		{"version --json", "arch go os version"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := newRig(t)
			r.node.pings = []meshnet.PingResult{{OK: true}}
			r.serve()
			res := r.run(strings.Fields(tt.args)...)
			r.want(res, exitDone)
			var doc any
			if err := json.Unmarshal([]byte(res.stdout), &doc); err != nil {
				t.Fatalf("%v in %q", err, res.stdout)
			}
			if got, want := strings.Join(fields(doc, ""), " "), strings.Join(strings.Fields(tt.want), " "); got != want {
				t.Errorf("fields\n%s, want\n%s", got, want)
			}
			if strings.Contains(res.stdout, `"roles":null`) || strings.Contains(res.stdout, `"tags":null`) {
				t.Errorf("a list is null: %s", res.stdout)
			}
		})
	}
}

func TestInviteOptions(t *testing.T) {
	for _, tt := range []struct{ args, want, stderr string }{
		{"invite", "24h0m0s 1 []", "uses 1\n"},
		{"invite --expires 0 --uses 0", "-1ns 0 []", "invite inv1 expires never, uses unlimited\n"},
		{"invite --expires 90m --uses 5 --tag a --tag b,c", "1h30m0s 5 [a b c]", "uses 5\n"},
	} {
		r := newRig(t)
		r.serve()
		res := r.run(strings.Fields(tt.args)...)
		r.want(res, exitDone)
		r.node.mu.Lock()
		o := r.node.invited
		r.node.mu.Unlock()
		if got := fmt.Sprint(o.Expires, o.Uses, o.Tags); got != tt.want {
			t.Errorf("%s: asked for %s, want %s", tt.args, got, tt.want)
		}
		if !strings.HasPrefix(res.stderr, "invite inv1 expires ") || !strings.HasSuffix(res.stderr, tt.stderr) {
			t.Errorf("%s: stderr %q", tt.args, res.stderr)
		}
	}
}

// The reason of a refusal crosses the socket and becomes the exit code and the hint.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		hint string
	}{
		{meshnet.ErrRevoked, exitRefused, "an admin"},
		{meshnet.ErrInviteExpired, exitRefused, "ask for a new token"},
		{meshnet.ErrInviteUsed, exitRefused, "ask for a new token"},
		{meshnet.ErrDenied, exitRefused, ""},
		{meshnet.ErrNotAdmin, exitFailed, "ask an admin"},
		{meshnet.ErrUnknownPeer, exitFailed, "see who is there"},
		{localapi.ErrNotPermitted, exitFailed, "run it with sudo"},
		{errors.New("first\nsecond\x1b[2J"), exitFailed, ""},
		{&meshnet.Hinted{Err: errors.New("odd"), Hint: "turn it"}, exitFailed, "turn it"},
	} {
		r := newRig(t)
		r.node.err = tt.err
		r.serve()
		res := r.run("members", "revoke", "alice")
		r.want(res, tt.code)
		if !strings.HasPrefix(res.stderr, "meshnet: members revoke: ") || strings.Contains(res.stderr, "\x1b") {
			t.Errorf("%v: %q", tt.err, res.stderr)
		}
		if _, hint, _ := strings.Cut(res.stderr, "\nhint: "); !strings.HasPrefix(hint, tt.hint) || tt.hint == "" && hint != "" {
			t.Errorf("%v: hint %q, want %q", tt.err, hint, tt.hint)
		}
	}
}

func TestPing(t *testing.T) {
	relay := meshnet.PingResult{OK: true, RTTMs: ptr(40.0), Path: meshnet.PathStatus{Kind: "relay", Via: ptr("r1")}}
	direct := meshnet.PingResult{OK: true, RTTMs: ptr(1.21), Path: meshnet.PathStatus{Kind: "direct", Addr: ptr("192.0.2.1:1")}}
	lost := meshnet.PingResult{Error: ptr("timeout")}
	for _, tt := range []struct {
		name, args string
		pings      []meshnet.PingResult
		code       int
		stdout     string
	}{
		{
			"human", "-c 2",
			[]meshnet.PingResult{relay, direct},
			exitDone,
			"pong from alice (100.88.9.9) via relay r1 in 40.0 ms\npong from alice (100.88.9.9) via direct 192.0.2.1:1 in 1.2 ms\n",
		},
		{
			"some lost", "-c 2",
			[]meshnet.PingResult{lost, direct},
			exitDone,
			"no answer from alice (100.88.9.9): timeout\npong from alice (100.88.9.9) via direct 192.0.2.1:1 in 1.2 ms\n",
		},
		{"all lost", "-c 1", nil, exitFailed, "no answer from alice (100.88.9.9): timeout\n"},
		{
			"until direct", "--until-direct",
			[]meshnet.PingResult{relay, direct, relay},
			exitDone,
			"pong from alice (100.88.9.9) via relay r1 in 40.0 ms\npong from alice (100.88.9.9) via direct 192.0.2.1:1 in 1.2 ms\n",
		},
		{
			"never direct", "--until-direct -c 1",
			[]meshnet.PingResult{relay},
			exitFailed,
			"pong from alice (100.88.9.9) via relay r1 in 40.0 ms\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.node.pings = tt.pings
			r.serve()
			res := r.run(append([]string{"ping", "alice", "--interval", "1ms"}, strings.Fields(tt.args)...)...)
			r.want(res, tt.code)
			if res.stdout != tt.stdout {
				t.Errorf("stdout %q, want %q", res.stdout, tt.stdout)
			}
		})
	}
	t.Run("default counts", func(t *testing.T) {
		for args, want := range map[string]int{"": 4, "--until-direct": 30, "--until-direct -c 2": 2} {
			r := newRig(t)
			r.serve()
			res := r.run(append([]string{"ping", "alice", "--json", "--interval", "1ms"}, strings.Fields(args)...)...)
			if got := strings.Count(res.stdout, "\n"); got != want {
				t.Errorf("%q sent %d, want %d", args, got, want)
			}
		}
	})
	t.Run("unknown peer", func(t *testing.T) {
		r := newRig(t)
		r.serve()
		res := r.run("ping", "nobody")
		r.want(res, exitFailed)
		if res.stderr != "meshnet: ping: unknown peer\nhint: see who is there with: meshnet status\n" {
			t.Errorf("stderr %q", res.stderr)
		}
	})
	t.Run("for ever", func(t *testing.T) {
		for _, answered := range []bool{true, false} {
			r := newRig(t)
			want := exitFailed
			if answered {
				r.node.pings, want = []meshnet.PingResult{direct}, exitDone
			}
			r.serve()
			r.want(r.interrupted("ping", "alice", "-c", "0", "--interval", "1ms"), want)
		}
	})
}

func TestEvents(t *testing.T) {
	for args, want := range map[string]string{
		"events --json": `{"time":"0001-01-01T00:00:00Z","type":"peer_connected","peer":"ALICE","name":"alice","data":{"n":1}}` + "\n",
		"events":        ` peer_connected alice {"n":1}` + "\n",
	} {
		r := newRig(t)
		r.serve()
		done := make(chan result)
		go func() { done <- r.run(strings.Fields(args)...) }()
		poll(t, "subscribed", func() bool {
			r.node.mu.Lock()
			defer r.node.mu.Unlock()
			return len(r.node.events) > 0
		})
		r.node.end(nil)
		res := <-done
		r.want(res, exitDone)
		if !strings.HasSuffix(res.stdout, want) || strings.Count(res.stdout, "\n") != 1 {
			t.Errorf("%s: %q", args, res.stdout)
		}
	}
}

func TestWatch(t *testing.T) {
	r := newRig(t)
	r.serve()
	res := r.interrupted("status", "--watch", "--json")
	r.want(res, exitDone)
	if !json.Valid([]byte(res.stdout)) || strings.Count(res.stdout, "\n") != 1 {
		t.Errorf("stdout %q", res.stdout)
	}
}

func TestCompletion(t *testing.T) {
	r := newRig(t)
	r.serve()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		res := r.run("completion", shell)
		r.want(res, exitDone)
		if !strings.Contains(res.stdout, "__complete") || res.stderr != "" {
			t.Errorf("%s: %d bytes, stderr %q", shell, len(res.stdout), res.stderr)
		}
	}
	for args, want := range map[string]string{
		"why al":                        "alice\n",
		"ping ":                         "alice\n",
		"members revoke ":               "alice\n",
		"members approve ":              "alice\n",
		"members approve alice ":        "relay\n",
		"members approve alice relay ":  ":4\n",
		"up --member-relay ":            "auto\non\noff\n",
		"ip --socket /nonexistent ":     ":4\n",
		"ip --state /nonexistent alice": ":4\n",
	} {
		if res := r.run(append([]string{"__complete"}, strings.Split(args, " ")...)...); !strings.HasPrefix(res.stdout, want) {
			t.Errorf("%q completes to %q, want %q", args, res.stdout, want)
		}
	}
	if res := r.run("__complete", "inv"); !strings.Contains(res.stdout, "invite\t") {
		t.Errorf("completes to %q", res.stdout)
	}
}

// Every command explains itself on stdout, with an example.
func TestHelp(t *testing.T) {
	r := newRig(t)
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		words := strings.Fields(cmd.CommandPath())[1:]
		for _, args := range [][]string{append(slices.Clone(words), "--help"), append([]string{"help"}, words...)} {
			res := r.run(args...)
			r.want(res, exitDone)
			if !strings.Contains(res.stdout, "Examples:\n") || !strings.Contains(res.stdout, "Usage:\n") || res.stderr != "" {
				t.Errorf("%v: %+v", args, res)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit((&app{host: r.host}).root())
	if res := r.run("up", "--help"); !strings.Contains(res.stdout, "other users of this machine can then see") {
		t.Error("the help of --join does not warn")
	}
}
