package meshnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB, cfg Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// two are a founder and a member of one network, in this process.
func two(t testing.TB) (alice, bob *Node) {
	t.Helper()
	alice = start(t, Config{Hostname: "alice"})
	invitation, err := alice.Invite(t.Context(), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bob = start(t, Config{Hostname: "bob", Join: invitation.Token})
	await(t, "names", func() bool { return named(alice, "bob") && named(bob, "alice") })
	return alice, bob
}

func named(n *Node, name string) bool {
	_, err := n.Lookup(name)
	return err == nil
}

func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestDialAndListen(t *testing.T) {
	alice, bob := two(t)
	ln, err := alice.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := alice.WhoIs(netip.MustParseAddrPort(r.RemoteAddr).Addr())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "hello %s", *who.Name)
	})}
	go server.Serve(ln)
	defer server.Close()
	client := bob.HTTPClient()
	defer client.CloseIdleConnections()
	for _, host := range []string{"alice", "Alice", *alice.Status().Self.FQDN, alice.Status().Self.IPs[0].String(), "[" + alice.Status().Self.IPs[1].String() + "]"} {
		resp, err := client.Get("http://" + host + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "hello bob" {
			t.Fatalf("%s: %q, %v", host, body, err)
		}
	}
}

func TestPackets(t *testing.T) {
	alice, bob := two(t)
	pc, err := alice.ListenPacket("udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	c, err := bob.Dial(t.Context(), "udp", "alice:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 100)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	pc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	n, from, err := pc.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "question" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if _, err := pc.WriteTo([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	if n, err = c.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}

func TestDialErrors(t *testing.T) {
	alice, bob := two(t)
	dial := func(address string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := bob.Dial(ctx, "tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	}
	m := alice.mesh.Map()
	for _, c := range []struct {
		address string
		want    error
	}{
		{"nobody:1", ErrUnknownPeer},
		{"192.0.2.1:1", ErrUnknownPeer},
		{net.JoinHostPort(m.Self.Control.String(), "41820"), ErrDenied},
	} {
		if err := dial(c.address); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.address, err, c.want)
		}
	}
	if err := dial("alice:1"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a port where nobody listens: %v, want refused at once", err)
	}
	if err := dial("alice"); err == nil {
		t.Error("an address without a port was dialled")
	}
	bob.Close()
	for name, err := range map[string]error{
		"dial":   dial("alice:80"),
		"listen": func() error { _, err := bob.Listen("tcp", ":80"); return err }(),
		"packet": func() error { _, err := bob.ListenPacket("udp", ":80"); return err }(),
	} {
		if !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s on a closed node: %v, want ErrClosed", name, err)
		}
	}
}

func TestConnIsANetConn(t *testing.T) {
	alice, bob := two(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		ln, err := alice.Listen("tcp", ":0")
		if err != nil {
			return nil, nil, nil, err
		}
		_, port, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			return nil, nil, nil, err
		}
		type accepted struct {
			c   net.Conn
			err error
		}
		far := make(chan accepted, 1)
		go func() {
			c, err := ln.Accept()
			far <- accepted{c, err}
		}()
		if c1, err = bob.Dial(t.Context(), "tcp", net.JoinHostPort("alice", port)); err != nil {
			return nil, nil, nil, err
		}
		other := <-far
		return c1, other.c, func() { c1.Close(); other.c.Close(); ln.Close() }, other.err
	})
}

// TestPing checks the sealed echo and what it says of the path.
func TestPing(t *testing.T) {
	_, bob := two(t)
	r := bob.Ping(t.Context(), "alice", 7, 1000, 5*time.Second)
	if !r.OK || r.Seq != 7 || r.RTTMs == nil || r.Path.Kind != "direct" || r.Path.Addr == nil || r.Error != nil {
		t.Fatalf("%+v", r)
	}
	if r := bob.Ping(t.Context(), "nobody", 1, 56, time.Second); r.OK || r.Error == nil {
		t.Fatalf("%+v", r)
	}
}

// TestStatusSaysWhatIs reads the status of a connected pair.
func TestStatusSaysWhatIs(t *testing.T) {
	alice, _ := two(t)
	await(t, "alice sees bob connected", func() bool {
		s := alice.Status()
		return len(s.Peers) == 1 && s.Peers[0].State == PeerConnected && s.Peers[0].LastHandshake != nil
	})
	s := alice.Status()
	if s.State != "running" || s.Network.Members != 2 || s.Self.Mode != "userspace" || s.Self.Port == 0 {
		t.Fatalf("%+v", s)
	}
	if p := s.Peers[0]; p.PQ != "floor" || p.Path.Kind != "direct" || len(p.IPs) != 2 || p.RxBytes == 0 {
		t.Fatalf("%+v", p)
	}
}

func TestInviteRules(t *testing.T) {
	alice, bob := two(t)
	if _, err := bob.Invite(t.Context(), InviteOptions{}); !errors.Is(err, ErrNotAdmin) {
		t.Errorf("a plain member invites: %v", err)
	}
	used := alice.Invites()[0]
	if used.State != "open" || used.Used != 1 { // InviteOptions{} has no limit of uses
		t.Errorf("%+v", used)
	}
	one, err := alice.Invite(t.Context(), InviteOptions{Uses: 1, Tags: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	carol := start(t, Config{Hostname: "carol", Join: one.Token})
	if got := carol.Members()[2].Tags; len(got) != 1 || got[0] != "web" {
		t.Errorf("carol's tags are %v", got)
	}
	for _, c := range []struct {
		name string
		cfg  Config
		want error
	}{
		{"used up", Config{Join: one.Token}, ErrInviteUsed},
		{"altered", Config{Join: one.Token[:40] + "x" + one.Token[41:]}, ErrToken},
		{"cut", Config{Join: one.Token[:len(one.Token)-1]}, ErrToken},
		{"not a token", Config{Join: "hello"}, ErrToken},
	} {
		if n, err := Start(t.Context(), c.cfg); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
			if n != nil {
				n.Close()
			}
		}
	}
	two, err := alice.Invite(t.Context(), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := alice.RevokeInvite(t.Context(), two.ID[:10]); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Join: two.Token}); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked invite: %v", err)
	}
}

