package magicsock

import (
	"cmp"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/hop"
	"github.com/meshnet/meshnet/netmap"
)

// askRelay asks the next relay, or looks for one. It reports whether that may soon come to something.
func (c *core) askRelay(now time.Time, p *peer) bool {
	asking := 0
	for _, v := range p.vias {
		if !v.open {
			asking++
		}
	}
	if asking >= viaAsked || len(p.vias) >= maxVias || len(c.hops.bound) >= maxHops {
		return false
	}
	for _, relay := range c.relaysFor(now, p) {
		v := &via{relay: relay.id, peer: p, txid: disco.NewTxID(), nonce: hop.NewNonce(), begun: now, next: now}
		p.vias = append(p.vias, v)
		c.hops.asked[v.txid] = v
		c.checkVia(now, v)
		return true
	}
	return asking == 0 && c.prospect(now, p)
}

// relaysFor lists the members that may be asked to relay to a peer, the best first: those that it keeps a path to, then
// our own homes, then the nearest.
func (c *core) relaysFor(now time.Time, p *peer) []*peer {
	var relays []*peer
	for _, id := range c.members.relaying {
		relay := c.peers[id]
		if relay == nil || relay == p || !relay.answersDirectly() || now.Before(p.holds[id].until) {
			continue
		}
		if !slices.ContainsFunc(p.vias, func(v *via) bool { return v.relay == id }) {
			relays = append(relays, relay)
		}
	}
	homes := c.homesOf(p)
	slices.SortFunc(relays, func(a, b *peer) int {
		return cmp.Or(
			first(slices.Contains(homes, a.id), slices.Contains(homes, b.id)),
			first(a.home, b.home),
			cmp.Compare(a.best.rtt, b.best.rtt),
			a.id.Compare(b.id),
		)
	})
	return relays
}

// first orders what is so before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// relays reports whether a member says that it relays.
func (c *core) relays(id identity.PeerID) bool {
	n := c.members.Peer(id)
	return n != nil && n.Relays
}

// homesOf are the members that a peer keeps a path to.
func (c *core) homesOf(p *peer) (homes []identity.PeerID) {
	if n := c.members.Peer(p.id); n != nil {
		for _, h := range n.Homes {
			if h.Relay == "" {
				homes = append(homes, h.Member)
			}
		}
	}
	return homes
}

// answersDirectly reports whether a peer is reached without anybody between.
func (p *peer) answersDirectly() bool { return p.best != nil && p.best.direct() && p.best.confirmed() }

// prospect pings members that might relay to a peer and that we have no path to: its homes first, then some that are
// easy to reach. It reports whether a ping left.
func (c *core) prospect(now time.Time, p *peer) bool {
	if len(c.relaysFor(now, p)) > 0 {
		return false
	}
	before, pinged := len(c.sends), 0
	try := func(id identity.PeerID) {
		if pinged == maxProspects || id == p.id || !c.relays(id) || now.Before(p.holds[id].until) {
			return
		}
		if relay := c.peer(now, id); relay != nil && !relay.answersDirectly() {
			c.probeAll(now, relay)
			c.schedule(now, relay)
			pinged++
		}
	}
	for _, id := range c.homesOf(p) {
		try(id)
	}
	for _, id := range c.members.relaying {
		if n := c.members.Peer(id); n.NAT == netmap.NATNone || n.NAT == netmap.NATEasy {
			try(n.ID)
		}
	}
	return len(c.sends) > before
}
