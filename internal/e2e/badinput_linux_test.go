package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/control/join"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/netmap"
)

// ending is how a command ended.
type ending struct {
	code   int
	stdout string
	stderr string
}

// finish runs a program on the node's host until it ends by itself.
func (n *node) finish(path string, args ...string) ending {
	n.w.t.Helper()
	var stdout, stderr bytes.Buffer
	p, err := n.host.Start(netlab.Proc{Path: path, Args: args, Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		n.w.t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(30 * time.Second):
		n.w.t.Fatalf("%v on %s did not end:\n%s", args, n.name, p.Output())
	}
	e := ending{stdout: stdout.String(), stderr: stderr.String()}
	if exit, ok := errors.AsType[*exec.ExitError](p.Wait()); ok {
		e.code = exit.ExitCode()
	}
	return e
}

// failUp runs an `up` that must fail as the contract says.
func (n *node) failUp(code int, says string, args ...string) ending {
	n.w.t.Helper()
	e := n.finish(n.w.bin, append([]string{"up", "--state", n.state, "--hostname", n.name}, args...)...)
	e.check(n.w.t, code, says)
	return e
}

// check compares an ending with the contract: the exit code, one line of error, at most one hint.
func (e ending) check(t testing.TB, code int, says string) {
	t.Helper()
	if e.code != code {
		t.Errorf("exit code %d, want %d:\n%s", e.code, code, e.stderr)
	}
	var failures, hints, others []string
	for line := range strings.Lines(e.stderr) {
		switch {
		case strings.HasPrefix(line, "meshnet: "):
			failures = append(failures, line)
		case strings.HasPrefix(line, "hint: "):
			hints = append(hints, line)
		case !strings.HasPrefix(line, "time=") && !strings.HasPrefix(line, "waiting for a member"):
			others = append(others, line)
		}
	}
	if len(failures) != 1 || len(hints) > 1 || len(others) > 0 {
		t.Errorf("want one line of error and at most one hint:\n%s", e.stderr)
	}
	if !strings.Contains(strings.Join(failures, ""), says) {
		t.Errorf("the error does not say %q:\n%s", says, e.stderr)
	}
	if e.stdout != "" {
		t.Errorf("on stdout: %q", e.stdout)
	}
}

// memory is what a state folder says about who the node is: nothing that fails may change it.
func (n *node) memory() map[string]string {
	n.w.t.Helper()
	kept := map[string]string{}
	for _, name := range []string{identity.KeyFile, "network.cbor"} {
		data, err := os.ReadFile(filepath.Join(n.state, name))
		if err == nil {
			kept[name] = string(data)
		}
	}
	return kept
}

func (n *node) wantMemory(want map[string]string) {
	n.w.t.Helper()
	if got := n.memory(); !maps.Equal(got, want) {
		n.w.t.Errorf("the state folder of %s holds another key or network than before", n.name)
	}
}

// file keeps text in a file of the world.
func (w *world) file(text string) string {
	w.t.Helper()
	f, err := os.CreateTemp(w.dir, "file")
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
	return f.Name()
}

func (w *world) read(path string) string {
	w.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// invites lists the invites of a node.
func (n *node) invites() []meshnet.InviteStatus {
	n.w.t.Helper()
	var all []meshnet.InviteStatus
	if err := json.Unmarshal([]byte(n.must("invite", "list", "--json")), &all); err != nil {
		n.w.t.Fatal(err)
	}
	return all
}

// until polls a condition.
func until(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// altered is a token with one character in the middle exchanged for another of the alphabet.
func altered(token string) string {
	b := []byte(token)
	if i := len(b) / 2; b[i] == 'x' {
		b[i] = 'y'
	} else {
		b[i] = 'x'
	}
	return string(b)
}

// TestBadTokens joins with tokens that are no good; then a good one still works on the same folder.
func TestBadTokens(t *testing.T) {
	w := newWorld(t)
	nodes := w.lan("alice", "bob", "carol")
	a, b, c := nodes[0], nodes[1], nodes[2]
	a.up()
	good, used := a.invite(), a.invite()
	b.up("--join", "@"+used)
	text := w.read(good)
	for _, bad := range []struct{ name, token string }{
		{"truncated", text[:len(text)-5]},
		{"cut to half", text[:len(text)/2]},
		{"altered", altered(text)},
		{"with a character outside of the alphabet", strings.Replace(text, text[20:21], "0", 1)},
		{"without its prefix", text[5:]},
		{"not a token", "hello"},
		{"binary", "\x00\xff\x1b[31m"},
		{"empty", ""},
		{"endless", "mesh1" + strings.Repeat("z", 100_000)},
	} {
		t.Run(bad.name, func(t *testing.T) {
			before := c.memory()
			c.failUp(1, "token", "--join", "@"+w.file(bad.token))
			if len(before) > 0 {
				c.wantMemory(before)
			}
		})
	}
	c.failUp(1, "no such file", "--join", "@"+filepath.Join(w.dir, "nothing"))

	expired := a.invite("--expires", "1s")
	revoked := a.invite()
	a.must("invite", "revoke", a.invites()[3].ID)
	until(t, 10*time.Second, "the invite has expired", func() bool { return a.invites()[2].State == "expired" })
	before := c.memory()
	for _, refused := range []struct{ name, file, says string }{
		{"expired", expired, "expired"},
		{"used up", used, "used"},
		{"revoked", revoked, "revoked"},
	} {
		t.Run(refused.name, func(t *testing.T) {
			c.failUp(4, refused.says, "--join", "@"+refused.file)
			c.wantMemory(before)
		})
	}
	if got := a.status().Network.Members; got != 2 {
		t.Errorf("%d members, want 2: nobody came in", got)
	}
	c.up("--join", "@"+good)
	c.ping(a.ip4, 5*time.Second)
	c.ping(b.ip4, 5*time.Second)
	if got := c.memory(); got[identity.KeyFile] != before[identity.KeyFile] {
		t.Error("the node has another key than before")
	}
}

// TestTokenOfAnotherNetwork is refused by a member; who founded a network by mistake is let go.
func TestTokenOfAnotherNetwork(t *testing.T) {
	w := newWorld(t)
	nodes := w.lan("alice", "bob", "carol", "dave")
	a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
	a.up()
	b.up("--join", "@"+a.invite())
	c.up()
	foreign := c.invite("--uses", "0")
	expired := c.invite("--expires", "1s")
	ip := b.ip4
	if err := b.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	before := b.memory()
	b.failUp(1, "another network", "--join", "@"+foreign)
	b.wantMemory(before)
	b.up()
	if b.ip4 != ip {
		t.Errorf("address %s, was %s", b.ip4, ip)
	}
	b.ping(a.ip4, 5*time.Second)

	d.up()
	d.invite()
	open := d.invites()[0].ID
	stop := func() {
		t.Helper()
		if err := d.proc.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	before = d.memory()
	d.failUp(1, "another network", "--join", "@"+foreign) // somebody may hold the token
	d.wantMemory(before)
	d.up()
	d.must("invite", "revoke", open)
	stop()
	until(t, 10*time.Second, "the invite has expired", func() bool { return c.invites()[1].State == "expired" })
	d.failUp(4, "expired", "--join", "@"+expired)
	d.wantMemory(before)
	d.up("--join", "@"+foreign)
	if !strings.Contains(d.proc.Output(), "replaced") {
		t.Errorf("it does not say that a network was replaced:\n%s", d.proc.Output())
	}
	d.ping(c.ip4, 5*time.Second)
	if got, want := *d.status().Network.ID, *c.status().Network.ID; got != want {
		t.Errorf("in network %s, want %s", got, want)
	}
}

// TestSecondUp starts a second node on a folder that is in use.
func TestSecondUp(t *testing.T) {
	w := newWorld(t)
	a := w.lan("alice")[0].up()
	before := a.status()
	e := a.failUp(1, "pid "+strconv.Itoa(a.proc.Pid()))
	if !strings.Contains(e.stderr, "hint: ") {
		t.Errorf("no hint:\n%s", e.stderr)
	}
	a.failUp(1, "pid "+strconv.Itoa(a.proc.Pid()), "--detach")
	if after := a.status(); after.Self.ID != before.Self.ID || !after.Self.Started.Equal(before.Self.Started) {
		t.Error("the first one does not run as before")
	}
	a.must("invite")
}

// TestBadSettings has mistakes of the caller and of the machine.
func TestBadSettings(t *testing.T) {
	w := newWorld(t)
	n := w.lan("alice")[0]
	tooLong := strings.Repeat("n", 20)
	for _, bad := range []struct {
		name string
		code int
		says string
		args []string
	}{
		{"unknown flag", 2, "--no-such", []string{"--no-such"}},
		{"unexpected argument", 2, "extra", []string{"extra"}},
		{"prefix out of bounds", 2, "/24", []string{"--cidr", "10.0.0.0/24"}},
		{"no number", 2, "port", []string{"--port", "70000"}},
		{"unknown key", 2, `line 3: unknown key "hostnam"`, []string{"--config", w.file("# comment\nport = 0\nhostnam = \"x\"\n")}},
		{"no TOML", 2, "line 2", []string{"--config", w.file("port = 0\n= = =\n")}},
		{"bad value in the file", 2, "line 1: mtu", []string{"--config", w.file("mtu = \"many\"\n")}},
		{"interface name too long", 1, "TUN", []string{"--tun", tooLong}},
	} {
		t.Run(bad.name, func(t *testing.T) { n.failUp(bad.code, bad.says, bad.args...) })
	}
}

// TestPortInUse: an explicit port that is taken fails, a default one moves.
func TestPortInUse(t *testing.T) {
	w := newWorld(t)
	n := w.lan("alice")[0]
	hold := func(network, addr string) {
		t.Helper()
		pc, err := n.host.ListenPacket(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
	}
	hold("udp4", "0.0.0.0:40001")
	hold("udp6", "[::]:40002")
	hold("udp4", "0.0.0.0:41820")
	for _, port := range []string{"40001", "40002"} {
		if e := n.failUp(1, port, "--port", port); !strings.Contains(e.stderr, "\nhint: ") {
			t.Errorf("no hint:\n%s", e.stderr)
		}
	}
	for _, addr := range []string{"127.0.0.1:1080", "127.0.0.1:1081"} {
		l, err := n.host.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if e := n.failUp(1, "127.0.0.1:1080", "--userspace", "--socks5", "127.0.0.1:1080"); !strings.Contains(e.stderr, "\nhint: ") {
		t.Errorf("no hint:\n%s", e.stderr)
	}
	n.up("--userspace")
	self := n.status().Self
	if self.Port == 41820 || self.Port == 0 {
		t.Errorf("UDP port %d", self.Port)
	}
	for _, addr := range []*string{self.Listen.SOCKS5, self.Listen.HTTPProxy} {
		if addr == nil || strings.HasSuffix(*addr, ":1080") || strings.HasSuffix(*addr, ":1081") {
			t.Errorf("proxy at %v", addr)
		}
	}
}

// TestNoTUN has hosts where no TUN can be made: userspace mode where none was asked for, failure where one was.
func TestNoTUN(t *testing.T) {
	for _, c := range []struct {
		name string
		wrap func(t *testing.T, n *node) (path string, args []string)
	}{
		{"no device", func(t *testing.T, n *node) (string, []string) {
			err := n.host.Inside(func() error { return unix.Mount("/dev/null", "/dev/net/tun", "", unix.MS_BIND, "") })
			if err != nil {
				t.Fatal(err)
			}
			return n.w.bin, nil
		}},
		{"no permission", func(t *testing.T, n *node) (string, []string) {
			const nobody = 65534
			path, err := exec.LookPath("setpriv")
			netlab.Need(t, err == nil, "an unprivileged user needs setpriv")
			for dir, mode := range map[string]os.FileMode{
				filepath.Dir(n.w.bin): 0o755, filepath.Dir(n.w.dir): 0o755, n.w.dir: 0o755,
			} {
				if err := os.Chmod(dir, mode); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Mkdir(n.state, 0o700), os.Chown(n.state, nobody, nobody)); err != nil {
				t.Fatal(err)
			}
			id := strconv.Itoa(nobody)
			return path, []string{"--reuid", id, "--regid", id, "--clear-groups", n.w.bin}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			n := w.lan("alice")[0]
			path, args := c.wrap(t, n)
			args = append(args, "up", "--state", n.state, "--hostname", n.name)
			e := n.finish(path, append(args[:len(args):len(args)], "--tun", "meshnet0")...)
			e.check(t, 1, "TUN")
			if !strings.Contains(e.stderr, "\nhint: ") {
				t.Errorf("no hint:\n%s", e.stderr)
			}
			var err error
			if n.proc, err = n.host.Start(netlab.Proc{Path: path, Args: args}); err != nil {
				t.Fatal(err)
			}
			n.awaitReady(20 * time.Second)
			if !strings.Contains(n.proc.Output(), "(userspace)") || !strings.Contains(n.proc.Output(), "no network interface could be made") {
				t.Errorf("it does not say that it went without a TUN:\n%s", n.proc.Output())
			}
			if got := n.status(); got.Self.Mode != "userspace" || !hasHealth(got, "no_tun") {
				t.Errorf("mode %s, health %v", got.Self.Mode, got.Health)
			}
		})
	}
}

func hasHealth(s *meshnet.Status, code string) bool {
	for _, h := range s.Health {
		if h.Code == code {
			return true
		}
	}
	return false
}

// rss is the resident memory of a node, in bytes.
func (n *node) rss() int64 {
	n.w.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.proc.Pid()))
	if err != nil {
		n.w.t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(data), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return kib << 10
}

// junk makes one datagram that means nothing.
type junk func(r *rand.Rand) []byte

func randomBytes(r *rand.Rand, size int) []byte {
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:size]
}

// sized is random bytes of a size behind a fixed beginning.
func sized(size int, head ...byte) junk {
	return func(r *rand.Rand) []byte {
		b := randomBytes(r, size)
		copy(b, head)
		return b
	}
}

// beginning is random bytes of any size behind a fixed beginning.
func beginning(head ...byte) junk {
	return func(r *rand.Rand) []byte { return append(bytes.Clone(head), randomBytes(r, r.IntN(1400))...) }
}

var junks = []junk{
	beginning(), beginning(0), beginning(1), beginning(1, 0, 0, 0), sized(148, 1, 0, 0, 0), // WireGuard initiations
	sized(92, 2, 0, 0, 0), sized(96, 4, 0, 0, 0), beginning(4, 0, 0, 0),
	beginning(join.TypeIntro), beginning(join.TypeIntro, join.Version), sized(join.IntroSize, join.TypeIntro, join.Version),
	beginning(join.TypeCookie), sized(join.CookieSize, join.TypeCookie, join.Version),
	beginning(join.TypeWelcome, join.Version), beginning(0xC4), sized(1200, 0xC4), beginning(0xC5), beginning(0xFF),
	sized(20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42), sized(32, 1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42), // STUN
}

const (
	floodCount = 200_000
	floodFor   = 8 * time.Second
	floodGuard = 10 * time.Second
)

// flood sends junk to an address, spread over floodFor.
func flood(t *testing.T, pc net.PacketConn, to netip.AddrPort, make []func(r *rand.Rand) []byte) time.Duration {
	t.Helper()
	const bursts = 400
	r := rand.New(rand.NewPCG(1, 2))
	target := net.UDPAddrFromAddrPort(to)
	tick := time.NewTicker(floodFor / bursts)
	defer tick.Stop()
	start := time.Now()
	for i := range floodCount {
		if i%(floodCount/bursts) == 0 {
			<-tick.C
		}
		if _, err := pc.WriteTo(make[i%len(make)](r), target); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	return time.Since(start)
}

// intros makes Intros of a real invite, each of another key: what somebody with a token can do to a member.
func intros(t *testing.T, token ledger.Token, count int) []func(*rand.Rand) []byte {
	t.Helper()
	var all []func(*rand.Rand) []byte
	for range count {
		id := identity.New()
		admit := ledger.NewAdmit(id, token.Network, token.InviteID(), token.Seed)
		asker := join.NewAsker(join.AskerConfig{
			Self: id, Network: token.Network, ID: ledger.Short(token.InviteID()), PSK: token.PSK,
			Content: join.Content{Admit: admit.Raw, Invite: token.Invite.Marshal()},
		})
		if err := asker.Ask(time.Now(), datagram.Place{Addr: netip.MustParseAddrPort("192.168.7.2:41820")}); err != nil {
			t.Fatal(err)
		}
		sent, _ := asker.Due(time.Now())
		if len(sent) == 0 || len(sent[0].Data) != join.IntroSize {
			t.Fatal("no Intro")
		}
		pkt := sent[0].Data
		all = append(all, func(r *rand.Rand) []byte {
			b := bytes.Clone(pkt)
			copy(b[18:34], randomBytes(r, 16)) // a cookie of its own invention
			return b
		})
	}
	return all
}

// TestFlood sends much that means nothing to a member: its connections go on, its memory stays, and it lets others in.
func TestFlood(t *testing.T) {
	w := newWorld(t)
	nodes := w.lan("alice", "bob", "mallory")
	a, b, m := nodes[0], nodes[1], nodes[2]
	a.up()
	tokenFile := a.invite("--uses", "0")
	b.up("--join", "@"+tokenFile)
	a.ping(b.ip4, 5*time.Second)
	token, err := ledger.ParseToken(w.read(tokenFile))
	if err != nil {
		t.Fatal(err)
	}
	before := a.rss()
	var garbage []func(*rand.Rand) []byte
	for _, j := range junks {
		garbage = append(garbage, j)
	}
	for _, f := range []struct {
		name string
		make []func(*rand.Rand) []byte
	}{
		{"garbage", garbage},
		{"intros that nobody can open", []func(*rand.Rand) []byte{sized(join.IntroSize, join.TypeIntro, join.Version)}},
		{"intros of a token", intros(t, token, 100)},
	} {
		t.Run(f.name, func(t *testing.T) {
			pc, err := m.host.ListenPacket("udp4", "0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			done := make(chan time.Duration, 1)
			go func() { done <- flood(t, pc, netip.MustParseAddrPort("192.168.7.1:41820"), f.make) }()
			var pings, lost int
			var slowest time.Duration
			peak := before
			for took := time.Duration(0); took == 0; {
				rtt, err := a.tryPing(b.ip4, 2*time.Second)
				pings++
				if err != nil {
					lost++
				}
				slowest, peak = max(slowest, rtt), max(peak, a.rss())
				select {
				case took = <-done:
					if took > floodGuard {
						t.Errorf("the flood took %v", took)
					}
				case <-time.After(20 * time.Millisecond): // the pace of the pings
				}
			}
			t.Logf("%d pings, slowest %v; %d MiB before, at most %d MiB", pings, slowest, before>>20, peak>>20)
			if lost > 0 || pings < 20 {
				t.Errorf("%d of %d pings unanswered", lost, pings)
			}
			if peak-before >= 64<<20 {
				t.Errorf("memory grew from %d to %d bytes", before, peak)
			}
		})
	}
	if a.proc.Pid() == 0 || a.status().State != "running" {
		t.Fatal("the node does not run")
	}
	m.up("--join", "@"+tokenFile)
	m.ping(a.ip4, 10*time.Second)
	m.ping(b.ip4, 10*time.Second)
	b.ping(a.ip6, 5*time.Second)
}

// controlAddr is where a node listens for control streams.
func controlAddr(t *testing.T, s *meshnet.Status, id string) netip.AddrPort {
	t.Helper()
	raw, err := hex.DecodeString(*s.Network.ID)
	if err != nil || len(raw) != len(identity.NetworkID{}) {
		t.Fatalf("network id %q: %v", *s.Network.ID, err)
	}
	peer, err := identity.ParsePeerID(id)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netmap.ControlAddr(identity.NetworkID(raw), peer), control.Port)
}

// TestControlIsClosedToPrograms: only nodes speak with nodes. Programs of either machine reach neither control address.
func TestControlIsClosedToPrograms(t *testing.T) {
	w := newWorld(t)
	a, b := w.pair(nil, []string{"--userspace"})
	b.pingNode(a, 5*time.Second)
	s := a.status()
	own, far := controlAddr(t, s, s.Self.ID), controlAddr(t, s, s.Peers[0].ID)
	for _, target := range []netip.AddrPort{own, far, netip.AddrPortFrom(a.ip6, control.Port), netip.AddrPortFrom(b.ip6, control.Port)} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if c, err := a.host.Dial(ctx, "tcp", target.String()); err == nil {
			c.Close()
			t.Errorf("a program of the TUN host is connected to %s", target)
		}
		cancel()
		if c := socksTry(t, b, target); c != nil {
			c.Close()
			t.Errorf("a program is connected to %s through the proxy", target)
		}
	}
	pushPastRoutes(t, a, own, far, netip.AddrPortFrom(b.ip6, 7))
	a.pingNode(b, 5*time.Second)
	if got := a.status().Peers[0].State; got != meshnet.PeerConnected {
		t.Errorf("peer %s after it", got)
	}
}

// socksTry connects through a node's proxy, or returns nil when the proxy refuses.
func socksTry(t *testing.T, n *node, target netip.AddrPort) net.Conn {
	t.Helper()
	c, err := n.host.Dial(t.Context(), "tcp", *n.status().Self.Listen.SOCKS5)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	ip := target.Addr().As16()
	request := append([]byte{5, 1, 0, 5, 1, 0, 4}, ip[:]...)
	if _, err := c.Write(append(request, byte(target.Port()>>8), byte(target.Port()))); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, 4)
	if _, err := io.ReadFull(c, reply); err != nil {
		t.Fatal(err)
	}
	if reply[3] == 0 {
		return c
	}
	c.Close()
	return nil
}

// pushPastRoutes writes packets to the TUN itself, as somebody with root and routes of his own could: to control
// addresses and from them. None is answered, and none leaves for the peer. open is a port of the peer that refuses:
// packets to it do pass.
func pushPastRoutes(t *testing.T, n *node, own, far, open netip.AddrPort) {
	t.Helper()
	const (
		port  = 50123
		count = 200 // of each kind, fewer than a TUN's queue holds
		size  = 60  // of each; sealed and framed less than 2.5 times that
	)
	capture := n.host.Capture("meshnet0")
	sent := func() uint64 { return n.status().Peers[0].TxBytes }
	before := sent()
	me, asControl := netip.AddrPortFrom(n.ip6, port), netip.AddrPortFrom(own.Addr(), port)
	for _, p := range [][2]netip.AddrPort{{me, own}, {me, far}, {asControl, own}, {asControl, far}, {me, open}} {
		packets := slices.Repeat([][]byte{syn(p[0], p[1])}, count)
		if err := n.host.Do(func() error { return inject("meshnet0", packets) }); err != nil {
			t.Fatal(err)
		}
		if p[1] == own || p[1] == far {
			n.must("status") // the queue is empty by then
		}
	}
	answered := func(from netip.AddrPort) bool {
		for _, f := range capture.Packets() { // answers come in, what programs send goes out
			if !f.Outgoing && len(f.Data) >= size && bytes.Equal(f.Data[8:24], from.Addr().AsSlice()) {
				return true
			}
		}
		return false
	}
	until(t, 5*time.Second, "a closed port answers", func() bool { return answered(open) })
	until(t, 5*time.Second, "what may pass has passed", func() bool { return sent()-before >= count*size })
	if passed := sent() - before; passed > count*size*5/2 {
		t.Errorf("%d bytes went to the peer: packets of control addresses among them", passed)
	}
	for _, from := range []netip.AddrPort{own, far} {
		if answered(from) {
			t.Errorf("%s answers a program", from)
		}
	}
}

// inject sends IPv6 packets by an interface whatever the routes say.
func inject(iface string, packets [][]byte) error {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const ipv6 = unix.ETH_P_IPV6>>8 | unix.ETH_P_IPV6&0xff<<8 // in network order
	for _, pkt := range packets {
		if err := unix.Sendto(fd, pkt, 0, &unix.SockaddrLinklayer{Protocol: ipv6, Ifindex: ifi.Index}); err != nil {
			return err
		}
	}
	return nil
}

// syn is an IPv6 packet with a TCP segment that opens a connection (RFC 9293 §3.1).
func syn(from, to netip.AddrPort) []byte {
	src, dst := from.Addr().As16(), to.Addr().As16()
	tcp := []byte{
		byte(from.Port() >> 8), byte(from.Port()), byte(to.Port() >> 8), byte(to.Port()),
		1, 2, 3, 4, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0,
	}
	pseudo := append(append(append([]byte{}, src[:]...), dst[:]...), 0, 0, 0, byte(len(tcp)), 0, 0, 0, unix.IPPROTO_TCP)
	sum := uint32(0)
	for i, b := range append(pseudo, tcp...) {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	tcp[16], tcp[17] = byte(sum>>8), byte(sum)
	head := append([]byte{0x60, 0, 0, 0, 0, byte(len(tcp)), unix.IPPROTO_TCP, 64}, src[:]...)
	return append(append(head, dst[:]...), tcp...)
}

// TestInboundReachesProgramsOnly: members reach what listens on a userspace node's 127.0.0.1, but meshnet's own ports.
func TestInboundReachesProgramsOnly(t *testing.T) {
	w := newWorld(t)
	a, b := w.pair(nil, []string{"--userspace"})
	b.pingNode(a, 5*time.Second)
	listener, err := b.host.Listen("tcp", "127.0.0.1:6001")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dial := func(port uint16) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		return a.host.Dial(ctx, "tcp", netip.AddrPortFrom(b.ip4, port).String())
	}
	reach := func() {
		t.Helper()
		c, err := dial(6001)
		if err != nil {
			t.Fatal(err)
		}
		small(t, listener, c)
	}
	reach()
	self := b.status().Self
	for _, addr := range []string{*self.Listen.SOCKS5, *self.Listen.HTTPProxy} {
		own := netip.MustParseAddrPort(addr)
		if c, err := b.host.Dial(t.Context(), "tcp", addr); err != nil {
			t.Errorf("the host itself does not reach its proxy: %v", err)
		} else {
			c.Close()
		}
		if c, err := dial(own.Port()); err == nil {
			c.Close()
			t.Errorf("a member reaches meshnet's own port %d", own.Port())
		} else if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("port %d: %v, want refused", own.Port(), err)
		}
	}
	reach()
	if err := b.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	b.up("--userspace", "--forward-inbound=false")
	b.pingNode(a, 5*time.Second)
	if c, err := dial(6001); err == nil {
		c.Close()
		t.Error("a member reaches a port although forwarding is off")
	}
}
