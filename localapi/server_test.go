package localapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
)

func TestEveryCall(t *testing.T) {
	f := &fakeNode{}
	c := client(t, serve(t, f, Config{}).socket)
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		do   func() (any, error)
		want string // what the node was asked
		got  string // what came back
	}{
		{"status", func() (any, error) { s, err := c.Status(ctx); return s.Self.ID, err }, "", "self"},
		{"members", func() (any, error) { m, err := c.Members(ctx); return len(m), err }, "", "2"},
		{"invites", func() (any, error) { i, err := c.Invites(ctx); return i, err }, "", "[]"},
		{"key", func() (any, error) { return c.Key(ctx) }, "", "{self PEM}"},
		{"whois", func() (any, error) { w, err := c.WhoIs(ctx, netip.MustParseAddr("fd00::1")); return w.IPs, err }, "whois fd00::1", "[fd00::1]"},
		{"lookup", func() (any, error) { w, err := c.Lookup(ctx, "a&b c"); return w.ID, err }, `lookup "a&b c"`, "l"},
		{"ping", func() (any, error) { p, err := c.Ping(ctx, "bob", 7, 56, time.Second); return p.Seq, err }, "ping bob 7 56 1s", "7"},
		{"invite", func() (any, error) {
			return c.Invite(ctx, meshnet.InviteOptions{Expires: -1, Uses: 3, Tags: []string{"x"}})
		}, "invite -1ns 3 [x]", "{i t}"},
		{"approve", func() (any, error) { return nil, c.Approve(ctx, "bob", "relay", true) }, "approve bob relay true", "<nil>"},
		{"withdraw", func() (any, error) { return nil, c.Approve(ctx, "bob", "relay", false) }, "approve bob relay false", "<nil>"},
		{"netcheck", func() (any, error) { n, err := c.Netcheck(ctx); return n.STUN, err }, "netcheck", "[]"},
		{"why", func() (any, error) { w, err := c.Why(ctx, "a&b c"); return w.Probes, err }, `why "a&b c"`, "[]"},
		{"metrics", func() (any, error) { return c.Metrics(ctx) }, "", "# TYPE meshnet_up gauge\nmeshnet_up 1\n"},
		{"revoke invite", func() (any, error) { return nil, c.RevokeInvite(ctx, "abc") }, "revoke invite abc", "<nil>"},
		{"revoke member", func() (any, error) { return nil, c.RevokeMember(ctx, "bob") }, "revoke member bob", "<nil>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.do()
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != tt.got {
				t.Errorf("got %v, want %v", got, tt.got)
			}
			if tt.want != "" && f.last() != tt.want {
				t.Errorf("the node was asked %q, want %q", f.last(), tt.want)
			}
		})
	}
}

// An error keeps what it is across the socket.
func TestErrorsCross(t *testing.T) {
	f := &fakeNode{}
	c := client(t, serve(t, f, Config{}).socket)
	for _, s := range sentinels {
		f.fail(fmt.Errorf("invite: %w", s.err))
		_, err := c.Invite(t.Context(), meshnet.InviteOptions{})
		if !errors.Is(err, s.err) || err.Error() != "invite: "+s.err.Error() {
			t.Errorf("%s came back as %v", s.code, err)
		}
	}
	f.fail(&meshnet.Hinted{Err: errors.New("odd"), Hint: "turn it round"})
	_, err := c.Lookup(t.Context(), "x")
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Text != "odd" || e.Hint != "turn it round" || e.Code != codeFailed || errors.Unwrap(e) != nil {
		t.Errorf("a hinted error came back as %#v", err)
	}
}

