package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

// real is a Service with the system's sockets, on a host of a lab.
type real struct {
	t     *testing.T
	svc   *Service
	stop  func()
	start time.Time
	mu    sync.Mutex
	news  []Announcement
}

// serve runs a Service on a host until the test or stop ends it.
func serve(t *testing.T, h *netlab.Host, port uint16, edit func(*Config)) *real {
	t.Helper()
	r := &real{t: t, start: time.Now()}
	cfg := Config{
		Tag:   func(time.Time) [8]byte { return testTag },
		Port:  func() uint16 { return port },
		Known: func(tag [8]byte) bool { return tag == testTag },
		Found: r.found,
	}
	if edit != nil {
		edit(&cfg)
	}
	svc, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.svc = svc
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Do(func() error { return svc.Run(ctx) }) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *real) found(a Announcement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.news = append(r.news, a)
}

// last is the newest news.
func (r *real) last() (Announcement, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.news) == 0 {
		return Announcement{}, false
	}
	return r.news[len(r.news)-1], true
}

// await waits for the newest news to be that addr is there, or is gone, and returns how long after its start that was.
func (r *real) await(addr netip.AddrPort, gone bool, limit time.Duration) time.Duration {
	r.t.Helper()
	for begin := time.Now(); time.Since(begin) < limit; time.Sleep(2 * time.Millisecond) {
		if a, ok := r.last(); ok && a.Gone == gone && slices.Contains(a.Addrs, addr) {
			return time.Since(r.start)
		}
	}
	a, _ := r.last()
	r.t.Fatalf("%v (gone %v) not told within %v; last news %+v; counters %+v", addr, gone, limit, a, r.svc.Counters())
	return 0
}

// linkLocal is an interface's link-local address.
func linkLocal(t *testing.T, h *netlab.Host, iface string) netip.Addr {
	t.Helper()
	var found netip.Addr
	err := h.Do(func() error {
		for _, i := range Interfaces() {
			for _, p := range i.Addrs {
				if i.Name == iface && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
					found = p.Addr()
				}
			}
		}
		return nil
	})
	if err != nil || !found.IsValid() {
		t.Fatalf("%s has no link-local address: %v", iface, err)
	}
	return found
}

// lan is a switch with two hosts on it; without IPv6 unless addrs has it.
func lan(t *testing.T, only4 bool, addrs ...string) (*netlab.Switch, []*netlab.Host) {
	t.Helper()
	lab := netlab.New(t)
	sw := lab.Switch("lan")
	var hosts []*netlab.Host
	for i, a := range addrs {
		h := lab.Host(fmt.Sprintf("h%d", i))
		if only4 {
			h.Sysctl("net/ipv6/conf/all/disable_ipv6", "1")
			h.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
		}
		if a == "" {
			h.Plug(sw)
		} else {
			h.Plug(sw, a)
		}
		hosts = append(hosts, h)
	}
	return sw, hosts
}

func TestRealIPv4(t *testing.T) {
	_, hosts := lan(t, true, "192.168.7.1/24", "192.168.7.2/24")
	meet(t, hosts, netip.MustParseAddr("192.168.7.1"), netip.MustParseAddr("192.168.7.2"))
}

func TestRealLinkLocal(t *testing.T) {
	_, hosts := lan(t, false, "", "")
	a, b := linkLocal(t, hosts[0], "eth0").WithZone("eth0"), linkLocal(t, hosts[1], "eth0").WithZone("eth0")
	meet(t, hosts, a, b)
}

// meet has two services see each other, the second one coming later, and one go.
func meet(t *testing.T, hosts []*netlab.Host, addrA, addrB netip.Addr) {
	t.Helper()
	a := serve(t, hosts[0], 41820, nil)
	b := serve(t, hosts[1], 41821, nil)
	tookA := a.await(netip.AddrPortFrom(addrB, 41821), false, time.Second)
	tookB := b.await(netip.AddrPortFrom(addrA, 41820), false, time.Second)
	t.Logf("found after %v and %v", tookA, tookB)
	begin := time.Now()
	b.stop()
	ended := time.Since(begin)
	if ended > 250*time.Millisecond {
		t.Errorf("goodbye took %v", ended)
	}
	a.await(netip.AddrPortFrom(addrB, 41821), true, 2*time.Second)
	t.Logf("ended after %v, gone after %v", ended, time.Since(begin))
	if c := a.svc.Counters(); c.SendErrors+c.Conflicts+c.Malformed+c.OffLink+c.Refused != 0 {
		t.Errorf("%+v", c)
	}
}

