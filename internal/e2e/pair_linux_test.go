package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/safefile"
)

// transferSize is what goes through the tunnel in one piece.
const transferSize = 200 << 20

// marker is what must never be seen on the wire.
var marker = []byte("plaintext marker 7f3a91c05b")

// TestTwoHosts is the main job: two hosts, real TUNs, unmodified programs.
func TestTwoHosts(t *testing.T) {
	w := newWorld(t)
	a, b := w.pair(nil, nil)
	capture := a.host.Capture(a.iface.Name())
	a.ping(b.ip4, 5*time.Second)
	a.ping(b.ip6, 5*time.Second)
	b.ping(a.ip4, 5*time.Second)
	b.ping(a.ip6, 5*time.Second)
	listener, err := b.host.Listen("tcp", netip.AddrPortFrom(b.ip4, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := a.host.Dial(t.Context(), "tcp", netip.AddrPortFrom(b.ip4, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	small(t, listener, c)
	frames := capture
	for _, secret := range [][]byte{marker, idBytes(t, a), idBytes(t, b), []byte(idText(t, a))} {
		if contains(frames, secret) {
			t.Errorf("%q is seen on the wire", secret)
		}
	}
	for _, n := range []*node{a, b} {
		id := load(t, n)
		wg, disco := id.WG(), id.Disco()
		if contains(frames, wg[:]) || contains(frames, disco[:]) {
			t.Errorf("a static key of %s is seen on the wire", n.name)
		}
	}
	capture.Stop()
	c, err = a.host.Dial(t.Context(), "tcp", netip.AddrPortFrom(b.ip4, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	transfer(t, listener, c, transferSize)
}

// load reads a node's identity from its state folder.
func load(t *testing.T, n *node) *identity.Identity {
	t.Helper()
	dir, err := safefile.Open(n.state)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func idBytes(t *testing.T, n *node) []byte {
	t.Helper()
	id := load(t, n).ID()
	return id[:]
}

func idText(t *testing.T, n *node) string {
	t.Helper()
	return load(t, n).ID().String()
}

// small sends the marker there and back.
func small(t *testing.T, listener net.Listener, c net.Conn) {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(marker); err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	got := make([]byte, len(marker))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, marker) {
		t.Fatalf("got %q, %v", got, err)
	}
}

// transfer sends size random bytes over a connection to a listener and compares both ends' SHA-256.
func transfer(t *testing.T, listener net.Listener, c net.Conn, size int64) {
	t.Helper()
	received := make(chan string, 1)
	go func() {
		far, err := listener.Accept()
		if err != nil {
			received <- err.Error()
			return
		}
		defer far.Close()
		h := sha256.New()
		n, err := io.Copy(h, far)
		if err != nil || n != size {
			received <- fmt.Sprintf("%d bytes, %v", n, err)
			return
		}
		received <- fmt.Sprintf("%x", h.Sum(nil))
	}()
	c.SetDeadline(time.Now().Add(3 * time.Minute))
	h := sha256.New()
	start := time.Now()
	if _, err := io.Copy(io.MultiWriter(c, h), io.LimitReader(rand.Reader, size)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	want := fmt.Sprintf("%x", h.Sum(nil))
	select {
	case got := <-received:
		if got != want {
			t.Fatalf("received %s, sent %s", got, want)
		}
	case <-time.After(3 * time.Minute):
		t.Fatal("the transfer did not end")
	}
	t.Logf("%d MiB in %v", size>>20, time.Since(start).Round(time.Millisecond))
}

// socks connects through a node's SOCKS5 proxy (RFC 1928) to a name and port.
func socks(t *testing.T, n *node, target string, port uint16) net.Conn {
	t.Helper()
	proxy := n.status().Self.Listen.SOCKS5
	if proxy == nil {
		t.Fatal("no SOCKS5 proxy")
	}
	c, err := n.host.Dial(t.Context(), "tcp", *proxy)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	request := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(target))}, target...)
	if _, err := c.Write(binary.BigEndian.AppendUint16(request, port)); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, 2+10)
	if _, err := io.ReadFull(c, reply); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(reply[:4], []byte{5, 0, 5, 0}) {
		t.Fatalf("SOCKS5 reply % x", reply)
	}
	return c
}

// TestUserspace does the same with one side, and with both sides, without a TUN.
func TestUserspace(t *testing.T) {
	for _, c := range []struct {
		name   string
		aFlags []string
	}{
		{"one side", nil},
		{"both sides", []string{"--userspace"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.pair(c.aFlags, []string{"--userspace"})
			b.pingNode(a, 5*time.Second)
			a.pingNode(b, 5*time.Second)
			// b reaches a program on a through its proxy.
			at := netip.AddrPortFrom(a.ip4, 6000)
			if c.aFlags != nil {
				at = netip.MustParseAddrPort("127.0.0.1:6000")
			}
			listener, err := a.host.Listen("tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			transfer(t, listener, socks(t, b, "alice", 6000), transferSize)
			// a reaches a program that listens on b's loopback.
			listener, err = b.host.Listen("tcp", "127.0.0.1:6001")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			if c.aFlags != nil {
				transfer(t, listener, socks(t, a, "bob."+*a.status().Network.Suffix, 6001), transferSize)
				return
			}
			a.ping(b.ip4, 5*time.Second)
			a.ping(b.ip6, 5*time.Second)
			conn, err := a.host.Dial(t.Context(), "tcp", netip.AddrPortFrom(b.ip6, 6001).String())
			if err != nil {
				t.Fatal(err)
			}
			transfer(t, listener, conn, transferSize)
		})
	}
}

// TestThirdJoinsThroughEither lets a third host in through a member that is not the founder, and it reaches both.
func TestThirdJoinsThroughEither(t *testing.T) {
	w := newWorld(t)
	nodes := w.lan("alice", "bob", "carol")
	a, b, c := nodes[0], nodes[1], nodes[2]
	a.up()
	token := a.invite("--uses", "0")
	b.up("--join", "@"+token)
	if err := a.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	c.up("--join", "@"+token, "--bootstrap", "192.168.7.2:41820")
	c.ping(b.ip4, 5*time.Second)
	b.ping(c.ip6, 5*time.Second)
	a.up()
	a.ping(c.ip4, 10*time.Second)
	c.ping(a.ip6, 10*time.Second)
	if got := c.status().Network.Members; got != 3 {
		t.Fatalf("%d members, want 3", got)
	}
}

// TestFindsBothFamiliesAndLeavesNothing checks the interface while the node runs and that nothing stays behind.
func TestFindsBothFamiliesAndLeavesNothing(t *testing.T) {
	w := newWorld(t)
	a, b := w.pair(nil, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if out := a.must("ip"); out == "" {
		t.Fatal("meshnet ip printed nothing")
	}
	links := func() string {
		out, err := b.host.Run(ctx, "cat", "/proc/net/dev")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if !bytes.Contains([]byte(links()), []byte("meshnet0")) {
		t.Fatal("no interface meshnet0")
	}
	b.must("down")
	if err := b.proc.Wait(); err != nil {
		t.Fatalf("meshnet down: %v", err)
	}
	if bytes.Contains([]byte(links()), []byte("meshnet0")) {
		t.Fatal("the interface stayed")
	}
	if matches, _ := filepath.Glob(filepath.Join(b.state, "*.sock")); len(matches) > 0 {
		t.Fatalf("%v stayed", matches)
	}
}
