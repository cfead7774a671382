package magicsock

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/sim"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/netmap"
)

// caller seals signals of the bench's member.
type caller struct {
	b    *bench
	seal disco.Key
	id   *identity.Identity
}

func newCaller(t *testing.T, b *bench) *caller {
	t.Helper()
	other := identity.FromSeed(identity.Secret{2})
	shared, err := other.DiscoShared(b.core.self.Disco())
	if err != nil {
		t.Fatal(err)
	}
	return &caller{b, disco.NewKey(shared, identity.Secret{9}, identity.NetworkID{7}, other.ID(), b.core.self.ID()), other}
}

// call is a sealed call-me-maybe.
func (c *caller) call(at time.Time, addrs ...netip.AddrPort) []byte {
	tag := disco.TagOf(identity.Secret{9}, c.id.ID(), c.b.now.Unix()/3600)
	return c.seal.SealSignal(tag, &disco.Signal{Kind: disco.CallMeMaybe, TxID: disco.NewTxID(), Time: at, Endpoints: addrs, NAT: 3})
}

// pinged lists where the core sends since the last time, and takes the sends out.
func (b *bench) pinged() (to []netip.AddrPort) {
	sends, _ := b.core.take()
	for _, s := range sends {
		if isContact(s.pkt) && s.addr.IsValid() {
			to = append(to, s.addr)
		}
	}
	slices.SortFunc(to, netip.AddrPort.Compare)
	return to
}

func TestCallIsFollowedOnce(t *testing.T) {
	b := newBench(t, true)
	c := newCaller(t, b)
	b.core.take()
	pkt := c.call(b.now, addrA, addrB)
	b.core.handleSignal(b.now, pkt)
	if got := b.pinged(); !slices.Equal(got, []netip.AddrPort{addrA, addrB}) {
		t.Fatalf("pings to %v", got)
	}
	if b.p.nat != netmap.NATHard || b.core.count.callsReceived.Load() != 1 {
		t.Errorf("NAT %v, %d calls", b.p.nat, b.core.count.callsReceived.Load())
	}
	b.pass(pingTimeout)
	b.core.take()
	for range 5 {
		b.core.handleSignal(b.now, pkt)
		b.pass(10 * time.Second)
	}
	if got := b.pinged(); len(got) != 0 || b.core.count.replayedSignal.Load() != 5 {
		t.Errorf("repeated: pings to %v, %d refused", got, b.core.count.replayedSignal.Load())
	}
	for _, off := range []time.Duration{-3 * time.Minute, 3 * time.Minute, -24 * time.Hour} {
		b.core.handleSignal(b.now, c.call(b.now.Add(off), addrC))
	}
	if got := b.pinged(); len(got) != 0 || b.core.count.lateSignal.Load() != 3 {
		t.Errorf("of another time: pings to %v, %d refused", got, b.core.count.lateSignal.Load())
	}
	for i := range pkt {
		bad := slices.Clone(pkt)
		bad[i] ^= 1
		b.core.handleSignal(b.now, bad)
	}
	if got := b.pinged(); len(got) != 0 {
		t.Errorf("forged: pings to %v", got)
	}
}

// TestCallByItsOwnClock takes calls by the clock that the peer's pongs told.
func TestCallByItsOwnClock(t *testing.T) {
	b := newBench(t, true)
	c := newCaller(t, b)
	b.p.clock, b.p.clockKnown = 20*time.Minute, true
	b.core.handleSignal(b.now, c.call(b.now, addrA))
	b.core.handleSignal(b.now, c.call(b.now.Add(20*time.Minute), addrB))
	if got := b.pinged(); !slices.Equal(got, []netip.AddrPort{addrB}) {
		t.Fatalf("pings to %v", got)
	}
}

// TestReplayWindowIsClosed sends as many calls as are acted on for as long as one is valid: the first is still known.
func TestReplayWindowIsClosed(t *testing.T) {
	b := newBench(t, true)
	c := newCaller(t, b)
	first := c.call(b.now, addrA)
	start := b.now
	b.core.handleSignal(b.now, first)
	for b.now.Sub(start) < clockSlack-time.Second {
		b.pass(250 * time.Millisecond)
		b.core.handleSignal(b.now, c.call(b.now, addrB))
	}
	before := b.core.count.callsReceived.Load()
	b.core.handleSignal(b.now, first)
	if b.core.count.callsReceived.Load() != before {
		t.Fatal("a recorded call is followed again while it is valid")
	}
}