// A host that is plugged into another LAN finds those who are there, and its old place forgets it.
func TestRealReplugged(t *testing.T) {
	lab := netlab.New(t)
	home, work := lab.Switch("home"), lab.Switch("work")
	laptop, colleague := lab.Host("laptop"), lab.Host("colleague")
	card := laptop.Plug(home, "192.168.7.2/24")
	colleague.Plug(work, "10.9.0.1/24")
	l := serve(t, laptop, 41820, nil)
	c := serve(t, colleague, 41821, nil)
	card.Remove()
	l.svc.Changed()
	second := laptop.Plug(work, "10.9.0.2/24")
	begin := time.Now()
	l.svc.Changed()
	l.await(ap("10.9.0.1:41821"), false, time.Second)
	c.await(ap("10.9.0.2:41820"), false, time.Second)
	t.Logf("found by %s after %v", second.Name(), time.Since(begin))
	// Without being told it is noticed when the interfaces are looked at.
	second.SetDown()
	l.await(ap("10.9.0.1:41821"), true, 15*time.Second)
}

// The same port serves two programs of a host.
func TestRealSameHost(t *testing.T) {
	_, hosts := lan(t, true, "192.168.7.1/24")
	a := serve(t, hosts[0], 41820, nil)
	b := serve(t, hosts[0], 41821, nil)
	a.await(ap("192.168.7.1:41821"), false, time.Second)
	b.await(ap("192.168.7.1:41820"), false, time.Second)
}

// Without an interface, and without a port that may be shared, it waits for better times.
func TestRealNothing(t *testing.T) {
	lab := netlab.New(t)
	sw := lab.Switch("lan")
	h, other := lab.Host("h"), lab.Host("other")
	h.Sysctl("net/ipv6/conf/all/disable_ipv6", "1")
	h.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	taken, err := h.ListenPacket("udp4", "0.0.0.0:5353")
	if err != nil {
		t.Fatal(err)
	}
	a := serve(t, h, 41820, nil)
	other.Plug(sw, "192.168.7.2/24")
	serve(t, other, 41821, nil)
	h.Plug(sw, "192.168.7.1/24")
	a.svc.Changed()
	for begin := time.Now(); a.svc.Counters().SendErrors == 0; time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatal("the port was not shared, and no error counted")
		}
	}
	taken.Close()
	a.svc.Changed()
	a.await(ap("192.168.7.2:41821"), false, 2*time.Second)
}

// avahi is Debian's multicast DNS on a host, with a message bus of its own.
type avahi struct {
	t    *testing.T
	host *netlab.Host
}

