package magicsock

import (
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/netmap"
)

// madePath is a path with that much known of it.
func madePath(by way, rtt time.Duration, does ...func(*path)) *path {
	p := newPath(by)
	p.rtt, p.lastPong, p.fit = rtt, time.Unix(1e9, 0), fitFull
	for _, do := range does {
		do(p)
	}
	return p
}

func TestBetter(t *testing.T) {
	const ms = time.Millisecond
	at := func(s string) way { return way{addr: netip.MustParseAddrPort(s)} }
	public, private, local, loopback := at("192.0.2.1:1"), at("10.0.0.1:1"), at("169.254.0.1:1"), at("127.0.0.1:1")
	six, member := at("[2001:db8::1]:1"), way{addr: addrA, sid: 7}
	dead := func(p *path) { p.dead = true }
	small := func(p *path) { p.fit = fitSmall }
	asked := func(p *path) { p.fit = fitUnknown }
	silent := func(p *path) { p.lastPong = time.Time{} }
	vouched := func(p *path) { p.lastPong, p.vouch = time.Time{}, true }
	for name, c := range map[string]struct {
		a, b *path
		want bool
	}{
		"anything before nothing":       {madePath(byRelay, 0, silent), nil, true},
		"but not what is silent":        {madePath(public, 0, silent), nil, false},
		"a little faster":               {madePath(public, 18*ms), madePath(public, 20*ms), false},
		"a fifth faster":                {madePath(public, 15*ms), madePath(public, 20*ms), true},
		"below a millisecond":           {madePath(public, 200*time.Microsecond), madePath(public, time.Millisecond), false},
		"direct is better, though slow": {madePath(public, 300*ms), madePath(byRelay, ms), true},
		"and by a member":               {madePath(member, 300*ms), madePath(byRelay, ms), true},
		"direct before a member":        {madePath(public, 300*ms), madePath(member, ms), true},
		"a fast relay is not better":    {madePath(byRelay, ms), madePath(public, 300*ms), false},
		"nor a fast member":             {madePath(member, ms), madePath(public, 300*ms), false},
		"than one that died it is":      {madePath(byRelay, 0, silent), madePath(public, ms, dead), true},
		"dead before dead":              {madePath(public, ms, dead), madePath(byRelay, ms, dead), false},
		"small waits":                   {madePath(public, ms, small), madePath(byRelay, 50*ms), false},
		"small yields":                  {madePath(byRelay, 50*ms), madePath(public, ms, small), true},
		"not asked yet waits":           {madePath(public, ms, asked), madePath(byRelay, 50*ms), false},
		"not asked yet stays":           {madePath(byRelay, 50*ms), madePath(public, ms, asked), false},
		"small before nothing":          {madePath(public, ms, small), madePath(public, ms, dead), true},
		"expected before small":         {madePath(byRelay, 0, silent), madePath(public, ms, small), true},
		"proven before vouched":         {madePath(public, 300*ms), madePath(public, 0, vouched), true},
		"private at the same latency":   {madePath(private, 20*ms), madePath(public, 20*ms), false},
		"private, a little faster":      {madePath(private, 19*ms), madePath(public, 20*ms), true},
		"link-local":                    {madePath(local, 20*ms), madePath(public, 20*ms), true},
		"loopback":                      {madePath(loopback, 20*ms), madePath(local, 20*ms), true},
		"IPv6 at the same latency":      {madePath(six, 20*ms), madePath(public, 20*ms), false},
		"IPv6, a little faster":         {madePath(six, 17*ms), madePath(public, 20*ms), true},
	} {
		if got := better(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if c.b != nil && better(c.a, c.b) && better(c.b, c.a) {
			t.Errorf("%s: each is better than the other", name)
		}
	}
}

// TestReasons asks why a path is what it is.
func TestReasons(t *testing.T) {
	relay := func(b *bench) {
		b.core.contact(b.now, b.p.id)
		b.pong(netip.AddrPort{}, time.Millisecond)
	}
	later := func(b *bench) {
		relay(b)
		for range 20 {
			b.core.contact(b.now, b.p.id)
			b.pass(500 * time.Millisecond)
			b.pong(netip.AddrPort{}, time.Millisecond)
		}
	}
	for name, c := range map[string]struct {
		addrs        []netip.AddrPort
		ours, theirs netmap.NAT
		play         func(b *bench)
		want         string
	}{
		"at first":         {[]netip.AddrPort{addrA}, 0, 0, relay, "relay until something better answers"},
		"nothing answered": {[]netip.AddrPort{addrA}, netmap.NATEasy, netmap.NATHard, later, "relay: no direct candidate answered"},
		"nothing known":    {nil, 0, 0, later, "relay: no direct address is known"},
		"both hard":        {[]netip.AddrPort{addrA}, netmap.NATHard, netmap.NATHard, later, "relay: both NATs are hard (symmetric)"},
		"blocked here":     {[]netip.AddrPort{addrA}, netmap.NATBlocked, 0, relay, "relay: UDP is blocked here"},
		"blocked there":    {[]netip.AddrPort{addrA}, 0, netmap.NATBlocked, relay, "relay: UDP is blocked there"},
		"direct":           {[]netip.AddrPort{addrA}, 0, 0, func(b *bench) { relay(b); b.pong(addrA, time.Millisecond) }, "a direct path answered"},
		"by a member": {[]netip.AddrPort{addrA}, 0, 0, func(b *bench) {
			b.core.addSession(b.now, b.p, way{addr: addrB, sid: 9}, b.p)
			relay(b)
			for range 60 {
				b.core.contact(b.now, b.p.id)
				b.pass(100 * time.Millisecond)
				b.pong(addrB, time.Millisecond)
			}
		}, "member: no direct candidate answered"},
	} {
		b := newBench(t, true, c.addrs...)
		b.core.nat, b.p.nat = c.ours, c.theirs
		c.play(b)
		if got := b.core.info(b.now, b.p).Reason; got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