// TestCallsThatPointElsewhere names addresses that can be no peer, or belong to others.
func TestCallsThatPointElsewhere(t *testing.T) {
	b := newBench(t, false)
	c := newCaller(t, b)
	b.core.network.Prefix4 = netip.MustParsePrefix("100.64.0.0/16")
	b.core.network.Prefix6 = netip.MustParsePrefix("fd12:3456:789a::/48")
	b.core.setOwn([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.50:41820")})
	var bad []netip.AddrPort
	for _, s := range []string{
		"127.0.0.1:22", "127.8.9.1:53", "[::1]:631", "224.0.0.251:5353", "[ff02::1]:41820", "255.255.255.255:41820",
		"0.1.2.3:41820", "240.1.2.3:41820", "100.64.3.4:41820", "[fd12:3456:789a:1::5]:41820", "192.0.2.50:41820",
		"[fe80::1]:41820", // we have no link with such addresses
	} {
		bad = append(bad, netip.MustParseAddrPort(s))
	}
	b.core.handleSignal(b.now, c.call(b.now, append(slices.Clone(bad), addrA)...))
	if got := b.pinged(); !slices.Equal(got, []netip.AddrPort{addrA}) {
		t.Fatalf("pings to %v", got)
	}
	if len(b.p.paths) != 1 || b.core.count.refusedAddr.Load() < uint64(len(bad)-1) {
		t.Errorf("%d paths, %d refused", len(b.p.paths), b.core.count.refusedAddr.Load())
	}
}

// TestCallsAreNoWeapon has a member call without end, and name the addresses of a victim each time: what those get is
// bounded, whatever the calls say.
func TestCallsAreNoWeapon(t *testing.T) {
	for name, address := range map[string]func(i, j int) netip.AddrPort{
		"one address": func(int, int) netip.AddrPort { return addrA },
		"one network": func(_, j int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(j + 1)}), 53)
		},
		"many ports": func(i, j int) netip.AddrPort { return netip.AddrPortFrom(addrA.Addr(), uint16(1000+32*i+j)) },
		"all networks": func(i, j int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), byte(j + 1)}), 53)
		},
		"always others": func(i, j int) netip.AddrPort {
			var ip [4]byte
			binary.BigEndian.PutUint32(ip[:], 0x14000000+uint32(i*32+j)*256+7)
			return netip.AddrPortFrom(netip.AddrFrom4(ip), 53)
		},
	} {
		b := newBench(t, true)
		c := newCaller(t, b)
		packets, bytes, single := 0, 0, make(map[netip.AddrPort]int)
		for i := range 600 {
			addrs := make([]netip.AddrPort, disco.MaxEndpoints)
			for j := range addrs {
				addrs[j] = address(i, j)
			}
			b.core.handleSignal(b.now, c.call(b.now, addrs...))
			b.pass(100 * time.Millisecond)
			sends, _ := b.core.take()
			for _, s := range sends {
				if s.addr.IsValid() {
					packets++
					bytes += len(s.pkt)
					single[s.addr]++
					if len(s.pkt) > 128 {
						t.Fatalf("%s: %d bytes to an address that never answered", name, len(s.pkt))
					}
				}
			}
		}
		most := 0
		for _, n := range single {
			most = max(most, n)
		}
		t.Logf("%s: %d packets, %d bytes in a minute, %d to one address", name, packets, bytes, most)
		if packets > 64+20*60 || most > 5*60 {
			t.Errorf("%s: %d packets in a minute, %d to one address", name, packets, most)
		}
		if len(b.p.paths) > maxPaths {
			t.Errorf("%s: %d paths", name, len(b.p.paths))
		}
	}
}

// TestOwnEndpointsAreTellable has calls name only what another host can use, once each.
func TestOwnEndpointsAreTellable(t *testing.T) {
	b := newBench(t, true)
	var all []netip.AddrPort
	for _, s := range []string{
		"192.0.2.9:1", "127.0.0.1:1", "[::1]:1", "[::]:1", "0.0.0.0:1", "192.0.2.9:0", "[fe80::1%eth0]:1", "[fe80::1%eth1]:1",
		"[::ffff:192.0.2.9]:1", "[2001:db8::9]:1",
	} {
		all = append(all, netip.MustParseAddrPort(s))
	}
	for i := range 100 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 7))
	}
	b.core.setEndpoints(b.now, all, netmap.NATEasy)
	got := b.core.endpoints
	want := []netip.AddrPort{all[0], netip.MustParseAddrPort("[fe80::1]:1"), all[9]}
	if len(got) != disco.MaxEndpoints || !slices.Equal(got[:3], want) {
		t.Fatalf("%d endpoints, %v", len(got), got[:3])
	}
	b.core.contact(b.now, b.p.id) // whose seal panics for others
	if b.core.count.callsSent.Load() != 1 {
		t.Error("no call")
	}
}

