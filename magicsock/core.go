package magicsock

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
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
	skew    time.Duration    // the mesh's clock minus ours
	mtu     int              // of inner packets

	relay     relayLeg         // nil: there is none
	carried   bool             // signals go over control sessions too
	endpoints []netip.AddrPort // where calls say that we are
	nat       netmap.NAT       // in front of us
	homes     map[identity.PeerID]bool
	sessions  atomic.Pointer[map[way]bool] // at members that relay, which paths are known by
	hops      hops                         // those sessions, and the wishes for others
	serving   *serving                     // sessions that this node relays
	guesses   guesses

	probes bucket.Prefixes // pings to addresses that nobody confirmed
	pongs  bucket.Prefixes
	timers peerHeap

	sends  []send
	events []Event
	count  counters
}

// send is a datagram that is to leave.
type send struct {
	line
	peer   *handle // to whom; nil: a stranger
	signal bool    // by Config.Signal, not by the line
	pkt    []byte
}

func newCore(self *identity.Identity, boot disco.BootID, rng *rand.Rand) *core {
	return &core{
		self: self, boot: boot, rand: rng, members: newMembers(), mtu: DefaultMTU,
		peers: make(map[identity.PeerID]*peer),
		byWG:  make(map[identity.WGKey]*peer),
		hops:  newHops(), serving: newServing(MemberRelay{}),
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

func (c *core) newPeer(now time.Time, id identity.PeerID, wg identity.WGKey) *peer {
	p := &peer{
		id: id, handle: newHandle(now, c.conn, id, wg), index: -1, usedAt: now,
		paths: make(map[way]*path),
		pings: make(map[disco.TxID]sentPing),
	}
	c.peers[id], c.byWG[wg] = p, p
	c.checkRelay(now, p)
	return p
}

// reaches reports whether a relay server leads to a peer.
func (c *core) reaches(id identity.PeerID) bool { return c.relay != nil && c.relay.Reaches(id) }

// checkRelay gives a peer the path by relay servers while there is one.
func (c *core) checkRelay(now time.Time, p *peer) {
	path, reaches := p.paths[byRelay], c.reaches(p.id)
	switch {
	case reaches && path == nil:
		path = newPath(byRelay)
		path.named, path.vouch = true, true
		p.paths[byRelay] = path
		c.choose(now, p, relayFirst)
	case !reaches && path != nil && p.known:
		c.dropPath(now, p, path, "no relay server leads there any more")
	}
}

// relayChanged looks anew at whom relay servers reach.
func (c *core) relayChanged(now time.Time) {
	for _, p := range c.peers {
		path := p.paths[byRelay]
		c.checkRelay(now, p)
		if again := p.paths[byRelay]; again != nil && again == path { // by another server, perhaps
			path.dead = false
			path.anew()
		}
		if p.active(now) && !p.settled() {
			p.searchAnew(now)
		}
		c.schedule(now, p)
	}
}

// drop forgets a peer. Its handle may live on, without a route.
func (c *core) drop(p *peer) {
	c.forsakeVias(p)
	c.forsakeGuess(p)
	delete(c.peers, p.id)
	delete(c.byWG, p.handle.wg)
	for by := range p.paths {
		if by.sid != 0 {
			c.publishSession(by, false)
		}
	}
	p.handle.route.Store(nil)
	if p.index >= 0 {
		heap.Remove(&c.timers, p.index)
	}
}

// name makes the addresses that the network map lists the peer's candidates. Those it lists no longer are forgotten
// unless they answered within keepSeen.
func (c *core) name(now time.Time, p *peer, addrs []netip.AddrPort) {
	for _, path := range p.paths {
		path.named = !path.direct()
	}
	for _, addr := range addrs {
		for _, usable := range c.usable(addr) {
			to := way{addr: usable}
			fresh := p.paths[to] == nil
			if path := c.addPath(p, to); path != nil {
				path.named = true
				if fresh && p.wanted(now) {
					c.probe(now, p, path)
				}
			}
		}
	}
	c.prune(now, p)
}

// prune forgets what nobody names any more and did not answer for a while.
func (c *core) prune(now time.Time, p *peer) {
	for _, path := range p.paths {
		if !path.named && !path.vouch && path != p.best && now.Sub(path.heard) > keepSeen && now.Sub(path.told) > keepSeen {
			c.removePath(p, path)
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
	case c.overlay(ip) || ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240): // "this network", reserved, broadcast
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

// addProvisional makes a peer that is joining, or that lets us join, reachable at one place.
func (c *core) addProvisional(now time.Time, id identity.PeerID, wg identity.WGKey, by way) {
	if by.relay && c.relay == nil {
		return
	}
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
	path := c.addPath(p, by)
	if path == nil {
		return
	}
	path.vouch = true // also of a member that lost what it knew: its handshake proves the rest
	if !p.known || p.best == nil || now.Sub(p.best.lastPong) > vouchFor {
		c.moveTo(now, p, path, "the address that introduced itself")
	}
}

// found takes what an Intro or Welcome told of a member.
func (c *core) found(now time.Time, id identity.PeerID, by way, ahead time.Duration) {
	p := c.peer(now, id)
	if p == nil || !p.known || by.relay && c.relay == nil || !by.relay && len(c.usable(by.addr)) == 0 {
		return
	}
	c.setHours(p, ahead)
	if path := c.addPath(p, by); path != nil {
		if path.told = now; !path.confirmed() {
			path.anew()
		}
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
			path.anew()
			path.local, path.sizing, path.moved = udp.Source{}, sizing{size: path.most()}, true
		}
		p.republish()
		p.handle.trusted.Store(0)
		c.rebindVias(now, p)
		c.followLink(now, p)
		c.schedule(now, p)
	}
}

// followLink asks a peer anew after our links changed. While data goes, the fallback carries it too until an answer
// comes: the other side's NAT may not expect us where we are now, so it is called as well.
func (c *core) followLink(now time.Time, p *peer) {
	switch {
	case p.active(now):
		if b := p.best; b != nil && b.direct() && p.doubt.IsZero() && p.inUse(now) {
			p.doubt = now
			p.publish(p.fallback())
		}
		p.searchAnew(now)
		c.call(now, p)
		c.checkSearch(now, p)
		c.probeAll(now, p)
	case p.best != nil:
		c.probeAll(now, p)
	}
}

// rebound is linkChanged for new sockets: a ping that left by the old ones a moment ago told nobody of the new ones.
func (c *core) rebound(now time.Time) {
	c.extrasLost(now, func(uint16) bool { return true })
	for _, p := range c.peers {
		for _, path := range p.paths {
			path.lastPing = time.Time{}
		}
	}
	c.linkChanged(now)
}