func TestBadRequests(t *testing.T) {
	f := &fakeNode{}
	s := serve(t, f, Config{})
	c := client(t, s.socket)
	for _, tt := range []struct {
		name, verb, target, body string
		want                     error
	}{
		{"unknown path", http.MethodGet, "/v1/nothing", "", ErrUnsupported},
		{"wrong verb", http.MethodDelete, "/v1/status", "", ErrUnsupported},
		{"no body", http.MethodPost, "/v1/invites", "", ErrRequest},
		{"unknown field", http.MethodPost, "/v1/invites", `{"admin":true}`, ErrRequest},
		{"more than one document", http.MethodPost, "/v1/invites", `{}{}`, ErrRequest},
		{"too long", http.MethodPost, "/v1/invites", `{"tags":["` + strings.Repeat("x", maxBody) + `"]}`, ErrRequest},
		{"approve with too much", http.MethodPost, "/v1/members/approve", `{"peer":"b","what":"relay","allow":true,"admin":true}`, ErrRequest},
		{"no address", http.MethodGet, "/v1/whois?addr=bob", "", ErrRequest},
		{"ping for ever", http.MethodPost, "/v1/ping", `{"peer":"b","seq":1,"size":1,"timeout":"10h"}`, ErrRequest},
		{"ping of nothing", http.MethodPost, "/v1/ping", `{"peer":"b","seq":1,"size":-1,"timeout":"1s"}`, ErrRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), tt.verb, "http://meshnet"+tt.target, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := c.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			text, _ := io.ReadAll(answer.Body)
			code, _ := describe(tt.want)
			if answer.StatusCode < 400 || !strings.Contains(string(text), `"code":"`+code.Code+`"`) {
				t.Errorf("got %s %s, want code %s", answer.Status, text, code.Code)
			}
		})
	}
	if got := f.last(); got != "" {
		t.Errorf("the node was asked %q", got)
	}
}

func TestEvents(t *testing.T) {
	f := &fakeNode{events: make(chan meshnet.Event, 3)}
	c := client(t, serve(t, f, Config{}).socket)
	for i := range 3 {
		f.events <- meshnet.Event{Type: meshnet.EventPeerAdded, Data: map[string]any{"n": uint64(1)<<60 + uint64(i)}}
	}
	close(f.events) // the node stops
	var got []string
	err := c.Events(t.Context(), func(e meshnet.Event) error {
		got = append(got, fmt.Sprint(e.Data["n"]))
		return nil
	})
	if want := "[1152921504606846976 1152921504606846977 1152921504606846978]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

// A server that ends does not leave clients that wait behind, whatever they wait for.
func TestServeEnds(t *testing.T) {
	f := &fakeNode{events: make(chan meshnet.Event)}
	s := serve(t, f, Config{})
	c := client(t, s.socket)
	ended := make(chan error, 2)
	streaming := make(chan struct{})
	go func() {
		ended <- c.Events(context.Background(), func(meshnet.Event) error { close(streaming); return nil })
	}()
	f.events <- meshnet.Event{}
	<-streaming
	go func() {
		_, err := c.Ping(context.Background(), "silent", 1, 0, time.Minute)
		ended <- err
	}()
	for f.last() == "" {
		time.Sleep(time.Millisecond)
	}
	s.stop()
	<-s.done
	<-ended
	<-ended
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoNode) {
		t.Errorf("after the end: %v", err)
	}
}

// Down comes back when the node is gone, not before.
func TestDown(t *testing.T) {
	asked := make(chan struct{})
	s := serve(t, &fakeNode{}, Config{Stop: func() { close(asked) }})
	c := client(t, s.socket)
	back := make(chan error, 1)
	go func() {
		_, err := c.Down(context.Background())
		back <- err
	}()
	<-asked
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("while it goes down: %v", err)
	}
	select {
	case err := <-back:
		t.Fatalf("back while the node is still there: %v", err)
	default:
	}
	s.stop()
	if err := <-back; err != nil {
		t.Error(err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoNode) {
		t.Errorf("after it: %v", err)
	}
}

func TestDownInterrupted(t *testing.T) {
	asked := make(chan struct{})
	s := serve(t, &fakeNode{}, Config{Stop: func() { close(asked) }})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := client(t, s.socket).Down(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
