package e2e

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

// TestRelayServerIsBlind transfers a marker by a relay server, whose host sees neither that nor who it is from.
func TestRelayServerIsBlind(t *testing.T) {
	w := newWorld(t)
	p := &remotes{world: w, net: w.lab.Internet(), help: byServer}
	p.relayHost = p.net.Public("relay")
	capture := p.relayHost.Capture(p.relayHost.Card().Name())
	p.connect(t)
	heal := p.part()
	defer heal()
	warm := startFlows(t, p.a, p.b, slowFlow)
	p.both(t, string(byServer), 20*time.Second)
	warm.end()
	listener, err := p.b.host.Listen("tcp", netip.AddrPortFrom(p.b.ip4, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := p.a.host.Dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	small(t, listener, c)
	if p.a.path(p.b).Kind != string(byServer) {
		t.Fatal("the marker did not go by the relay server")
	}
	network := p.a.status().Network
	secrets := map[string][]byte{
		"the marker": marker, "the network's name": []byte(*network.Name), "its id": []byte(*network.ID), "its suffix": []byte(*network.Suffix),
	}
	for _, n := range []*node{p.a, p.b} {
		id := load(t, n)
		wg, disco, peer := id.WG(), id.Disco(), id.ID()
		secrets[n.name+"'s name"] = []byte(n.name)
		secrets[n.name+"'s WireGuard key"] = wg[:]
		secrets[n.name+"'s disco key"] = disco[:]
		secrets[n.name+"'s id"] = peer[:]
		secrets[n.name+"'s id in text"] = []byte(peer.String())
		ip4, ip6 := n.ip4.As4(), n.ip6.As16()
		secrets[n.name+"'s IPv4 address"] = ip4[:]
		secrets[n.name+"'s IPv6 address"] = ip6[:]
		secrets[n.name+"'s address in text"] = []byte(n.ip4.String())
	}
	capture.Stop()
	frames := capture.Packets()
	if len(frames) < 100 {
		t.Fatalf("%d frames at the relay server's host", len(frames))
	}
	for what, secret := range secrets {
		for _, f := range frames {
			if bytes.Contains(f.Data, secret) {
				t.Errorf("%s is seen at the relay server's host", what)
				break
			}
		}
	}
}