func startAvahi(t *testing.T, h *netlab.Host) *avahi {
	t.Helper()
	for _, name := range []string{"dbus-daemon", "avahi-daemon", "avahi-browse"} {
		_, err := exec.LookPath(name)
		netlab.Need(t, err == nil, "the program "+name+" is not installed")
	}
	if err := h.Inside(func() error { return os.MkdirAll("/run/dbus", 0o755) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	bus, err := h.Start(netlab.Proc{Path: "dbus-daemon", Args: []string{"--system", "--nofork", "--nopidfile", "--nosyslog", "--print-address"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.WaitOutput(ctx, "unix:path="); err != nil {
		t.Fatal(err)
	}
	daemon, err := h.Start(netlab.Proc{Path: "avahi-daemon", Args: []string{"--no-rlimits", "--no-chroot"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.WaitOutput(ctx, "Server startup complete"); err != nil {
		t.Fatal(err)
	}
	return &avahi{t, h}
}

// browse is what avahi-browse lists of the service, resolved.
func (a *avahi) browse() string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	out, err := a.host.Run(ctx, "avahi-browse", "-rtp", "_meshnet._udp")
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// until browses until the outcome is as wanted.
func (a *avahi) until(what string, limit time.Duration, ok func(out string) bool) string {
	a.t.Helper()
	out := ""
	for begin := time.Now(); time.Since(begin) < limit; {
		if out = a.browse(); ok(out) {
			a.t.Logf("%s after %v", what, time.Since(begin))
			return out
		}
	}
	a.t.Fatalf("not %s within %v:\n%s", what, limit, out)
	return ""
}

func TestAvahi(t *testing.T) {
	for _, tt := range []struct {
		name   string
		only4  bool
		addrs  []string
		family string
	}{
		{"IPv4", true, []string{"192.168.7.1/24", "192.168.7.2/24"}, "IPv4"},
		{"IPv6", false, []string{"", ""}, "IPv6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, hosts := lan(t, tt.only4, tt.addrs...)
			a := startAvahi(t, hosts[1])
			r := serve(t, hosts[0], 41820, nil)
			out := a.until("resolved", 10*time.Second, func(out string) bool { return strings.Contains(out, "=;eth0;"+tt.family) })
			addr := "192.168.7.1"
			if tt.family == "IPv6" {
				addr = linkLocal(t, hosts[0], "eth0").String()
			}
			checkResolved(t, out, tt.family, addr)
			// Everything else that is asked of a service: what services there are, and where a host is.
			if all := a.run("avahi-browse", "-atp"); !strings.Contains(all, ";_meshnet._udp;local") {
				t.Errorf("not among all services:\n%s", all)
			}
			r.stop()
			a.until("gone", 5*time.Second, func(out string) bool { return out == "" })
		})
	}
}

func (a *avahi) run(path string, args ...string) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	out, err := a.host.Run(ctx, path, args...)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// checkResolved looks at a line such as
//
//	=;eth0;IPv4;0123456789abcdef;_meshnet._udp;local;0123456789abcdef.local;192.168.7.1;41820;"t=0102030405060708" "v=1"
func checkResolved(t *testing.T, out, family, addr string) {
	t.Helper()
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ";")
		if f[0] != "=" || f[2] != family {
			continue
		}
		if len(f) != 10 || f[6] != f[3]+".local" || f[7] != addr || f[8] != "41820" ||
			!strings.Contains(f[9], `"t=0102030405060708"`) || !strings.Contains(f[9], `"v=1"`) {
			t.Errorf("resolved %q", line)
		}
		return
	}
	t.Errorf("nothing resolved by %s:\n%s", family, out)
}

// Both live on one host, and both hear what others say.
func TestAvahiSameHost(t *testing.T) {
	_, hosts := lan(t, true, "192.168.7.1/24", "192.168.7.2/24")
	a := startAvahi(t, hosts[0])
	serve(t, hosts[0], 41820, nil)
	b := serve(t, hosts[1], 41821, nil)
	b.await(ap("192.168.7.1:41820"), false, time.Second)
	a.until("both resolved", 10*time.Second, func(out string) bool {
		return strings.Contains(out, ";192.168.7.1;41820;") && strings.Contains(out, ";192.168.7.2;41821;")
	})
	// A third one, that avahi announces, is found by ours.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	publish, err := hosts[0].Start(netlab.Proc{Path: "avahi-publish", Args: []string{
		"-s", "fedcba9876543210", "_meshnet._udp", "7777", "v=1", "t=0102030405060708",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := publish.WaitOutput(ctx, "Established"); err != nil {
		t.Fatal(err)
	}
	b.await(ap("192.168.7.1:7777"), false, 5*time.Second)
	if err := publish.Stop(); err != nil {
		t.Fatal(err)
	}
	b.await(ap("192.168.7.1:7777"), true, 5*time.Second)
}

// An ordinary resolver's question, from a port of its own.
func TestRealResolver(t *testing.T) {
	_, hosts := lan(t, true, "192.168.7.1/24", "192.168.7.2/24")
	serve(t, hosts[0], 41820, nil)
	pc, err := hosts[1].ListenPacket("udp4", "192.168.7.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	buf := make([]byte, maxMessage)
	for begin := time.Now(); time.Since(begin) < 5*time.Second; {
		if _, err := pc.WriteTo(ask(t, 1, nil, serviceName+" PTR"), &group4); err != nil {
			t.Fatal(err)
		}
		pc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			continue
		}
		m, err := readMessage(buf[:n])
		if err != nil || len(m.sightings()) != 1 || from.(*net.UDPAddr).AddrPort() != ap("192.168.7.1:5353") {
			t.Errorf("from %v: %+v, %v", from, m, err)
		}
		return
	}
	t.Error("no answer")
}
