package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/relay"
)

// nobody is the user and group that own nothing.
const nobody = 65534

// It needs nothing but a port: no root, no state, no device, no route.
func TestRelayAsNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	setpriv, err := exec.LookPath("setpriv")
	netlab.Need(t, err == nil, "setpriv is not there")
	lab := netlab.New(t)
	dir, err := os.MkdirTemp("", "mn") // where nobody gets to, unlike the test's own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "meshnet")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h := lab.Host("empty")
	user := fmt.Sprint(nobody)
	proc, err := h.Start(netlab.Proc{
		Path: setpriv, Dir: "/", Env: []string{"HOME=/nonexistent", "XDG_STATE_HOME="},
		Args: []string{"--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", program, "relay"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var u relay.URL
	line := regexp.MustCompile(`(?m)^(https://\S+)\n`)
	poll(t, "a URL", func() bool {
		m := line.FindStringSubmatch(proc.Output())
		if m == nil {
			return false
		}
		u, err = relay.ParseURL(m[1])
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := h.Dial(ctx, "tcp", u.HostPort())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	session := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if err := session.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(session.ConnectionState().PeerCertificates[0].Raw); sum != u.Pin {
		t.Errorf("the certificate has %x, the URL %x", sum, u.Pin)
	}

	stun, err := h.Dial(ctx, "udp", u.HostPort())
	if err != nil {
		t.Fatal(err)
	}
	defer stun.Close()
	_ = stun.SetDeadline(time.Now().Add(5 * time.Second))
	request := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...) // RFC 8489 §5
	if _, err := stun.Write(request); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1500)
	if n, err := stun.Read(answer); err != nil || n < 20 || answer[0] != 1 || answer[1] != 1 {
		t.Errorf("STUN answered %x, %v", answer[:n], err)
	}
	if err := proc.Stop(); err != nil {
		t.Errorf("%v: %s", err, proc.Output())
	}
}
