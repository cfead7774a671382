package platform

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func up(name string, addrs ...string) Link {
	return Link{Name: name, Up: true, Running: true, Addrs: prefixes(addrs...)}
}

func pointToPoint(l Link) Link { l.PointToPoint = true; return l }

func kind(l Link, k string) Link { l.Kind = k; return l }

func loopback() Link {
	l := up("lo", "127.0.0.1/8", "::1/128")
	l.Loopback = true
	return l
}

func TestTunnel(t *testing.T) {
	for _, c := range []struct {
		link Link
		want bool
	}{
		{up("eth0"), false},
		{up("enp3s0"), false},
		{up("wlan0"), false},
		{up("docker0"), false},
		{up("Ethernet 2"), false},
		{up("en0"), false},
		{up("wt"), false},
		{up("wtf"), false},
		{loopback(), false},
		{pointToPoint(loopback()), false},
		{up("wg0"), true},
		{up("wg-home"), true},
		{up("tailscale0"), true},
		{up("Tailscale"), true},
		{up("utun4"), true},
		{up("tun0"), true},
		{up("zt5u4abcde"), true},
		{up("ZeroTier One [8056c2e21c]"), true},
		{up("wt0"), true},
		{up("WireGuard Tunnel"), true},
		{pointToPoint(up("whatever")), true},
		{kind(up("home"), "wireguard"), true},
		{kind(up("home"), "tun"), true},
		{kind(up("br0"), "bridge"), false},
		{up("meshnet1"), true},
		{pointToPoint(up("ppp0")), false},
		{pointToPoint(up("wwan0")), false},
		{pointToPoint(up("pdp_ip0")), false},
	} {
		if got := c.link.Tunnel(); got != c.want {
			t.Errorf("%s (%s): got %v", c.link.Name, c.link.Kind, got)
		}
	}
}

func TestUsable(t *testing.T) {
	down := up("eth1", "192.168.9.2/24")
	down.Up = false
	unplugged := up("eth2", "192.168.8.2/24")
	unplugged.Running = false
	anycast := loopback()
	anycast.Addrs = append(anycast.Addrs, prefixes("203.0.113.5/32")...)
	linux := Host{Links: []Link{
		anycast, down, unplugged,
		up("eth0", "192.168.1.5/24", "2001:db8::5/64", "fe80::1/64", "224.0.0.5/32", "::ffff:192.168.1.5/120"),
		up("wlan0", "192.168.1.6/24", "fe80::1/64", "100.88.0.9/16"),
		pointToPoint(up("meshnet0", "100.88.1.2/16")),
		up("wg0", "10.9.0.1/24"), pointToPoint(up("ppp0", "198.51.100.7/32")),
	}}
	darwin := Host{Links: []Link{
		up("en0", "10.0.0.7/24", "fe80::c/64"), pointToPoint(up("utun3", "100.101.1.1/32", "fe80::d/64")), pointToPoint(up("gif0")),
	}}
	windows := Host{Links: []Link{up("Ethernet", "10.1.1.1/8", "fe80::7/64"), up("Tailscale", "100.99.1.1/32")}}
	for name, c := range map[string]struct {
		host           Host
		want, loopback []string
	}{
		"linux": {linux, []string{
			"203.0.113.5", "192.168.1.5", "2001:db8::5", "fe80::1%eth0", "192.168.1.6", "fe80::1%wlan0", "198.51.100.7",
		}, []string{"127.0.0.1", "::1"}},
		"darwin":  {darwin, []string{"10.0.0.7", "fe80::c%en0"}, nil},
		"windows": {windows, []string{"10.1.1.1", "fe80::7%Ethernet"}, nil},
		"nothing": {Host{}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			addrs, loop := Usable(c.host, "meshnet0", prefixes("100.88.0.0/16", "fd00:1::/48"))
			if got := texts(addrs); !slices.Equal(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
			if got := texts(loop); !slices.Equal(got, c.loopback) {
				t.Errorf("loopback %v, want %v", got, c.loopback)
			}
		})
	}
}

func texts(addrs []netip.Addr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func routed(link string, all ...string) (h Host) {
	h.Links = []Link{up(link)}
	for _, p := range prefixes(all...) {
		h.Routes = append(h.Routes, Route{Prefix: p, Link: link})
	}
	return h
}

func TestOverlaps(t *testing.T) {
	mesh := netip.MustParsePrefix("100.88.0.0/16")
	for name, c := range map[string]struct {
		host Host
		want bool
	}{
		"nothing":        {Host{}, false},
		"default":        {routed("eth0", "0.0.0.0/0", "0.0.0.0/1", "::/0", "64.0.0.0/2"), false},
		"elsewhere":      {routed("eth0", "100.89.0.0/16", "192.168.0.0/16"), false},
		"wider":          {routed("eth0", "100.64.0.0/10"), true},
		"narrower":       {routed("eth0", "100.88.7.0/24"), true},
		"our own":        {routed("meshnet0", "100.88.0.0/16"), false},
		"a link's range": {Host{Links: []Link{up("eth0", "100.88.5.5/24")}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, got := Overlaps(c.host, "meshnet0", mesh)
			if got != c.want || got && (p.Code != "route_overlap" || p.Hint == "" || p.Text == "" || p.Severity != SeverityWarning) {
				t.Errorf("got %v %+v", got, p)
			}
		})
	}
}

func TestFreePrefix4(t *testing.T) {
	seeds := [][]byte{nil, []byte("a"), []byte("b"), []byte("c"), make([]byte, 32)}
	for name, c := range map[string]struct {
		host Host
		pool netip.Prefix
	}{
		"empty":                    {Host{}, shared},
		"lan only":                 {routed("eth0", "0.0.0.0/0", "192.168.0.0/24", "10.0.0.0/8"), shared},
		"carrier's own, in part":   {routed("eth0", "100.64.0.0/11"), shared},
		"carrier's own, all of it": {routed("eth0", "100.64.0.0/10"), private},
		"tailscale's routes":       {routed("tailscale0", "100.100.100.100/32"), private},
		"a VPN's address":          {Host{Links: []Link{pointToPoint(up("x", "100.70.0.1/32"))}}, private},
		"a VPN takes all":          {routed("wg0", "0.0.0.0/0", "0.0.0.0/1"), shared},
	} {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds {
				p := FreePrefix4(c.host, seed)
				_, overlaps := Overlaps(c.host, "", p)
				if p != FreePrefix4(c.host, seed) || p.Bits() != 16 || p != p.Masked() || overlaps ||
					!c.pool.Contains(p.Addr()) || slices.ContainsFunc(occupied, p.Overlaps) {
					t.Errorf("seed %x: %v", seed, p)
				}
			}
		})
	}
	if FreePrefix4(Host{}, []byte("a")) == FreePrefix4(Host{}, []byte("b")) {
		t.Error("the seed changes nothing")
	}
	full := routed("eth0", "100.64.0.0/10", "10.0.0.0/8")
	if p := FreePrefix4(full, nil); p.Bits() != 16 || !shared.Contains(p.Addr()) {
		t.Errorf("nothing free: %v", p)
	}
}

