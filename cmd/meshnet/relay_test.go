package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/relay"
)

// relayRun is a `relay` that runs until it is ended.
type relayRun struct {
	t      *testing.T
	rig    *rig
	url    relay.URL
	stdout chan string // what came after the URL
	stderr *lockedWriter
	notes  *bytes.Buffer // what stderr got; read it after end
	code   chan int
}

// relay starts a relay server and waits for its URL.
func (r *rig) relay(args ...string) *relayRun {
	r.t.Helper()
	out, in := io.Pipe()
	run := &relayRun{t: r.t, rig: r, stdout: make(chan string, 1), notes: new(bytes.Buffer), code: make(chan int, 1)}
	run.stderr = &lockedWriter{w: run.notes}
	go func() {
		code := mainRun(append([]string{"relay"}, args...), in, run.stderr, r.host)
		in.Close()
		run.code <- code
	}()
	reader := bufio.NewReader(out)
	line, err := reader.ReadString('\n')
	go func() {
		rest, _ := io.ReadAll(reader)
		run.stdout <- string(rest)
	}()
	if err != nil {
		r.t.Fatalf("no URL: %v, code %d, %s", err, <-run.code, run.notes)
	}
	if run.url, err = relay.ParseURL(strings.TrimSuffix(line, "\n")); err != nil {
		r.t.Fatal(err)
	}
	return run
}

func mainRun(args []string, stdout, stderr io.Writer, h host) int {
	return run(args, strings.NewReader(""), stdout, stderr, h)
}

// end ends it as a service manager does.
func (r *relayRun) end() {
	r.t.Helper()
	r.rig.signals <- syscall.SIGTERM
	if code, rest := <-r.code, <-r.stdout; code != exitDone || rest != "" {
		r.t.Errorf("exit code %d, more on stdout: %q, stderr %s", code, rest, r.notes)
	}
}

// member is a client of a relay server.
type member struct {
	*relay.Client
	id       *identity.Identity
	received atomic.Int64 // bytes
	done     chan error
}

func (r *relayRun) dial(pass []byte) (*member, error) {
	r.t.Helper()
	id := identity.New()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	stream, err := relay.Dial(ctx, r.url, relay.DialConfig{})
	if err != nil {
		return nil, err
	}
	m := &member{id: id, done: make(chan error, 1)}
	m.Client, err = relay.NewClient(ctx, stream, relay.ClientConfig{
		Identity: id,
		Pass:     func() []byte { return pass },
		Deliver: func(batch []datagram.Relayed, done func()) {
			for i := range batch {
				m.received.Add(int64(len(batch[i].Data)))
			}
			done()
		},
	})
	if err != nil {
		return nil, err
	}
	go func() { m.done <- m.Run(context.WithoutCancel(ctx)) }()
	return m, nil
}

// scrape reads one value of the metrics at an address.
func scrape(t *testing.T, addr, metric string) (value uint64) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, metric+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("%s is not in\n%s", metric, text)
	return 0
}

// freeAddr is an address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestRelay(t *testing.T) {
	r := newRig(t)
	metrics := freeAddr(t)
	run := r.relay("--addr", "127.0.0.1:0", "--metrics", metrics, "--idle", "5s", "--max-frame", "4096")
	a, err := run.dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := run.dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !run.url.Pinned() || a.MaxFrame() != 4096 {
		t.Errorf("URL %s, largest frame %d", run.url, a.MaxFrame())
	}
	const total = 1 << 20
	packet := make([]byte, 1024)
	for sent := 0; sent < total; {
		if err := a.Send(b.id.ID(), [][]byte{packet}, false); err != nil {
			t.Fatal(err)
		}
		sent += len(packet)
		poll(t, "the packets arrive", func() bool { return int(b.received.Load()) > sent-256<<10 })
	}
	poll(t, "all arrives", func() bool { return b.received.Load() == total })
	for metric, want := range map[string]uint64{
		"meshnet_relay_sessions_opened_total": 2, "meshnet_relay_sessions_closed_total": 0, "meshnet_relay_sessions": 2,
		"meshnet_relay_forwarded_packets_total": total / 1024, "meshnet_relay_forwarded_bytes_total": total,
		`meshnet_relay_dropped_packets_total{reason="queue_full"}`: 0,
	} {
		if got := scrape(t, metrics, metric); got != want {
			t.Errorf("%s is %d, want %d", metric, got, want)
		}
	}
	run.end()
	for _, m := range []*member{a, b} {
		if err := <-m.done; !errors.Is(err, relay.ErrRestarting) {
			t.Errorf("a client left with %v", err)
		}
	}
	notes := run.notes.String()
	for _, want := range []string{
		"relay server on 127.0.0.1:", "open to everybody", "metrics: http://" + metrics + "/metrics\n",
		"outsiders do not reach", "use it with: meshnet up --relay-server '" + run.url.String() + "'\n",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not in\n%s", want, notes)
		}
	}
}

