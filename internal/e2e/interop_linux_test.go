package e2e

import (
	"bytes"
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	"github.com/meshnet/meshnet/internal/netlab"
)

// tool finds a program that is not meshnet's, or skips the test saying which.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	netlab.Need(t, err == nil, "the program "+name+" is not installed")
	return path
}

// serveHTTP answers "hello from <name>" on a host's address.
func serveHTTP(t *testing.T, n *node, addr string) {
	t.Helper()
	listener, err := n.host.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("hello from " + n.name))
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
}

// TestUnmodifiedPrograms uses the ping and curl of the system over the interface.
func TestUnmodifiedPrograms(t *testing.T) {
	ping, curl := tool(t, "ping"), tool(t, "curl")
	w := newWorld(t)
	a, b := w.pair(nil, nil)
	serveHTTP(t, b, net.JoinHostPort(b.ip6.String(), "80"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, to := range []string{b.ip4.String(), b.ip6.String()} {
		out, err := a.host.Run(ctx, ping, "-c", "3", "-i", "0.2", "-W", "5", to)
		if err != nil || !strings.Contains(out, " 0% packet loss") {
			t.Errorf("ping %s: %v\n%s", to, err, out)
		}
	}
	out, err := a.host.Run(ctx, curl, "-sS", "-m", "10", "http://["+b.ip6.String()+"]/")
	if err != nil || out != "hello from bob" {
		t.Errorf("curl: %q, %v", out, err)
	}
}

// TestCurlThroughProxies uses curl with names, between two nodes without root's interface.
func TestCurlThroughProxies(t *testing.T) {
	curl := tool(t, "curl")
	w := newWorld(t)
	a, b := w.pair([]string{"--userspace"}, []string{"--userspace"})
	serveHTTP(t, b, "127.0.0.1:8000")
	a.pingNode(b, 5*time.Second)
	listen := a.status().Self.Listen
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for _, flags := range [][]string{
		{"--socks5-hostname", *listen.SOCKS5},
		{"-x", "http://" + *listen.HTTPProxy},
		{"-p", "-x", "http://" + *listen.HTTPProxy},
	} {
		out, err := a.host.Run(ctx, curl, append(flags, "-sS", "-m", "10", "http://bob:8000/")...)
		if err != nil || out != "hello from bob" {
			t.Errorf("curl %v: %q, %v", flags, out, err)
		}
	}
	if out, err := a.host.Run(ctx, curl, "--socks5-hostname", *listen.SOCKS5, "-sS", "-m", "10", "http://nobody:8000/"); err == nil {
		t.Errorf("curl to a name that nobody has: %q", out)
	}
}

// TestOpenSSLKey imports a key that OpenSSL made; the node's id spells the public key that OpenSSL prints.
func TestOpenSSLKey(t *testing.T) {
	openssl := tool(t, "openssl")
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "key.pem")
	if out, err := exec.Command(openssl, "genpkey", "-algorithm", "ed25519", "-out", key).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	public, err := exec.Command(openssl, "pkey", "-in", key, "-pubout").Output()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(public)
	want := base58.Encode(block.Bytes[len(block.Bytes)-32:])
	state := filepath.Join(dir, "state")
	if out, err := exec.Command(bin, "key", "import", key, "--state", state).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(bin, "key", "show", "--state", state).Output()
	if err != nil || !strings.HasPrefix(string(out), want+"\n") {
		t.Fatalf("key show: %q, %v; want %s", out, err, want)
	}
	exported, err := exec.Command(bin, "key", "export", "--state", state).Output()
	if err != nil {
		t.Fatal(err)
	}
	again := exec.Command(openssl, "pkey", "-pubout")
	again.Stdin = bytes.NewReader(exported)
	if got, err := again.Output(); err != nil || !bytes.Equal(got, public) {
		t.Fatalf("OpenSSL reads another key from what was exported: %v", err)
	}
	if info, err := os.Stat(filepath.Join(state, "identity.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
}
