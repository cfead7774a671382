package magicsock

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/udp"
	"github.com/meshnet/meshnet/netmap"
)

// core decides. It is pure but for randomness: every method takes now, changes the state and appends to sends and
// events what is to be done; whoever calls it takes them out (take) and acts after releasing the lock. Guarded by
// Conn.mu.
type core struct {
	self    *identity.Identity
	network netmap.Network
	boot    disco.BootID
	rand    *rand.Rand

	secrets []identity.Secret // network keys, newest first
	peers   map[identity.PeerID]*peer
	byWG    map[identity.WGKey]*peer
	byAddr  map[netip.AddrPort]*peer // addresses that a pong confirmed
	tags    tagTable
	own     []netip.AddrPort // our addresses, never probed
	zones   []string         // of our link-local addresses
	hasLeg  bool             // there is a relay leg
	skew    time.Duration    // the mesh's clock minus ours

	probes bucket.Prefixes // pings to addresses that nobody confirmed
	pongs  bucket.Prefixes
	timers peerHeap

	sends     []send
	events    []Event
	released  [][]byte // initiations that a pong let through, for the device
	addrDirty bool
	count     counters
}

// send is a datagram that is to leave.
type send struct {
	to    netip.AddrPort
	src   udp.Source
	relay *endpoint // set: by the relay leg to that peer
	pkt   []byte
}

func newCore(self *identity.Identity, boot disco.BootID, rng *rand.Rand) *core {
	return &core{
		self: self, boot: boot, rand: rng,
		peers:  make(map[identity.PeerID]*peer),
		byWG:   make(map[identity.WGKey]*peer),
		byAddr: make(map[netip.AddrPort]*peer),
		probes: bucket.Prefixes{Rate: 20, Burst: 40},
		pongs:  bucket.Prefixes{Rate: 50, Burst: 100},
	}
}

// take hands over what is to be done.
func (c *core) take() (sends []send, events []Event, released [][]byte) {
	sends, events, released = c.sends, c.events, c.released
	c.sends, c.events, c.released = nil, nil, nil
	return sends, events, released
}

func (c *core) tell(e Event) { c.events = append(c.events, e) }

// setMap takes over the members of a new map.
func (c *core) setMap(now time.Time, m *netmap.Map) {
	c.network = m.Network
	newKeys := !slices.Equal(c.secrets, m.Keys)
	c.secrets = slices.Clone(m.Keys)
	for id, p := range c.peers {
		if p.known && m.Peer(id) == nil {
			c.drop(p)
		}
	}
	for i := range m.Peers {
		c.setPeer(now, &m.Peers[i], newKeys)
	}
	c.tags.reset()
}

func (c *core) setPeer(now time.Time, n *netmap.Peer, newKeys bool) {
	p := c.peers[n.ID]
	if p != nil && p.ep.wg != n.WG {
		c.drop(p)
		p = nil
	}
	if p == nil {
		p = c.newPeer(n.ID, n.WG)
	}
	if p.disco != n.Disco || newKeys {
		p.disco, p.keys = n.Disco, nil
	}
	p.known = true
	c.name(now, p, n.Endpoints)
	c.schedule(now, p)
}

func (c *core) newPeer(id identity.PeerID, wg identity.WGKey) *peer {
	p := &peer{
		id: id, ep: newEndpoint(id, wg), index: -1,
		paths: make(map[netip.AddrPort]*path),
		pings: make(map[disco.TxID]sentPing),
	}
	if c.hasLeg {
		p.paths[netip.AddrPort{}] = &path{relay: true, vouch: true, named: true}
		c.choose(time.Time{}, p, "relay until something better answers")
	}
	c.peers[id], c.byWG[wg] = p, p
	return p
}

func (c *core) drop(p *peer) {
	delete(c.peers, p.id)
	delete(c.byWG, p.ep.wg)
	for addr, owner := range c.byAddr {
		if owner == p {
			delete(c.byAddr, addr)
		}
	}
	c.addrDirty = true
	p.ep.route.Store(nil)
	if p.index >= 0 {
		heap.Remove(&c.timers, p.index)
	}
}

// name makes the addresses that the network map lists the peer's candidates. Those it lists no longer are forgotten
// unless they answered within keepSeen.
func (c *core) name(now time.Time, p *peer, addrs []netip.AddrPort) {
	for _, path := range p.paths {
		path.named = path.relay
	}
	for _, addr := range addrs {
		for _, usable := range c.usable(addr) {
			fresh := p.paths[usable] == nil
			if path := c.addPath(p, usable); path != nil {
				path.named = true
				if fresh && p.wanted(now) {
					c.probe(now, p, path)
				}
			}
		}
	}
	for _, path := range p.paths {
		if !path.named && !path.vouch && path != p.best && now.Sub(path.lastPong) > keepSeen {
			c.forgetPath(p, path)
		}
	}
}

