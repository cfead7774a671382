package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pair is two hosts on one switch.
func pair(t *testing.T) (a, b *Host, ia, ib *Iface) {
	t.Helper()
	lab := New(t)
	a, b = lab.Host("a"), lab.Host("b")
	sw := lab.Switch("lan")
	ia = a.Plug(sw, "10.1.0.1/24", "fd01::1/64")
	ib = b.Plug(sw, "10.1.0.2/24", "fd01::2/64")
	return a, b, ia, ib
}

func TestPing(t *testing.T) {
	a, b, _, _ := pair(t)
	for _, addr := range []string{"10.1.0.2", "fd01::2", "127.0.0.1", "::1"} {
		rtt, err := a.Ping(within(t, 2*time.Second), netip.MustParseAddr(addr))
		if err != nil || rtt <= 0 {
			t.Errorf("ping %s: %v, %v", addr, rtt, err)
		}
	}
	if _, err := a.Ping(within(t, 100*time.Millisecond), netip.MustParseAddr("10.1.0.9")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping of nobody: %v, want deadline exceeded", err)
	}
	if _, err := b.Ping(within(t, 100*time.Millisecond), netip.MustParseAddr("10.9.0.9")); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("ping without a route: %v, want network unreachable", err)
	}
}

// A cable joins two hosts at once, and its MTU is that of both ends.
func TestCable(t *testing.T) {
	lab := New(t)
	a, b := lab.Host("a"), lab.Host("b")
	a.Cable(b, "10.1.0.1/24", "10.1.0.2/24", 1280)
	a.Cable(b, "10.2.0.1/24", "10.2.0.2/24", 0)
	for _, addr := range []string{"10.1.0.2", "10.2.0.2"} {
		if _, err := a.Ping(within(t, 2*time.Second), netip.MustParseAddr(addr)); err != nil {
			t.Errorf("ping %s: %v", addr, err)
		}
	}
	for _, h := range []*Host{a, b} {
		if first, second := h.link("eth0").Attrs().MTU, h.link("eth1").Attrs().MTU; first != 1280 || second != 1500 {
			t.Errorf("%s: MTU %d and %d, want 1280 and 1500", h.Name(), first, second)
		}
	}
}

func TestPingUntil(t *testing.T) {
	a, b, _, ib := pair(t)
	target := netip.MustParseAddr("10.1.0.2")
	ib.Unplug()
	const out = 150 * time.Millisecond
	plugged := make(chan struct{})
	go func() {
		defer close(plugged)
		<-time.After(out) // the outage itself is what the test is about
		if err := ib.sw.host.links.LinkSetUp(ib.port); err != nil {
			t.Error(err)
		}
	}()
	took, err := a.PingUntil(within(t, 5*time.Second), target)
	<-plugged
	if err != nil || took < out || took > 3*time.Second {
		t.Errorf("first reply after %v, %v; want a little over %v", took, err, out)
	}
	if _, err := b.PingUntil(within(t, 100*time.Millisecond), netip.MustParseAddr("10.9.0.1")); err == nil ||
		!strings.Contains(err.Error(), "not sent") {
		t.Errorf("without a route: %v, want why it was not sent", err)
	}
}

