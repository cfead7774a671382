package e2e

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/netlab"
)

// coturn runs a STUN server of another make on a public host, at two addresses and two ports each.
func coturn(t *testing.T, w *world, inet *netlab.Internet) (addr netip.AddrPort) {
	t.Helper()
	bin := tool(t, "turnserver")
	host := inet.Public("coturn")
	card := host.Card()
	first := card.Addr4()
	second := netip.AddrFrom4([4]byte{203, 0, 113, 200})
	card.SetAddr(first.String()+"/24", second.String()+"/24")
	inet.Core().Route(second.String()+"/32", first.String())
	proc, err := host.Start(netlab.Proc{Path: bin, Dir: w.dir, Args: []string{
		"-n", "--stun-only", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log",
		"--pidfile=" + filepath.Join(w.dir, "turn.pid"), "--userdb=" + filepath.Join(w.dir, "turn.db"), "--realm=test",
		"--listening-ip=" + first.String(), "--listening-ip=" + second.String(),
		"--listening-port=3478", "--alt-listening-port=3479", "--relay-threads=1",
	}})
	if err != nil {
		t.Fatal(err)
	}
	says(t, proc, "DB connection success")
	return netip.AddrPortFrom(first, 3478)
}

// TestNetcheck is right about where a node is, with the word of a relay server and of a foreign STUN server.
func TestNetcheck(t *testing.T) {
	w := newWorld(t)
	inet := w.lab.Internet()
	stun := coturn(t, w, inet)
	host := inet.Public("relay")
	s := w.serve(host, "relay", public(host, "9000")...)
	places := []struct {
		kind                    netlab.Kind
		nat, mapping, filtering string
		udp                     bool
	}{
		{netlab.None, "none", "none", "endpoint-independent", true},
		{netlab.Firewalled, "none", "none", "address-and-port-dependent", true},
		{netlab.FullCone, "easy", "endpoint-independent", "endpoint-independent", true},
		{netlab.AddressRestricted, "easy", "endpoint-independent", "address-dependent", true},
		{netlab.PortRestricted, "easy", "endpoint-independent", "address-and-port-dependent", true},
		{netlab.Symmetric, "hard", "address-and-port-dependent", "address-and-port-dependent", true},
		{netlab.UDPBlocked, "blocked", "", "", false},
	}
	var nodes []*node
	var sites []*netlab.Site
	for _, p := range places {
		site := inet.Site(p.kind)
		n := w.on(site.Host(p.kind.String()))
		n.begin("--relay-server", s.url, "--stun", stun.String(), "--port", "41820", "--userspace", "-v")
		nodes, sites = append(nodes, n), append(sites, site)
	}
	for _, n := range nodes {
		n.awaitReady(settleTime)
		n.atHome(t, s.url)
	}
	answers := make([]string, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			out, err := n.run("netcheck", "--json")
			if err != nil {
				t.Errorf("%s: %v", n.name, err)
			}
			answers[i] = out
		})
	}
	wg.Wait()
	for i, p := range places {
		t.Run(p.kind.String(), func(t *testing.T) {
			var c meshnet.Netcheck
			if err := json.Unmarshal([]byte(answers[i]), &c); err != nil {
				t.Fatalf("%v: %s", err, answers[i])
			}
			defer func() {
				if t.Failed() {
					t.Logf("%s\n%s", answers[i], nodes[i].proc.Output())
				}
			}()
			if c.UDP != p.udp || text(c.NAT) != p.nat || text(c.Mapping) != p.mapping || text(c.Filtering) != p.filtering {
				t.Errorf("udp %v, nat %q, mapping %q, filtering %q", c.UDP, text(c.NAT), text(c.Mapping), text(c.Filtering))
			}
			seen := nodes[i].host.Card().Addr4()
			if sites[i].Outside != nil {
				seen = sites[i].Outside.Addr4()
			}
			switch {
			case !p.udp && c.IPv4 != nil, p.udp && (c.IPv4 == nil || c.IPv4.Addr() != seen),
				p.nat == "none" && c.IPv4.Port() != 41820:
				t.Errorf("seen as %v", c.IPv4)
			}
			if c.IPv6 != nil {
				t.Errorf("seen as %v", c.IPv6)
			}
			if len(c.STUN) != 2 {
				t.Errorf("STUN servers: %+v", c.STUN)
			}
			for _, server := range c.STUN {
				if (server.Error == nil) != p.udp || (server.Mapped != nil) != p.udp || (server.LatencyMs != nil) != p.udp {
					t.Errorf("STUN server: %+v", server)
				}
			}
			if len(c.Relays) != 1 || !c.Relays[0].Connected || !c.Relays[0].Home || c.Relays[0].LatencyMs == nil || c.Relays[0].Error != nil {
				t.Errorf("relay servers: %+v", c.Relays)
			}
			if c.Took > 6000 {
				t.Errorf("it took %v ms", c.Took)
			}
		})
	}
}