// usable says which addresses to try for a candidate: none for what cannot be a peer, one per zone of ours for a
// link-local one, else itself.
func (c *core) usable(addr netip.AddrPort) []netip.AddrPort {
	ip := addr.Addr().Unmap()
	addr = netip.AddrPortFrom(ip, addr.Port())
	switch {
	case !ip.IsValid() || addr.Port() == 0 || ip.IsUnspecified() || ip.IsMulticast() || slices.Contains(c.own, addr):
		return nil
	case c.overlay(ip):
		return nil
	case ip.Is6() && ip.IsLinkLocalUnicast():
		all := make([]netip.AddrPort, 0, len(c.zones))
		for _, zone := range c.zones {
			zoned := netip.AddrPortFrom(ip.WithZone(zone), addr.Port())
			if !slices.Contains(c.own, zoned) {
				all = append(all, zoned)
			}
		}
		return all
	}
	return []netip.AddrPort{addr}
}

// overlay reports whether ip belongs to the network itself: a path through the tunnel would run in a circle.
func (c *core) overlay(ip netip.Addr) bool {
	return c.network.Prefix4.IsValid() && c.network.Prefix4.Contains(ip) ||
		c.network.Prefix6.IsValid() && c.network.Prefix6.Contains(ip)
}

// setOwn takes the node's own addresses.
func (c *core) setOwn(own []netip.AddrPort) {
	c.own, c.zones = own, nil
	for _, addr := range own {
		if zone := addr.Addr().Zone(); zone != "" && !slices.Contains(c.zones, zone) {
			c.zones = append(c.zones, zone)
		}
	}
}

// setSkew takes how far the mesh's clock is ahead: tags and times are told by that clock.
func (c *core) setSkew(skew time.Duration) {
	c.skew = skew // the tag table follows when that is another hour
}

// addProvisional makes a peer that is joining, or that lets us join, reachable at one address.
func (c *core) addProvisional(now time.Time, id identity.PeerID, wg identity.WGKey, addr netip.AddrPort) {
	p := c.peers[id]
	if p != nil && p.ep.wg != wg {
		if p.known {
			return // a member keeps the key that the ledger gave it
		}
		c.drop(p)
		p = nil
	}
	if p == nil {
		p = c.newPeer(id, wg)
	}
	path := c.addPath(p, addr)
	if path == nil {
		return
	}
	path.vouch = true // also of a member that lost what it knew: its handshake proves the rest
	c.byAddr[addr], c.addrDirty = p, true
	if !p.known || p.best == nil || now.Sub(p.best.lastPong) > vouchFor {
		c.moveTo(now, p, path, "the address that introduced itself")
	}
}

// found takes what an Intro or Welcome told of a member.
func (c *core) found(now time.Time, id identity.PeerID, addr netip.AddrPort, ahead time.Duration) {
	p := c.peers[id]
	if p == nil || !p.known || len(c.usable(addr)) == 0 {
		return
	}
	c.setHours(p, ahead)
	if path := c.addPath(p, addr); path != nil && !path.confirmed() {
		path.tries, path.next = 0, time.Time{}
	}
	p.wantedAt = time.Time{} // look for it anew, quickly
	c.schedule(now, p)
}

// removeProvisional forgets a peer that did not become a member.
func (c *core) removeProvisional(id identity.PeerID) {
	if p := c.peers[id]; p != nil && !p.known {
		c.drop(p)
	}
}

// linkChanged forgets what was measured over the old links and asks everybody in use anew, at once: that also tells
// them our new address.
func (c *core) linkChanged(now time.Time) {
	for _, p := range c.peers {
		if !p.known {
			continue
		}
		for _, path := range p.paths {
			path.tries, path.next, path.local = 0, time.Time{}, udp.Source{}
		}
		p.publish(nil)
		p.ep.trusted.Store(0)
		if p.best != nil || p.wanted(now) {
			c.probeAll(now, p)
		}
		c.schedule(now, p)
	}
}

// info describes a peer.
func (c *core) info(now time.Time, p *peer) PeerInfo {
	info := PeerInfo{
		Path: pathInfo(p.best), Reason: p.reason, Heard: p.heard, Seeking: p.wanted(now),
		RxBytes: p.ep.rx.Load(), TxBytes: p.ep.tx.Load(),
	}
	for _, path := range p.paths {
		info.Candidates = append(info.Candidates, pathInfo(path))
	}
	slices.SortFunc(info.Candidates, func(a, b PathInfo) int { return a.Addr.Compare(b.Addr) })
	return info
}