// TestSimCallsEnd counts the calls between two that cannot reach each other directly: they do not answer each other
// without end, and become rare.
func TestSimCallsEnd(t *testing.T) {
	m := newMatrix(simSeed, sim.Symmetric, sim.Symmetric)
	every(m.w, 250*time.Millisecond, m.w.Now().Add(time.Hour), func() {
		m.a.sendData(m.b)
		m.b.sendData(m.a)
	})
	m.w.RunFor(10 * time.Second)
	first := m.a.core.count.callsSent.Load() + m.b.core.count.callsSent.Load()
	m.w.RunFor(30 * time.Minute)
	rest := m.a.core.count.callsSent.Load() + m.b.core.count.callsSent.Load() - first
	t.Logf("%d calls in ten seconds, %d in half an hour after them", first, rest)
	if first > 14 || rest > 2*2*60 || rest < 60 {
		t.Fatalf("%d calls in ten seconds, %d in half an hour after them", first, rest)
	}
	m.w.RunFor(35 * time.Minute) // the data ends
	before := m.a.core.count.callsSent.Load() + m.b.core.count.callsSent.Load()
	m.w.RunFor(time.Hour)
	if n := m.a.core.count.callsSent.Load() + m.b.core.count.callsSent.Load() - before; n != 0 {
		t.Fatalf("%d calls of idle peers", n)
	}
}

// TestSimCallByControl has no relay server: control sessions carry the calls.
func TestSimCallByControl(t *testing.T) {
	m := newMatrix(simSeed, sim.PortRestricted, sim.PortRestricted)
	m.relay.setDown(true)
	common := &simRelay{world: m.w, delay: 30 * time.Millisecond, nodes: m.relay.nodes}
	for _, n := range m.relay.nodes {
		n.control, n.core.carried = common, true
	}
	start := m.w.Now()
	m.talk(start.Add(10 * time.Second))
	if !m.w.RunUntil(m.direct, 3*time.Second) {
		t.Fatal("no direct path")
	}
	t.Logf("direct after %v", m.w.Now().Sub(start))
}

// TestOutcomesAreCounted plays one contact of each outcome, and expects exactly what is counted.
func TestOutcomesAreCounted(t *testing.T) {
	deltas := func(b *bench, f func()) map[string]uint64 {
		before := b.core.count.snapshot()
		f()
		diff := make(map[string]uint64)
		for name, n := range b.core.count.snapshot() {
			if d := n - before[name]; d != 0 && (name[:4] == "dial" || name[:4] == "punc" || name == "calls_sent") {
				diff[name] = d
			}
		}
		return diff
	}
	for name, c := range map[string]struct {
		leg  bool
		play func(b *bench)
		want map[string]uint64
	}{
		"direct": {false, func(b *bench) {
			b.core.contact(b.now, b.p.id)
			b.pong(addrA, 10*time.Millisecond)
			b.pass(10 * time.Second)
		}, map[string]uint64{"dial_attempts": 1, "dial_direct": 1}},
		"nothing": {false, func(b *bench) {
			b.core.contact(b.now, b.p.id)
			b.pass(10 * time.Second)
		}, map[string]uint64{"dial_attempts": 1, "dial_failures": 1}},
		"gone while packets go there": {false, func(b *bench) {
			b.up(addrA)
			for range 10 {
				b.sendOn()
			}
			b.core.contact(b.now, b.p.id)
			b.sendOn()
			b.core.contact(b.now, b.p.id) // a handshake is tried again
			for range 20 {
				b.sendOn()
			}
		}, map[string]uint64{"dial_attempts": 2, "dial_direct": 1, "dial_failures": 1}},
		"by relay, and punched": {true, func(b *bench) {
			b.core.contact(b.now, b.p.id)
			b.pong(netip.AddrPort{}, 40*time.Millisecond)
			b.core.take()
			b.core.conn.Connected(b.p.id)
			b.pong(addrA, 10*time.Millisecond)
			b.pass(10 * time.Second)
		}, map[string]uint64{"dial_attempts": 1, "dial_relay": 1, "calls_sent": 1, "punch_attempts": 1, "punch_successes": 1}},
		"by relay only": {true, func(b *bench) {
			b.core.contact(b.now, b.p.id)
			b.pong(netip.AddrPort{}, 40*time.Millisecond)
			b.core.take()
			b.core.conn.Connected(b.p.id)
			b.pass(20 * time.Second)
		}, map[string]uint64{"dial_attempts": 1, "dial_relay": 1, "calls_sent": 1, "punch_attempts": 1, "punch_failures": 1}},
	} {
		b := newBench(t, c.leg, addrA)
		got := deltas(b, func() { c.play(b) })
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		for what, n := range c.want {
			if got[what] != n {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	}
}
