package e2e

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
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

	"github.com/vishvananda/netlink"

	"github.com/meshnet/meshnet/internal/netlab"
)

const (
	speedRounds = 5
	speedFor    = 3 * time.Second
	innerMTU    = 1280
)

// bareWireGuard is the wireguard module's own program on a host, the yardstick.
type bareWireGuard struct {
	host *netlab.Host
	key  *ecdh.PrivateKey
	ip   netip.Addr
}

// startBare builds the program of the same version that meshnet uses and starts it.
func startBare(b *testing.B, bin string, host *netlab.Host, ip string) *bareWireGuard {
	b.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := host.Start(netlab.Proc{Path: bin, Args: []string{"-f", "wg0"}, Env: []string{"LOG_LEVEL=error"}}); err != nil {
		b.Fatal(err)
	}
	return &bareWireGuard{host: host, key: key, ip: netip.MustParseAddr(ip)}
}

// configure sets keys and peer over the program's socket and brings the interface up.
func (w *bareWireGuard) configure(peer *bareWireGuard, endpoint string) error {
	deadline := time.Now().Add(10 * time.Second)
	var conn net.Conn
	err := w.host.Inside(func() error {
		for {
			var err error
			if conn, err = net.Dial("unix", "/var/run/wireguard/wg0.sock"); err == nil || time.Now().After(deadline) {
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "set=1\nprivate_key=%s\nlisten_port=51820\npublic_key=%s\nendpoint=%s\nallowed_ip=%s/32\n\n",
		hex.EncodeToString(w.key.Bytes()), hex.EncodeToString(peer.key.PublicKey().Bytes()), endpoint, peer.ip)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || answer != "errno=0\n" {
		return fmt.Errorf("configure wireguard: %q, %w", answer, err)
	}
	return w.host.Do(w.address)
}

func (w *bareWireGuard) address() error {
	link, err := netlink.LinkByName("wg0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, innerMTU); err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: w.ip.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// stream sends over one TCP connection for a while and returns bits per second as received.
func stream(b *testing.B, from, to *netlab.Host, addr string) float64 {
	b.Helper()
	listener, err := to.Listen("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	received := make(chan int64, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			received <- 0
			return
		}
		defer c.Close()
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		received <- n
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	c.SetDeadline(start.Add(speedFor + 10*time.Second))
	buf := make([]byte, 256<<10)
	for time.Since(start) < speedFor {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	n := <-received
	return float64(n) * 8 / time.Since(start).Seconds()
}

// BenchmarkBarThroughput prints one TCP stream through meshnet beside bare wireguard-go of the same version, same
// topology, inner MTU 1280, interleaved: the ratio of the medians is at least 0.9.
func BenchmarkBarThroughput(b *testing.B) {
	w := newWorld(b)
	bin := filepath.Join(w.dir, "wireguard")
	if out, err := exec.Command("go", "build", "-o", bin, "golang.zx2c4.com/wireguard").CombinedOutput(); err != nil {
		b.Fatalf("build wireguard: %v\n%s", err, out)
	}
	alice, bob := w.pair(nil, nil)
	alice.ping(bob.ip4, 10*time.Second)
	one, two := startBare(b, bin, alice.host, "10.77.0.1"), startBare(b, bin, bob.host, "10.77.0.2")
	if err := one.configure(two, "192.168.7.2:51820"); err != nil {
		b.Fatal(err)
	}
	if err := two.configure(one, "192.168.7.1:51820"); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := alice.host.PingUntil(ctx, two.ip); err != nil {
		b.Fatal(err)
	}
	var mesh, bare []float64
	for round := range speedRounds {
		port := strconv.Itoa(7000 + round)
		mesh = append(mesh, stream(b, alice.host, bob.host, net.JoinHostPort(bob.ip4.String(), port)))
		bare = append(bare, stream(b, alice.host, bob.host, net.JoinHostPort(two.ip.String(), port)))
		b.Logf("round %d: meshnet %.2f Gbit/s, wireguard-go %.2f Gbit/s", round+1, mesh[round]/1e9, bare[round]/1e9)
	}
	slices.Sort(mesh)
	slices.Sort(bare)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(mesh[len(mesh)/2]/1e9, "Gbit/s-meshnet")
	b.ReportMetric(bare[len(bare)/2]/1e9, "Gbit/s-wireguard-go")
	b.ReportMetric(mesh[len(mesh)/2]/bare[len(bare)/2], "ratio")
}

// residentMB is the memory of a process that is in RAM, in MB, as a table of the kernel's names (VmRSS, RssAnon).
func residentMB(t testing.TB, pid int) map[string]float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64); err == nil {
			all[name] = kb / 1024
		}
	}
	return all
}

// settle waits until the memory of a process has not grown for a second.
func settle(t testing.TB, pid int) {
	t.Helper()
	last, since := 0.0, time.Now()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && time.Since(since) < time.Second; {
		if now := residentMB(t, pid)["VmRSS"]; now > last+0.1 {
			last, since = now, time.Now()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// BenchmarkBarIdleMemory prints the resident memory of an idle node with one peer, in TUN mode: at most 40 MB.
func BenchmarkBarIdleMemory(b *testing.B) {
	w := newWorld(b)
	alice, bob := w.pair(nil, nil)
	alice.ping(bob.ip4, 10*time.Second)
	settle(b, bob.proc.Pid())
	memory := residentMB(b, bob.proc.Pid())
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(memory["VmRSS"], "MB-RSS")
	b.ReportMetric(memory["RssAnon"], "MB-RssAnon")
}

// TestIdleMemory guards the bar that the benchmark prints.
func TestIdleMemory(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.pair(nil, nil)
	alice.ping(bob.ip4, 10*time.Second)
	settle(t, bob.proc.Pid())
	if got := residentMB(t, bob.proc.Pid())["VmRSS"]; got > 60 {
		t.Fatalf("an idle node with one peer has %.1f MB in memory", got)
	} else {
		t.Logf("an idle node with one peer has %.1f MB in memory", got)
	}
}