func TestDoStaysInside(t *testing.T) {
	a, b, _, _ := pair(t)
	ln, err := a.Listen("tcp", "10.1.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	c, err := b.Dial(within(t, 2*time.Second), "tcp", "10.1.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	local, err := a.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if c, err := net.DialTimeout("tcp", local.Addr().String(), time.Second); err == nil {
		c.Close()
		t.Error("the host's loopback answers outside of the lab")
	}
	want := errors.New("from fn")
	if err := a.Do(func() error { return b.Do(func() error { return want }) }); err != want {
		t.Errorf("Do returned %v, want fn's error", err)
	}
}

func TestIfaceStates(t *testing.T) {
	a, _, ia, _ := pair(t)
	b4, b6 := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd01::2")
	reach := func(what string, want bool) {
		t.Helper()
		for _, addr := range []netip.Addr{b4, b6} {
			wait := 2 * time.Second
			if !want {
				wait = 100 * time.Millisecond
			}
			if _, err := a.PingUntil(within(t, wait), addr); (err == nil) != want {
				t.Errorf("%s: ping %v: %v, want reachable %v", what, addr, err, want)
			}
		}
	}
	reach("plugged", true)
	ia.Unplug()
	reach("unplugged", false)
	ia.Replug()
	reach("replugged", true)
	ia.Cut()
	ia.Cut()
	reach("cut", false)
	if state := a.link("eth0").Attrs().OperState; state != netlink.OperUp {
		t.Errorf("a cut cable shows as %v", state)
	}
	ia.Mend()
	ia.Mend()
	reach("mended", true)
	ia.SetDown()
	reach("down", false)
	ia.SetUp()
	reach("up", true)
	ia.SetAddr("10.1.0.7/24", "fd01::7/64")
	reach("with a new address", true)
	ia.SetMTU(1300)
	ifi := a.link(ia.Name()).Attrs()
	if ifi.MTU != 1300 || ia.Addr() != netip.MustParseAddr("10.1.0.7") {
		t.Errorf("mtu %d, address %v", ifi.MTU, ia.Addr())
	}
	ia.Remove()
	reach("removed", false)
}

func TestRouterRestoresRoutes(t *testing.T) {
	lab := New(t)
	a, b, r := lab.Host("a"), lab.Host("b"), lab.Router("r")
	left, right := lab.Switch("left"), lab.Switch("right")
	ia := a.Plug(left, "10.1.0.2/24", "fd01::2/64")
	b.Plug(right, "10.2.0.2/24", "fd02::2/64")
	r.Plug(left, "10.1.0.1/24", "fd01::1/64")
	r.Plug(right, "10.2.0.1/24", "fd02::1/64")
	a.DefaultRoute("10.1.0.1")
	a.DefaultRoute("fd01::1")
	b.Route("10.1.0.0/24", "10.2.0.1")
	b.Route("fd01::/64", "fd02::1")
	for _, when := range []string{"at first", "after down and up"} {
		for _, addr := range []string{"10.2.0.2", "fd02::2"} {
			if _, err := a.PingUntil(within(t, 2*time.Second), netip.MustParseAddr(addr)); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		ia.SetDown()
		ia.SetUp()
	}
}

func TestProcess(t *testing.T) {
	a, _, _, _ := pair(t)
	out, err := a.Run(within(t, 5*time.Second), "sh", "-c", "ls /sys/class/net; cat /proc/net/dev | grep -c eth0")
	if err != nil || !strings.Contains(out, "eth0") || !strings.HasSuffix(out, "1\n") {
		t.Errorf("inside: %q, %v; want the host's interfaces", out, err)
	}
	if _, err := a.Run(within(t, 5*time.Second), "sh", "-c", "echo oops >&2; exit 3"); err == nil ||
		!strings.Contains(err.Error(), "oops") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("failing program: %v, want its status and output", err)
	}
	if _, err := a.Run(within(t, 50*time.Millisecond), "sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow program: %v, want deadline exceeded", err)
	}
	if _, err := a.Start(Proc{Path: "/does/not/exist"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v, want not exist", err)
	}
}

func TestProcessStop(t *testing.T) {
	a, _, _, _ := pair(t)
	start := func(script string) *Process {
		t.Helper()
		p, err := a.Start(Proc{Path: "sh", Args: []string{"-c", script}, Env: []string{"GREETING=ready"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.WaitOutput(within(t, 5*time.Second), "ready"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	polite := start(`trap 'echo bye; exit 0' TERM; echo $GREETING; while :; do sleep 0.01; done`)
	if err := polite.Stop(); err != nil || !strings.Contains(polite.Output(), "bye") {
		t.Errorf("stop: %v, output %q", err, polite.Output())
	}
	if err := start(`echo $GREETING; exec sleep 60`).Stop(); err != nil {
		t.Errorf("stop of a program that dies of it: %v", err)
	}
	if err := start(`trap 'exit 4' TERM; echo $GREETING; while :; do sleep 0.01; done`).Stop(); err == nil {
		t.Error("stop of a program that failed: no error")
	}
	killed := start(`echo $GREETING; exec sleep 60`)
	killed.Kill()
	if err := killed.Wait(); err == nil {
		t.Error("killed program: no error")
	}
	if !ended(killed.Pid()) {
		t.Error("killed program is still there")
	}
}

// A paused program does nothing, goes on when it is resumed, and ends like any other.
func TestProcessPause(t *testing.T) {
	a, _, _, _ := pair(t)
	start := func() *Process {
		t.Helper()
		p, err := a.Start(Proc{Path: "sh", Args: []string{"-c", "trap 'echo bye; exit 0' TERM INT; while :; do echo tick; sleep 0.01; done"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.WaitOutput(within(t, soon), "tick"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := start()
	p.Pause()
	deadline := time.Now().Add(soon)
	for before := -1; before != len(p.Output()); {
		if time.Now().After(deadline) {
			t.Fatal("it runs on while paused")
		}
		before = len(p.Output())
		<-time.After(5 * 10 * time.Millisecond) // several ticks long: their absence is what is looked for
	}
	silent := p.Output()
	p.Resume()
	for p.Output() == silent {
		if time.Now().After(deadline) {
			t.Fatal("it does not go on")
		}
		<-time.After(time.Millisecond)
	}
	p.Pause()
	if err := p.Stop(); err != nil || !strings.Contains(p.Output(), "bye") {
		t.Errorf("stop of a paused program: %v, output %q", err, p.Output())
	}
	start().Pause() // the world's end ends it without waiting
}

// A world leaves nothing behind, not even what a program has started.
func TestLabEndsPrograms(t *testing.T) {
	var pids []int
	t.Run("world", func(t *testing.T) {
		a, _, _, _ := pair(t)
		p, err := a.Start(Proc{Path: "sh", Args: []string{"-c", "sleep 60 & echo child $!.; exec sleep 60"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.WaitOutput(within(t, 5*time.Second), "."); err != nil {
			t.Fatal(err)
		}
		var child int
		if _, err := fmt.Sscanf(p.Output(), "child %d.", &child); err != nil {
			t.Fatal(err)
		}
		pids = []int{p.Pid(), child}
	})
	for _, pid := range pids {
		deadline := time.Now().Add(soon) // a killed child of a child dies on its own time
		for !ended(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d outlived its world", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// ended reports whether a process is gone, or dead and not yet collected by whoever inherited it.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

func TestOwnFiles(t *testing.T) {
	a, b, _, _ := pair(t)
	before, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Skipf("no /etc/hosts here: %v", err)
	}
	// Written the way a careful program does, by renaming over it.
	if _, err := a.Run(within(t, 5*time.Second), "sh", "-c", "echo changed >/etc/hosts.new && mv /etc/hosts.new /etc/hosts && echo x >/run/x"); err != nil {
		t.Fatal(err)
	}
	read := func(h *Host) (got []byte) {
		if err := h.Inside(func() (err error) { got, err = os.ReadFile("/etc/hosts"); return err }); err != nil {
			t.Error(err)
		}
		return got
	}
	if got := read(a); string(got) != "changed\n" {
		t.Errorf("on the host itself: %q", got)
	}
	after, _ := os.ReadFile("/etc/hosts")
	if string(read(b)) != string(before) || string(after) != string(before) {
		t.Error("a host's change of /etc shows elsewhere")
	}
	if _, err := os.Stat("/run/x"); err == nil {
		t.Error("a host's /run shows outside")
	}
}

func TestNeed(t *testing.T) {
	for _, tt := range []struct {
		ci                  string
		ok, failed, skipped bool
	}{
		{ci: "", ok: true},
		{ci: "1", ok: true},
		{ci: "", skipped: true},
		{ci: "1", failed: true},
	} {
		t.Setenv("MESHNET_CI", tt.ci)
		r := &recorder{TB: t}
		Need(r, tt.ok, "reason")
		if r.failed != tt.failed || r.skipped != tt.skipped {
			t.Errorf("MESHNET_CI=%q, ok %v: failed %v, skipped %v", tt.ci, tt.ok, r.failed, r.skipped)
		}
	}
}

// recorder is a test that notes how it would have ended.
type recorder struct {
	testing.TB
	failed, skipped bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Fatalf(string, ...any) { r.failed = true }
func (r *recorder) Skipf(string, ...any)  { r.skipped = true }
