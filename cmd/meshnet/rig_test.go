package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

// childMode makes the test binary stand in for a detached node.
const childMode = "MESHNET_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(runChild(mode))
	}
	goleak.VerifyTestMain(m)
}

// fakeNode is a node with two peers, one of which answers.
type fakeNode struct {
	started time.Time
	done    chan struct{}

	mu      sync.Mutex
	events  []chan meshnet.Event  // guarded by mu; nil once closed
	closed  bool                  // guarded by mu
	ended   error                 // guarded by mu
	err     error                 // guarded by mu: what changes fail with
	invited meshnet.InviteOptions // guarded by mu
	revoked string                // guarded by mu
	pings   []meshnet.PingResult  // guarded by mu: the answers, then silence
	relayed bool                  // guarded by mu: a node behind hard NATs, which nobody finds
}

func newFake() *fakeNode { return &fakeNode{started: time.Now(), done: make(chan struct{})} }

func ptr[T any](v T) *T { return &v }

func (f *fakeNode) Status() *meshnet.Status {
	handshake := time.Now().Add(-12 * time.Second)
	s := &meshnet.Status{
		Version: "test", State: "running",
		Network: meshnet.NetworkStatus{Name: ptr("amber-falcon"), Members: 2},
		Self: meshnet.SelfStatus{
			ID: "SELF", Name: ptr("web"), Mode: "userspace", Roles: []string{"admin"}, Port: 41820, Started: f.started,
			IPs:    []netip.Addr{netip.MustParseAddr("100.88.3.4"), netip.MustParseAddr("fd00::4")},
			Listen: meshnet.ListenStatus{SOCKS5: ptr("127.0.0.1:1080")},
		},
		Peers: []meshnet.PeerStatus{{
			ID: "ALICE", Name: ptr("alice"), IPs: []netip.Addr{netip.MustParseAddr("100.88.9.9")}, State: meshnet.PeerConnected,
			Path: meshnet.PathStatus{Kind: "direct", Addr: ptr("192.0.2.1:41820")}, PQ: "floor",
			RTT: meshnet.RTTStatus{LastMs: ptr(1.25)}, RxBytes: 2048, TxBytes: 10, LastHandshake: &handshake,
		}},
		Health: []meshnet.Health{{Code: "no-ipv6", Severity: "warning", Text: "no IPv6", Hint: "ask for it"}},
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.relayed {
		relayStatus(s)
	}
	return s
}

func (f *fakeNode) Members() []meshnet.MemberStatus {
	return []meshnet.MemberStatus{{ID: "SELF", Name: ptr("web"), Self: true}}
}

func (f *fakeNode) Invites() []meshnet.InviteStatus {
	return []meshnet.InviteStatus{{ID: "inv1", Uses: 1, State: "open"}}
}
func (f *fakeNode) KeyPublic() (string, []byte) { return "SELF", []byte("-----PEM-----\n") }

func (f *fakeNode) WhoIs(addr netip.Addr) (meshnet.WhoIs, error) {
	if addr != netip.MustParseAddr("100.88.9.9") {
		return meshnet.WhoIs{}, meshnet.ErrUnknownPeer
	}
	return f.Lookup("alice")
}

func (f *fakeNode) Lookup(peer string) (meshnet.WhoIs, error) {
	switch peer {
	case "":
		return meshnet.WhoIs{ID: "SELF", Name: ptr("web"), IPs: f.Status().Self.IPs, Self: true}, nil
	case "alice", "ALICE":
		return meshnet.WhoIs{ID: "ALICE", Name: ptr("alice"), IPs: f.Status().Peers[0].IPs}, nil
	}
	return meshnet.WhoIs{}, meshnet.ErrUnknownPeer
}

func (f *fakeNode) Ping(_ context.Context, _ string, seq, _ int, _ time.Duration) meshnet.PingResult {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pings) == 0 {
		return meshnet.PingResult{Seq: seq, Error: ptr("timeout")}
	}
	pong := f.pings[0]
	f.pings, pong.Seq = f.pings[1:], seq
	return pong
}

func (f *fakeNode) Invite(_ context.Context, o meshnet.InviteOptions) (meshnet.Invitation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.invited = o
	return meshnet.Invitation{ID: "inv1", Token: "mesh1token"}, f.err
}

func (f *fakeNode) RevokeInvite(_ context.Context, id string) error { return f.revoke("invite " + id) }

func (f *fakeNode) RevokeMember(_ context.Context, p string) error { return f.revoke("member " + p) }

func (f *fakeNode) Approve(_ context.Context, p, what string, allow bool) error {
	return f.revoke(fmt.Sprintf("approve %s %s %v", p, what, allow))
}