// Every prefix but one is routed: it must be found from wherever the search begins.
func TestFreePrefix4FindsTheLastOne(t *testing.T) {
	free := netip.MustParsePrefix("100.77.0.0/16")
	var all []string
	for i := range 64 {
		if p := nth(shared, uint32(i)); p != free {
			all = append(all, p.String())
		}
	}
	for _, seed := range []string{"a", "b", "c", "d"} {
		if got := FreePrefix4(routed("eth0", all...), []byte(seed)); got != free {
			t.Errorf("seed %s: %v", seed, got)
		}
	}
}

func TestSame(t *testing.T) {
	a := Host{Links: []Link{loopback(), up("eth0", "10.0.0.1/24", "10.0.0.2/24")}, Routes: routed("eth0", "0.0.0.0/0", "10.0.0.0/24").Routes}
	b := Host{Links: []Link{up("eth0", "10.0.0.2/24", "10.0.0.1/24"), loopback()}, Routes: routed("eth0", "10.0.0.0/24", "0.0.0.0/0").Routes}
	b.Links[0].Index, a.Links[1].Index = 2, 2
	if !a.Same(b, "meshnet0") {
		t.Error("order matters")
	}
	with := Host{append(slices.Clone(b.Links), up("meshnet0", "100.88.0.1/16")), append(slices.Clone(b.Routes), routed("meshnet0", "100.88.0.0/16").Routes...)}
	if !a.Same(with, "meshnet0") || a.Same(with, "other") {
		t.Error("own link")
	}
	b.Routes[1].Gateway = netip.MustParseAddr("10.0.0.254")
	if a.Same(b, "") {
		t.Error("another gateway is the same")
	}
}

func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		changes, began := make(chan struct{}, 1), time.Now()
		var calls []time.Duration
		done := make(chan struct{})
		go func() {
			Coalesce(ctx, changes, func() { calls = append(calls, time.Since(began)) })
			close(done)
		}()
		for range 25 { // a burst of 2.4 s
			select {
			case changes <- struct{}{}:
			default:
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		changes <- struct{}{}
		synctest.Wait()
		cancel()
		<-done
		want := []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 62500 * time.Millisecond}
		if !slices.Equal(calls, want) {
			t.Errorf("calls at %v, want %v", calls, want)
		}
	})
}

func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		looks := 0
		var calls atomic.Int32
		look := func() (Host, error) {
			looks++
			switch {
			case looks == 3:
				return Host{}, errors.New("not now")
			case looks < 5:
				return routed("eth0", "10.0.0.0/8"), nil
			}
			return routed("eth0", "10.1.0.0/16"), nil
		}
		done := make(chan error)
		go func() {
			done <- Poll(ctx, slog.New(slog.DiscardHandler), func() string { return "" }, look, func() { calls.Add(1) })
		}()
		time.Sleep(3*PollInterval + time.Second)
		synctest.Wait()
		if n := calls.Load(); n != 0 {
			t.Errorf("%d calls before the change", n)
		}
		time.Sleep(10 * PollInterval)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || calls.Load() != 1 {
			t.Errorf("err %v, %d calls, want 1", err, calls.Load())
		}
	})
}

func TestPolledSystem(t *testing.T) {
	p := NewPolled("darwin", nil)
	if err := p.Apply(Desired{}); !errors.Is(err, ErrNoTUN) {
		t.Errorf("apply: %v", err)
	}
	host, err := p.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(host.Links, func(l Link) bool { return l.Loopback })
	if i < 0 || host.Links[i].Index == 0 || host.Links[i].MTU == 0 {
		t.Errorf("no loopback in %+v", host)
	}
	if p.Clear() != nil || p.CleanLeftovers("meshnet0") != nil {
		t.Error("something to do")
	}
	mine := Desired{Interface: "meshnet0", Addrs: prefixes("100.88.0.1/16"), Routes: prefixes("100.88.0.0/16")}
	if got := OverlapProblems(routed("eth0", "100.88.0.0/17"), mine); len(got) != 1 {
		t.Errorf("problems: %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Watch(ctx, func() { t.Error("changed") }); !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v", err)
	}
}
