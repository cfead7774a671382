package magicsock

import (
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// A cold pair, A wants to send to B:
//
//	A                                   B
//	handshake: SendAll
//	initiation                ───────▶  (lost where a NAT or a firewall does not expect it)
//	ping, flag wants          ───────▶  B pings back: its own packets open the way, and confirm its path
//	                          ◀───────  pong, and B's own ping
//	pong                      ───────▶
//	Event Reachable: SendAll once more, by the paths that answered
//	initiation                ───────▶
//
// What a ping says only makes its receiver ask: boot id and clock count when they come in the pong to an own ping.

const (
	// clockSlack is how far a ping's time may be from what its sender's clock should say.
	clockSlack = 2 * time.Minute
	// askAfter is the age of the last pong at which a ping from that path is answered with one of our own.
	askAfter = 10 * time.Second
)

// contact looks for a peer that packets wait for.
func (c *core) contact(now time.Time, id identity.PeerID) {
	if p := c.peer(now, id); p != nil && p.known {
		c.want(now, p)
	}
}

// want looks for a member.
func (c *core) want(now time.Time, p *peer) {
	p.seek(now)
	c.probeAll(now, p)
	c.schedule(now, p)
}

// probeAll pings every path that its limits allow.
func (c *core) probeAll(now time.Time, p *peer) {
	for _, path := range p.paths {
		c.probe(now, p, path)
	}
}

// probe pings one path unless it was pinged a moment ago, or does not answer and its backoff runs.
func (c *core) probe(now time.Time, p *peer, path *path) {
	if path.relay && !c.hasLeg || now.Before(path.next) && !path.confirmed() {
		return
	}
	if path.confirmed() && now.Sub(path.lastPing) < 200*time.Millisecond {
		return
	}
	if !path.confirmed() && !path.relay && !c.probes.Take(now, path.addr.Addr()) {
		c.count.probeLimited.Add(1)
		return
	}
	c.ping(now, p, path)
}

// ping sends a ping on a path.
func (c *core) ping(now time.Time, p *peer, path *path) {
	if len(p.pings) >= 4*maxPaths {
		return
	}
	if path == p.best {
		c.syncTrust(p)
	}
	m := c.message(now, p, disco.TypePing, disco.NewTxID())
	if !c.seal(now, p, path.addr, path.local, path.relay, m) {
		return
	}
	p.pings[m.TxID] = sentPing{path, now}
	path.pinged(now, c.rand.Float64())
	c.count.pingsSent.Add(1)
}

// message fills in what every message says.
func (c *core) message(now time.Time, p *peer, t disco.Type, id disco.TxID) *disco.Message {
	m := &disco.Message{Type: t, TxID: id, Boot: c.boot, Time: now.Add(c.skew), Flags: disco.FlagReady}
	if p.wanted(now) {
		m.Flags |= disco.FlagWants
	}
	return m
}

// seal encrypts a message under the newest network key and queues it.
func (c *core) seal(now time.Time, p *peer, to netip.AddrPort, src udp.Source, relay bool, m *disco.Message) bool {
	keys := c.pairKeys(p)
	if len(keys) == 0 {
		return false
	}
	m.KID = keys[0].kid
	copy(m.PSK[:], m.KID[:])
	s := send{to: to, src: src, pkt: keys[0].seal.Seal(c.ownTag(now, keys[0].secret), m)}
	if relay {
		s.relay = p.handle
	}
	c.sends = append(c.sends, s)
	return true
}

// handleContact takes a contact packet.
func (c *core) handleContact(now time.Time, from arrival, pkt []byte) {
	tag, err := disco.PacketTag(pkt)
	if err != nil {
		c.count.malformed.Add(1)
		return
	}
	for _, candidate := range c.tags.lookup(now, c, tag) {
		p := c.peer(now, c.members.Peers[candidate.member].ID)
		keys := c.pairKeys(p)
		if int(candidate.key) >= len(keys) {
			continue
		}
		m, err := keys[candidate.key].open.Open(pkt)
		if err != nil {
			continue
		}
		if m.Type == disco.TypePing {
			c.handlePing(now, p, from, m)
		} else {
			c.handlePong(now, p, from, m)
		}
		c.schedule(now, p)
		return
	}
	c.count.unknownTag.Add(1)
}

// arrival is where a packet came from.
type arrival struct {
	addr  netip.AddrPort
	local udp.Source
	relay bool
}

func (c *core) handlePing(now time.Time, p *peer, from arrival, m *disco.Message) {
	if p.seen == nil {
		p.seen = new(txMemory)
	}
	if !p.seen.fresh(m.TxID) {
		c.count.replayed.Add(1)
		return
	}
	if !from.relay && !c.pongs.Take(now, from.addr.Addr()) {
		c.count.pongLimited.Add(1)
		return
	}
	reply := c.message(now, p, disco.TypePong, m.TxID)
	reply.Observed, reply.Padding = from.addr, m.Padding
	c.seal(now, p, from.addr, from.local, from.relay, reply)
	if p.clockKnown && !c.timely(now, p, m) && m.Boot == p.boot {
		return // recorded long ago, or a clock that jumped: answered, but no reason to do anything
	}
	path := c.addPath(p, from.addr)
	if path == nil || !c.worthAsking(now, p, path, m) {
		return
	}
	switch {
	case path.confirmed() && now.Sub(path.lastPing) < minAsk:
		return
	case path.confirmed() || from.relay:
	case !c.probes.Take(now, from.addr.Addr()): // a ping of a moment ago may have come too early for the other side
		c.count.probeLimited.Add(1)
		return
	}
	path.local = from.local
	c.ping(now, p, path)
}

// timely reports whether a message's time is what its sender's clock should say.
func (c *core) timely(now time.Time, p *peer, m *disco.Message) bool {
	return p.clockKnown && m.Time.Sub(now.Add(p.clock)).Abs() < clockSlack
}

// worthAsking decides whether a ping makes us send one too. Only news do, so that two pings never chase each other:
// an unverified path or run, a wish that is new.
func (c *core) worthAsking(now time.Time, p *peer, path *path, m *disco.Message) bool {
	fresh := m.Boot == p.boot && c.timely(now, p, m)
	wish := false
	if m.Flags&disco.FlagWants != 0 {
		wish = now.Sub(p.theyWant) > time.Second
		if fresh {
			p.usedAt, p.theyWant = now, now
		}
	}
	return !fresh || !path.confirmed() || now.Sub(path.lastPong) > askAfter || wish
}

// minAsk is the least time between two pings that pings provoke on a path that answers.
const minAsk = 20 * time.Millisecond

func (c *core) handlePong(now time.Time, p *peer, from arrival, m *disco.Message) {
	ping, ok := p.pings[m.TxID]
	if !ok || ping.path.addr != from.addr || ping.path.relay != from.relay {
		c.count.strayPong.Add(1)
		return
	}
	delete(p.pings, m.TxID)
	c.count.pongsReceived.Add(1)
	path, rtt := ping.path, now.Sub(ping.at)
	path.ponged(now, rtt, from.local)
	p.clock, p.clockKnown = m.Time.Add(rtt/2).Sub(now), true
	c.setHours(p, p.clock)
	c.tell(Event{Type: EventClock, Peer: p.id, Clock: p.clock})
	if !from.relay {
		c.tell(Event{Type: EventObserved, Peer: p.id, Observed: m.Observed, Path: pathInfo(path)})
	}
	if path == p.best && !p.doubt.IsZero() {
		p.doubt = time.Time{}
	}
	c.choose(now, p, "answered fastest")
	if path == p.best {
		p.handle.trusted.Store(p.handle.stamp(now))
		p.publish(nil)
	}
	c.tellReachable(now, p, ping)
	c.handleBoot(p, m)
	if m.Flags&disco.FlagWants != 0 {
		p.usedAt, p.theyWant = now, now
	}
}

// reachEvery bounds how often a wanted peer is told to be reachable.
const reachEvery = 200 * time.Millisecond

// tellReachable tells that a wanted peer answered by a path which no initiation has left by since the ping: one that
// left with the ping has arrived as the ping did, and to begin anew would only undo it.
func (c *core) tellReachable(now time.Time, p *peer, ping sentPing) {
	if !p.wanted(now) || !ping.path.lastInit.Before(ping.at) || now.Sub(p.reachTold) < reachEvery {
		return
	}
	p.reachTold = now
	c.tell(Event{Type: EventReachable, Peer: p.id, Path: pathInfo(ping.path)})
}

// handleBoot compares the boot id of a pong with the last one.
func (c *core) handleBoot(p *peer, m *disco.Message) {
	if p.bootKnown && p.boot != m.Boot {
		c.tell(Event{Type: EventRestarted, Peer: p.id})
	}
	p.boot, p.bootKnown = m.Boot, true
}

// checkContact goes on looking for a wanted peer.
func (c *core) checkContact(now time.Time, p *peer) {
	if p.wanted(now) && (p.best == nil || !p.best.confirmed()) {
		c.probeAll(now, p)
	}
}

// verify is called while data is sent on a path that nothing has vouched for lately.
func (c *core) verify(now time.Time, p *peer) {
	if p.best == nil {
		return
	}
	c.syncTrust(p)
	switch b := p.best; {
	case !p.known || !p.doubt.IsZero():
	case b.dead: // whatever answers first takes over; until then, with their backoffs
		c.probeAll(now, p)
	case now.Sub(b.lastPing) >= 100*time.Millisecond:
		c.ping(now, p, b)
	}
	if now.Sub(p.lastUpgrade) >= upgradeEvery && p.best.rtt > goodEnough {
		p.lastUpgrade = now
		c.probeAll(now, p)
	}
	c.schedule(now, p)
}
