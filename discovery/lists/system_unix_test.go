//go:build unix && !darwin

package lists

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

func TestConfigured(t *testing.T) {
	name := filepath.Join(t.TempDir(), "resolv.conf")
	for text, want := range map[string]string{
		"nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch x\nnameserver bad\n": "[192.0.2.1:53 [fe80::1%eth0]:53]",
		"# none\n": "[127.0.0.1:53]",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := configured(name); err != nil || fmt.Sprint(got) != want {
			t.Errorf("of %q: %v, %v, want %s", text, got, err, want)
		}
	}
	if _, err := configured(name + ".none"); err == nil {
		t.Error("a missing file does not fail")
	}
}

func TestNobodyListens(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := netip.MustParseAddrPort(pc.LocalAddr().String())
	pc.Close()
	_, err = client(free).list(t.Context(), listName, dns.TypeSRV)
	if !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != "connection refused" {
		t.Errorf("fails with %q", err)
	}
}