func (f *fakeNode) revoke(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked = what
	return f.err
}

func (f *fakeNode) Events(ctx context.Context) iter.Seq[meshnet.Event] {
	ch := make(chan meshnet.Event, 8)
	ch <- meshnet.Event{Type: meshnet.EventPeerConnected, Peer: ptr("ALICE"), Name: ptr("alice"), Data: map[string]any{"n": 1}}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		close(ch)
	} else {
		f.events = append(f.events, ch)
	}
	return func(yield func(meshnet.Event) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-ch:
				if !ok || !yield(e) {
					return
				}
			}
		}
	}
}

func (f *fakeNode) Exposed() string       { return "members reach 127.0.0.1 of this machine" }
func (f *fakeNode) Done() <-chan struct{} { return f.done }

func (f *fakeNode) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended
}

// end is the node's end by itself.
func (f *fakeNode) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.closed, f.ended = true, err
	for _, ch := range f.events {
		close(ch)
	}
	close(f.done)
}

func (f *fakeNode) Close() error {
	f.end(nil)
	return nil
}

func (f *fakeNode) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// rig runs the program on a machine of its own.
type rig struct {
	t       *testing.T
	dir     string // empty; the state folder is below it
	env     map[string]string
	host    host
	signals chan os.Signal
	stdin   string

	mu   sync.Mutex
	node *fakeNode      // guarded by mu: what `up` starts
	cfg  meshnet.Config // guarded by mu: what it was started with
	fail error          // guarded by mu: what the start fails with
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "mn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, signals: make(chan os.Signal, 2), node: newFake()}
	r.env = map[string]string{"HOME": dir}
	r.host = host{
		os:      "linux",
		getenv:  func(name string) string { return r.env[name] },
		system:  filepath.Join(dir, "run", localapi.SocketFile),
		signals: func() (<-chan os.Signal, func()) { return r.signals, func() {} },
		outlive: func() func() { return func() {} },
		abort:   func(code int) { t.Errorf("aborted with %d", code) },
		executable: func() (string, error) {
			return "", errors.New("not in this test")
		},
		start: func(_ context.Context, cfg meshnet.Config) (*started, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.cfg = cfg
			if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
				return nil, err
			}
			if r.fail != nil {
				return nil, r.fail
			}
			return &started{r.node, func(c localapi.Config) *localapi.Server { return localapi.NewServer(r.node, c) }}, nil
		},
	}
	return r
}

func (r *rig) state() string { return filepath.Join(r.dir, ".local", "state", "meshnet") }

// result is what a run left.
type result struct {
	code           int
	stdout, stderr string
}

func (r *rig) run(args ...string) result {
	var stdout, stderr bytes.Buffer
	code := run(args, strings.NewReader(r.stdin), &stdout, &stderr, r.host)
	return result{code, stdout.String(), stderr.String()}
}

// interrupted runs the program and interrupts it once it has answered something.
func (r *rig) interrupted(args ...string) result {
	var stdout, stderr bytes.Buffer
	var once sync.Once
	out := writerFunc(func(p []byte) (int, error) {
		defer once.Do(func() { r.signals <- os.Interrupt })
		return stdout.Write(p)
	})
	code := run(args, strings.NewReader(r.stdin), out, &stderr, r.host)
	return result{code, stdout.String(), stderr.String()}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// serve serves the rig's node in its state folder.
func (r *rig) serve() {
	r.t.Helper()
	if err := os.MkdirAll(r.state(), 0o700); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := localapi.NewServer(r.node, localapi.Config{
		Sockets: []string{filepath.Join(r.state(), localapi.SocketFile)},
		Stop:    cancel,
	})
	if err := s.Listen(ctx); err != nil {
		cancel()
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// want checks the exit code, and that errors are told as the contract has it.
func (r *rig) want(res result, code int) {
	r.t.Helper()
	if res.code != code {
		r.t.Errorf("exit code %d, want %d; stderr %q", res.code, code, res.stderr)
	}
	if code == exitDone {
		return
	}
	lines := strings.Split(strings.TrimSuffix(res.stderr, "\n"), "\n")
	first := 0
	for first < len(lines)-1 && !strings.HasPrefix(lines[first], "meshnet: ") {
		first++
	}
	rest := lines[first:]
	if !strings.HasPrefix(rest[0], "meshnet: ") || strings.Count(rest[0], ": ") < 2 || len(rest) > 2 ||
		len(rest) == 2 && !strings.HasPrefix(rest[1], "hint: ") {
		r.t.Errorf("an error is told as %q", res.stderr)
	}
}

// poll waits for a condition.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
