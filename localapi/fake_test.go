package localapi

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/prom"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode remembers what was asked of it.
type fakeNode struct {
	events chan meshnet.Event

	mu    sync.Mutex
	asked []string // guarded by mu
	err   error    // guarded by mu: what changes fail with
}

func (f *fakeNode) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeNode) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return ""
	}
	return f.asked[len(f.asked)-1]
}

func (f *fakeNode) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeNode) Status() *meshnet.Status {
	return &meshnet.Status{State: "running", Self: meshnet.SelfStatus{ID: "self"}}
}

func (f *fakeNode) Members() []meshnet.MemberStatus {
	return []meshnet.MemberStatus{{ID: "a"}, {ID: "b"}}
}
func (f *fakeNode) Invites() []meshnet.InviteStatus { return nil }
func (f *fakeNode) KeyPublic() (string, []byte)     { return "self", []byte("PEM") }
func (f *fakeNode) Events(ctx context.Context) iter.Seq[meshnet.Event] {
	return func(yield func(meshnet.Event) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-f.events:
				if !ok || !yield(e) {
					return
				}
			}
		}
	}
}

func (f *fakeNode) WhoIs(addr netip.Addr) (meshnet.WhoIs, error) {
	return meshnet.WhoIs{ID: "w", IPs: []netip.Addr{addr}}, f.note("whois %s", addr)
}

func (f *fakeNode) Lookup(peer string) (meshnet.WhoIs, error) {
	return meshnet.WhoIs{ID: "l"}, f.note("lookup %q", peer)
}

func (f *fakeNode) Ping(ctx context.Context, peer string, seq, size int, timeout time.Duration) meshnet.PingResult {
	_ = f.note("ping %s %d %d %s", peer, seq, size, timeout)
	if peer == "silent" {
		<-ctx.Done()
	}
	return meshnet.PingResult{Seq: seq, OK: peer != "silent"}
}

func (f *fakeNode) Invite(_ context.Context, o meshnet.InviteOptions) (meshnet.Invitation, error) {
	return meshnet.Invitation{ID: "i", Token: "t"}, f.note("invite %s %d %v", o.Expires, o.Uses, o.Tags)
}

func (f *fakeNode) RevokeInvite(_ context.Context, id string) error {
	return f.note("revoke invite %s", id)
}

func (f *fakeNode) RevokeMember(_ context.Context, peer string) error {
	return f.note("revoke member %s", peer)
}

func (f *fakeNode) Approve(_ context.Context, peer, what string, allow bool) error {
	return f.note("approve %s %s %v", peer, what, allow)
}

func (f *fakeNode) Netcheck(context.Context) (*meshnet.Netcheck, error) {
	return &meshnet.Netcheck{UDP: true, Took: 12}, f.note("netcheck")
}

func (f *fakeNode) Why(peer string) (*meshnet.Why, error) {
	return &meshnet.Why{Rule: "because"}, f.note("why %q", peer)
}

func (f *fakeNode) Metrics() []prom.Family {
	return []prom.Family{{Name: "meshnet_up", Type: prom.Gauge, Samples: []prom.Sample{prom.Of(1)}}}
}

// served is a server that runs until the test ends or stop is called.
type served struct {
	socket string
	stop   func()
	done   <-chan struct{}
}

func serve(t *testing.T, n node, c Config) served {
	t.Helper()
	if len(c.Sockets) == 0 {
		c.Sockets = []string{filepath.Join(shortDir(t), SocketFile)}
	}
	ctx, cancel := context.WithCancel(context.Background())
	if c.Stop == nil {
		c.Stop = cancel
	}
	s := NewServer(n, c)
	if err := s.Listen(ctx); err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return served{c.Sockets[0], cancel, done}
}

func client(t *testing.T, path string) *Client {
	t.Helper()
	c := NewClient(path)
	t.Cleanup(c.Close)
	return c
}

// shortDir is a folder whose path leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
