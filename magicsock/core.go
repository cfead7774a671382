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
	conn    *Conn // for the handles of peers; nil in a simulation

	secrets []identity.Secret // network keys, newest first
	members members
	peers   map[identity.PeerID]*peer // those of the members, and provisional ones, that there is something to know of
	byWG    map[identity.WGKey]*peer
	tags    tagTable
	own     []netip.AddrPort // our addresses, never probed
	zones   []string         // of our link-local addresses
	hasLeg  bool             // there is a relay leg
	skew    time.Duration    // the mesh's clock minus ours

	probes bucket.Prefixes // pings to addresses that nobody confirmed
	pongs  bucket.Prefixes
	timers peerHeap

	sends  []send
	events []Event
	count  counters
}

// send is a datagram that is to leave.
type send struct {
	to    netip.AddrPort
	src   udp.Source
	relay *handle // set: by the relay leg to that peer
	pkt   []byte
}

func newCore(self *identity.Identity, boot disco.BootID, rng *rand.Rand) *core {
	return &core{
		self: self, boot: boot, rand: rng, members: newMembers(),
		peers:  make(map[identity.PeerID]*peer),
		byWG:   make(map[identity.WGKey]*peer),
		probes: bucket.Prefixes{Rate: 20, Burst: 40},
		pongs:  bucket.Prefixes{Rate: 50, Burst: 100},
	}
}

// take hands over what is to be done.
func (c *core) take() (sends []send, events []Event) {
	sends, events = c.sends, c.events
	c.sends, c.events = nil, nil
	return sends, events
}

func (c *core) tell(e Event) { c.events = append(c.events, e) }

// vouchFor is for how long a pong keeps data on its path when the peer introduces itself anew from elsewhere.
const vouchFor = 30 * time.Second

// relayFirst is why the relay leg is the path of a peer that was never reached otherwise.
const relayFirst = "relay until something better answers"

func (c *core) newPeer(now time.Time, id identity.PeerID, wg identity.WGKey) *peer {
	p := &peer{
		id: id, handle: newHandle(now, c.conn, id, wg), index: -1, usedAt: now,
		paths: make(map[netip.AddrPort]*path),
		pings: make(map[disco.TxID]sentPing),
	}
	if c.hasLeg {
		p.paths[netip.AddrPort{}] = &path{relay: true, vouch: true, named: true}
		c.choose(now, p, relayFirst)
	}
	c.peers[id], c.byWG[wg] = p, p
	return p
}

// drop forgets a peer. Its handle may live on, without a route.
func (c *core) drop(p *peer) {
	delete(c.peers, p.id)
	delete(c.byWG, p.handle.wg)
	p.handle.route.Store(nil)
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
		if !path.named && !path.vouch && path != p.best && now.Sub(path.heard) > keepSeen {
			delete(p.paths, path.addr)
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
	p := c.peer(now, id)
	if p != nil && p.handle.wg != wg {
		if p.known {
			return // a member keeps the key that the ledger gave it
		}
		c.drop(p)
		p = nil
	}
	if p == nil {
		p = c.newPeer(now, id, wg)
	}
	path := c.addPath(p, addr)
	if path == nil {
		return
	}
	path.vouch = true // also of a member that lost what it knew: its handshake proves the rest
	if !p.known || p.best == nil || now.Sub(p.best.lastPong) > vouchFor {
		c.moveTo(now, p, path, "the address that introduced itself")
	}
}

// found takes what an Intro or Welcome told of a member.
func (c *core) found(now time.Time, id identity.PeerID, addr netip.AddrPort, ahead time.Duration) {
	p := c.peer(now, id)
	if p == nil || !p.known || len(c.usable(addr)) == 0 {
		return
	}
	c.setHours(p, ahead)
	if path := c.addPath(p, addr); path != nil && !path.confirmed() {
		path.tries, path.next = 0, time.Time{}
	}
	p.usedAt, p.wantedAt = now, time.Time{} // look for it anew, quickly
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
		p.handle.trusted.Store(0)
		if p.best != nil || p.wanted(now) {
			c.probeAll(now, p)
		}
		c.schedule(now, p)
	}
}

// rebound is linkChanged for new sockets: a ping that left by the old ones a moment ago told nobody of the new ones.
func (c *core) rebound(now time.Time) {
	for _, p := range c.peers {
		for _, path := range p.paths {
			path.lastPing = time.Time{}
		}
	}
	c.linkChanged(now)
}

// info describes a peer.
func (c *core) info(now time.Time, p *peer) PeerInfo {
	c.syncTrust(p)
	info := PeerInfo{
		Path: pathInfo(p.best), Reason: p.reason, Heard: p.lastHeard(), Seeking: p.wanted(now),
		RxBytes: p.handle.rx.Load(), TxBytes: p.handle.tx.Load(),
	}
	for _, path := range p.paths {
		info.Candidates = append(info.Candidates, pathInfo(path))
	}
	slices.SortFunc(info.Candidates, func(a, b PathInfo) int { return a.Addr.Compare(b.Addr) })
	return info
}

// infoOfMember describes a member that nothing is known of but what the map says.
func (c *core) infoOfMember(n *netmap.Peer) PeerInfo {
	info := PeerInfo{Path: c.unmet()}
	if c.hasLeg {
		info.Reason = relayFirst
		info.Candidates = []PathInfo{info.Path}
	}
	for _, addr := range n.Endpoints {
		for _, usable := range c.usable(addr) {
			info.Candidates = append(info.Candidates, PathInfo{Kind: PathDirect, Addr: usable})
		}
	}
	slices.SortFunc(info.Candidates, func(a, b PathInfo) int { return a.Addr.Compare(b.Addr) })
	return info
}
