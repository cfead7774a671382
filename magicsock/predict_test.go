package magicsock

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/netmap"
)

// TestGuessTarget takes the first address that a peer named and that is the internet's, and nothing else.
func TestGuessTarget(t *testing.T) {
	for name, c := range map[string]struct{ named, want string }{
		"public":     {"10.0.0.2:1 100.64.0.9:2 198.51.100.1:3 203.0.113.1:4", "198.51.100.1:3"},
		"at home":    {named: "192.168.1.2:1 172.16.0.1:2"},
		"IPv6":       {named: "[2001:db8::1]:1 [::1]:2"},
		"loopback":   {named: "127.0.0.1:1"},
		"link-local": {named: "169.254.1.1:1"},
		"multicast":  {named: "224.0.0.1:1 255.255.255.255:2"},
		"ourselves":  {named: "203.0.113.77:7"},
		"the tunnel": {named: "100.99.1.1:1"},
		"nothing":    {},
	} {
		b := newBench(t, false)
		b.core.setOwn([]netip.AddrPort{netip.MustParseAddrPort("203.0.113.77:7")})
		b.core.network.Prefix4 = netip.MustParsePrefix("100.99.0.0/16")
		b.p.named = addrPorts(c.named)
		got, ok := b.core.guessTarget(b.p)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%s: %v, want %q", name, got, c.want)
		}
	}
}

func addrPorts(text string) (all []netip.AddrPort) {
	for _, word := range strings.Fields(text) {
		all = append(all, netip.MustParseAddrPort(word))
	}
	return all
}

// TestGuessWaitsForBothCalls guesses only at what a fresh call named, a second after it, and when we called too.
func TestGuessWaitsForBothCalls(t *testing.T) {
	call := &disco.Signal{Kind: disco.CallMeMaybe, Endpoints: addrPorts("198.51.100.1:3")}
	for name, c := range map[string]struct {
		ours, theirs netmap.NAT
		steps        func(b *bench)
		want         bool
	}{
		"easy to hard": {netmap.NATEasy, netmap.NATHard, func(b *bench) { b.core.heardCall(b.now, b.p, call) }, true},
		"open to hard": {netmap.NATNone, netmap.NATHard, func(b *bench) { b.core.heardCall(b.now, b.p, call) }, true},
		"hard to easy": {netmap.NATHard, netmap.NATEasy, func(b *bench) { b.core.heardCall(b.now, b.p, call) }, true},
		"hard to hard": {netmap.NATHard, netmap.NATHard, func(b *bench) { b.core.heardCall(b.now, b.p, call) }, false},
		"easy to easy": {netmap.NATEasy, netmap.NATEasy, func(b *bench) { b.core.heardCall(b.now, b.p, call) }, false},
		"unknown":      {netmap.NATUnknown, netmap.NATHard, func(b *bench) { b.core.heardCall(b.now, b.p, call) }, false},
		"no call":      {netmap.NATEasy, netmap.NATHard, func(*bench) {}, false},
		"an old call": {netmap.NATEasy, netmap.NATHard, func(b *bench) {
			b.core.heardCall(b.now.Add(-namedFor), b.p, call)
		}, false},
		"we did not call": {netmap.NATEasy, netmap.NATHard, func(b *bench) {
			b.core.heardCall(b.now, b.p, call)
			b.p.called = time.Time{}
		}, false},
		"nobody waits": {netmap.NATEasy, netmap.NATHard, func(b *bench) {
			b.core.heardCall(b.now, b.p, call)
			b.p.wantedAt = time.Time{}
		}, false},
	} {
		b := newBench(t, false)
		b.core.nat, b.p.nat = c.ours, c.theirs
		b.p.wantedAt, b.p.called = b.now, b.now
		c.steps(b)
		if b.p.attempt != nil {
			t.Errorf("%s: guessed at once", name)
		}
		b.now = b.now.Add(guessAfter)
		b.core.checkGuess(b.now, b.p)
		if (b.p.attempt != nil) != c.want {
			t.Errorf("%s: guessed: %v", name, b.p.attempt != nil)
		}
	}
}