// The URL is what nodes were configured with: its pin outlives restarts.
func TestRelayKeepsItsCertificate(t *testing.T) {
	r := newRig(t)
	first := r.relay("--addr", "127.0.0.1:0", "--public", "relay.example.org:9")
	first.end()
	if first.url.Host != "relay.example.org" || first.url.Port != 9 || strings.Contains(first.notes.String(), "outsiders") {
		t.Errorf("URL %s, notes %s", first.url, first.notes)
	}
	info, err := os.Stat(filepath.Join(r.state(), relayCert))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("kept as %v, %v", info, err)
	}
	second := r.relay("--addr", "127.0.0.1:0", "--public", "relay.example.org:9")
	second.end()
	if first.url != second.url {
		t.Errorf("after a restart the URL is %s, before it was %s", second.url, first.url)
	}
}

// Without a folder it runs all the same, and says what that means; a folder that was named has to be there.
func TestRelayWithoutState(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(r.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.env["HOME"] = file
	run := r.relay("--addr", "127.0.0.1:0")
	run.end()
	if !strings.Contains(run.notes.String(), "cannot be kept, so the next start has another") ||
		!strings.Contains(run.notes.String(), "hint: name a folder for it with --state\n") {
		t.Errorf("notes %s", run.notes)
	}
	r.want(r.run("relay", "--addr", "127.0.0.1:0", "--state", filepath.Join(file, "below")), exitFailed)
	delete(r.env, "HOME")
	run = r.relay("--addr", "127.0.0.1:0")
	run.end()
	if err := os.WriteFile(filepath.Join(r.dir, relayCert), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	res := r.run("relay", "--addr", "127.0.0.1:0", "--state", r.dir)
	r.want(res, exitFailed)
	if !strings.Contains(res.stderr, relayCert) {
		t.Errorf("stderr %q", res.stderr)
	}
}

func TestRelayAddrTaken(t *testing.T) {
	if ln, err := net.Listen("tcp", defaultRelayAddr); err == nil { // else somebody else has it
		defer ln.Close()
	}
	r := newRig(t)
	run := r.relay()
	run.end()
	if run.url.Port == 9000 || !strings.Contains(run.notes.String(), ":9000 is taken: a free port is used instead\n") {
		t.Errorf("URL %s, notes %s", run.url, run.notes)
	}
	r.want(r.run("relay", "--addr", defaultRelayAddr), exitFailed)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	res := r.run("relay", "--addr", "127.0.0.1:0", "--metrics", ln.Addr().String())
	r.want(res, exitFailed)
	if res.stdout != "" || !strings.HasPrefix(res.stderr[strings.Index(res.stderr, "meshnet: "):], "meshnet: start: serve metrics: listen tcp ") {
		t.Errorf("got %+v", res)
	}
}

func TestRelayAdmission(t *testing.T) {
	seed := identity.Secret{1, 2, 3}
	key := identity.FromSeed(seed).ID()
	r := newRig(t)
	run := r.relay("--addr", "127.0.0.1:0", "--allow-network", hex.EncodeToString(key[:]))
	if _, err := run.dial(nil); !errors.Is(err, relay.ErrPass) {
		t.Errorf("without a pass: %v", err)
	}
	m, err := run.dial(relay.NewPass(seed, identity.PeerID{}, time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	run.end()
	<-m.done
	if !strings.Contains(run.notes.String(), "open to the networks of 1 relay keys") {
		t.Errorf("notes %s", run.notes)
	}
}

func TestRelayUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.pem")
	if err := os.WriteFile(file, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"extra":                         "unexpected argument",
		"--addr 9000":                   "--addr: ",
		"--public a:0":                  "--public: ",
		"--public :1":                   "--public: ",
		"--idle 2s":                     "--idle: 2s is less than 3s",
		"--max-frame 2047":              "--max-frame: 2047 is not within 2048 to 8388608",
		"--max-frame 8388609":           "--max-frame: ",
		"--rate 5":                      `invalid argument "5" for "--rate"`,
		"--tls-cert /nonexistent":       "--tls-cert: read /nonexistent: no such file",
		"--tls-cert " + file:            "--tls-cert: ",
		"--tls-key " + file:             "--tls-cert: the certificate to this key is missing",
		"--acme=":                       "--acme: ",
		"--acme localhost":              "--acme: ",
		"--acme 192.0.2.1":              "--acme: ",
		"--acme a.example:443":          "--acme: ",
		"--acme https://a.example":      "--acme: ",
		"--acme a.example --tls-cert x": "--acme: not together with",
		"--acme-directory https://a":    "--acme-directory: only together with --acme",
		"--acme a.example --acme-directory http://a":  "--acme-directory: ",
		"--acme-ca " + file:                           "--acme-ca: only together with --acme",
		"--acme a.example --acme-ca " + file:          "--acme-ca: " + file + " holds no certificate",
		"--allow-network abc":                         "--allow-network: ",
		"--allow-network " + strings.Repeat("zz", 32): "--allow-network: ",
		"--metrics 9100":                              "--metrics: ",
	} {
		r := newRig(t)
		res := r.run(append([]string{"relay"}, strings.Fields(args)...)...)
		r.want(res, exitUsage)
		if !strings.HasPrefix(res.stderr, "meshnet: relay: "+want) || res.stdout != "" {
			t.Errorf("%s: %+v", args, res)
		}
	}
}