func TestRevokedMemberIsCutOff(t *testing.T) {
	alice, bob := two(t)
	if err := alice.RevokeMember(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	await(t, "alice forgets bob", func() bool { return len(alice.Status().Peers) == 0 })
	await(t, "bob is cut off", func() bool { return !bob.Ping(t.Context(), "alice", 1, 56, 500*time.Millisecond).OK })
	for range 3 {
		if bob.Ping(t.Context(), "alice", 1, 56, 300*time.Millisecond).OK {
			t.Fatal("a revoked member reaches others again")
		}
	}
	if m := alice.Members()[1]; m.Revoked == nil {
		t.Fatalf("%+v", m)
	}
	if err := alice.RevokeMember(t.Context(), "nobody"); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("revoke nobody: %v", err)
	}
}

func TestJoinTimeout(t *testing.T) {
	alice := start(t, Config{})
	invitation, err := alice.Invite(t.Context(), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	alice.Close()
	begin := time.Now()
	_, err = Start(t.Context(), Config{Join: invitation.Token, JoinTimeout: 300 * time.Millisecond})
	hinted, ok := errors.AsType[*Hinted](err)
	if !errors.Is(err, ErrJoinTimeout) || !ok || hinted.Hint == "" {
		t.Fatalf("err = %v", err)
	}
	if time.Since(begin) > 10*time.Second {
		t.Fatalf("took %v", time.Since(begin))
	}
}

func TestStateFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first := start(t, Config{Dir: dir, Hostname: "alice"})
	if _, err := Start(t.Context(), Config{Dir: dir}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("a second start: %v", err)
	}
	id, network := first.Status().Self.ID, *first.Status().Network.ID
	ips := fmt.Sprint(first.Status().Self.IPs)
	invitation, err := first.Invite(t.Context(), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	again := start(t, Config{Dir: dir, Hostname: "alice"})
	if s := again.Status(); s.Self.ID != id || *s.Network.ID != network || fmt.Sprint(s.Self.IPs) != ips {
		t.Fatalf("another node came back: %+v", s.Self)
	}
	if got := again.Invites(); len(got) != 1 || got[0].ID != invitation.ID {
		t.Fatalf("invites %+v", got)
	}
	again.Close()
	stranger := start(t, Config{Hostname: "stranger"})
	other, err := stranger.Invite(t.Context(), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Dir: dir, Join: other.Token}); !errors.Is(err, ErrOtherNetwork) {
		t.Fatalf("a token of another network: %v", err)
	}
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
}

// TestMistakenNetworkIsReplaced joins with a folder where `up` was called once without a token.
func TestMistakenNetworkIsReplaced(t *testing.T) {
	dir := t.TempDir()
	start(t, Config{Dir: dir}).Close()
	alice := start(t, Config{Hostname: "alice"})
	invitation, err := alice.Invite(t.Context(), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bob := start(t, Config{Dir: dir, Join: invitation.Token})
	if *bob.Status().Network.ID != *alice.Status().Network.ID {
		t.Fatal("bob is in another network")
	}
}

// TestFiftyCycles starts and stops nodes in one process; nothing of them stays.
func TestFiftyCycles(t *testing.T) {
	dir := t.TempDir()
	cycle := func() {
		n, err := Start(t.Context(), Config{Dir: dir, SOCKS5: "127.0.0.1:0", HTTPProxy: "127.0.0.1:0", ForwardInbound: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		n.Close() // a second one is harmless
	}
	cycle()
	files := openFiles(t)
	for range 50 {
		cycle()
	}
	if now := openFiles(t); now > files {
		t.Errorf("%d files and sockets open after 50 cycles, %d before", now, files)
	}
	goleak.VerifyNone(t, goleak.IgnoreCurrent())
}

// openFiles counts this process's descriptors, sockets among them; 0 where the system does not tell.
func openFiles(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestEvents sees what happens, and is told of what it missed.
func TestEvents(t *testing.T) {
	alice := start(t, Config{Hostname: "alice"})
	events := alice.Events(t.Context())
	seen := make(chan Event, 1000)
	go func() {
		for e := range events {
			seen <- e
		}
		close(seen)
	}()
	invitation, err := alice.Invite(t.Context(), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bob := start(t, Config{Hostname: "bob", Join: invitation.Token})
	expect := func(want EventType) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case e := <-seen:
				if e.Type == want {
					return
				}
			case <-deadline:
				t.Fatalf("no event %s", want)
			}
		}
	}
	expect(EventPeerConnected)
	bob.Close()
	expect(EventPeerDisconnected)
	alice.Close()
	expect(EventNodeStopping)
	if _, open := <-seen; open {
		t.Error("events after the last")
	}
}

func TestBusTellsWhatWasLost(t *testing.T) {
	var b bus
	s := b.subscribe()
	for range subscriberQueue + 10 {
		b.publish(Event{Type: EventHealth})
	}
	for range subscriberQueue {
		<-s.ch
	}
	b.publish(Event{Type: EventError})
	if e := <-s.ch; e.Data["lost"] != 10 {
		t.Fatalf("%+v", e)
	}
	b.close()
	if _, open := <-s.ch; open {
		t.Fatal("a closed bus goes on")
	}
}
