package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

// aimed is a network of which one member names addresses that are not its own.
type aimed struct {
	*world
	victim *netlab.Host
	target netip.AddrPort // that was named
	m      *node          // who named it
	nodes  []*node        // who want to reach it, each behind a router of its own
}

const victimPort = 7777

func newAimed(t testing.TB, count int, at netlab.Kind) *aimed {
	t.Helper()
	w := newWorld(t)
	inet := w.lab.Internet()
	host := inet.Public("relay")
	v := &aimed{world: w, victim: inet.Public("victim")}
	s := w.serve(host, "relay", public(host, "9000")...)
	v.target = netip.AddrPortFrom(v.victim.Card().Addr4(), victimPort)
	token := ""
	for i := range count {
		n := w.on(inet.Site(netlab.PortRestricted).Host(fmt.Sprintf("node%d", i)))
		flags := []string{"--relay-server", s.url, "--portmap=false"}
		if token != "" {
			flags = append(flags, "--join", "@"+token)
		}
		if n.up(flags...); token == "" {
			token = n.invite("--uses", "0")
		}
		v.nodes = append(v.nodes, n)
	}
	first := v.nodes[0]
	v.m = w.on(inet.Site(at).Host("mallory"))
	flags := []string{"--join", "@" + token, "--relay-server", s.url, "--portmap=false"}
	for _, addr := range []netip.AddrPort{
		v.target, netip.MustParseAddrPort("127.0.0.1:7777"), netip.MustParseAddrPort("[::1]:7777"),
		netip.MustParseAddrPort("240.0.0.1:7777"), netip.AddrPortFrom(first.ip4, victimPort), netip.AddrPortFrom(first.ip6, victimPort),
	} {
		flags = append(flags, "--advertise", addr.String())
	}
	v.m.up(flags...)
	for _, n := range v.nodes {
		n.ping(v.m.ip4, settleTime)
		if !waitFor(settleTime, func() bool {
			p := n.peer(v.m)
			return p != nil && strings.Contains(fmt.Sprint(p.Endpoints), v.target.String())
		}) {
			t.Fatalf("%s does not know what mallory names: %+v", n.name, n.peer(v.m))
		}
	}
	return v
}

// pingAll has all nodes ping mallory five times a second.
func (v *aimed) pingAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, n := range v.nodes {
		wg.Go(func() {
			for ctx.Err() == nil {
				once, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
				_, _ = n.host.Ping(once, v.m.ip4)
				<-once.Done() // also when there was a reply: the pace of the pings
				cancel()
			}
		})
	}
	wg.Wait()
}

// hits are the datagrams that came to the victim.
type hits struct {
	packets, bytes, largest int
	large                   int // beyond 148 bytes
	named                   int // at the port that was named
	ports                   map[uint16]int
	kinds                   map[byte]int // by first byte
}

func hitsOf(c *netlab.Capture) hits {
	h := hits{ports: make(map[uint16]int), kinds: make(map[byte]int)}
	for _, f := range c.Packets() {
		if d, ok := udpOf(f.Data); ok && !f.Outgoing {
			h.packets++
			h.bytes += 28 + len(d.data)
			h.largest = max(h.largest, len(d.data))
			if len(d.data) > 148 {
				h.large++
			}
			h.ports[d.to.Port()]++
			h.kinds[d.data[0]]++
		}
	}
	h.named = h.ports[victimPort]
	return h
}

// TestVictim has a member name an address that is somebody else's: what comes there is bounded, however much others want
// to reach that member, and whether it is gone or goes on calling. Addresses that are nobody's get nothing.
func TestVictim(t *testing.T) {
	const count, lasting = 5, time.Minute
	for _, tt := range []struct {
		name string
		at   netlab.Kind // mallory's place
		stay bool        // mallory goes on
	}{
		{"gone", netlab.None, false},
		{"hard NAT", netlab.Symmetric, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newAimed(t, count, tt.at)
			atVictim := v.victim.Capture(v.victim.Card().Name())
			type place struct {
				n     *node
				iface string
			}
			elsewhere := make(map[place]*netlab.Capture)
			for _, n := range v.nodes {
				for _, iface := range []string{"lo", "meshnet0", n.iface.Name()} {
					elsewhere[place{n, iface}] = n.host.Capture(iface)
				}
			}
			if !tt.stay {
				v.m.proc.Kill()
			}
			ctx, cancel := context.WithTimeout(t.Context(), lasting)
			defer cancel()
			v.pingAll(ctx)
			h := hitsOf(atVictim)
			t.Logf("%d packets with %d bytes in %v from %d nodes, the largest of %d bytes; %d at the port that was named, the rest at %d others; by first byte %v",
				h.packets, h.bytes, lasting, count, h.largest, h.named, len(h.ports)-1, h.kinds)
			// What SECURITY.md says of probes, and of Intros: one in 5 s at most, and the only ones above 148 bytes.
			if h.named == 0 || h.named > count*(64+20*int(lasting/time.Second)) || h.packets-h.named > count*1024 ||
				h.largest > 1232 || h.large > count*int(lasting/(5*time.Second)) {
				t.Errorf("%+v", h)
			}
			for p, c := range elsewhere {
				for _, f := range c.Packets() {
					data := f.Data
					if p.iface == "meshnet0" { // which has no link header
						data = append([]byte{12: 8, 13: 0}, data...)
					}
					if d, ok := udpOf(data); ok && d.to.Port() == victimPort && d.to != v.target {
						t.Errorf("%s sends to %v by %s", p.n.name, d.to, p.iface)
						break
					}
				}
			}
		})
	}
}
