package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
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
	// askAfter is how long nothing vouched for a path until a ping from there is answered with one of our own,
	// while the peer is used.
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
	lost := p.best == nil || !p.best.confirmed() // as of one that packets still go to
	if p.dial.IsZero() && (lost || !p.wanted(now) && !p.inUse(now)) {
		p.dial = now
		c.count.dialAttempts.Add(1)
	}
	p.seek(now)
	c.checkSearch(now, p)
	c.probeAll(now, p)
	c.checkVias(now, p)
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
	switch {
	case now.Sub(path.lastPing) < probeEvery:
		if path.next.IsZero() {
			path.next = path.lastPing.Add(probeEvery)
		}
	case path.confirmed():
		c.ping(now, p, path)
	case now.Before(path.next):
	case !c.mayProbe(now, p, path):
		path.next = now.Add(probeEvery)
	default:
		c.ping(now, p, path)
	}
}

// probeEvery is the least time between two pings of ours on a path that nothing asks for.
const probeEvery = 200 * time.Millisecond

// mayProbe takes what a packet to an address costs that nobody confirmed.
func (c *core) mayProbe(now time.Time, p *peer, path *path) bool {
	if path.relay || path.sid != 0 {
		return true
	}
	if !p.probes.Take(now, namedRate, namedBurst) || !c.probes.Take(now, path.addr.Addr()) {
		c.count.probeLimited.Add(1)
		return false
	}
	return true
}

// ping sends a small ping on a path.
func (c *core) ping(now time.Time, p *peer, path *path) { c.verifySize(now, p, path, 0) }

// verifySize sends a ping of at least that size, in bytes. Without an answer the path is in doubt.
func (c *core) verifySize(now time.Time, p *peer, path *path, size int) {
	if path == p.best {
		c.syncTrust(p)
	}
	if c.pingSize(now, p, path, size, false) {
		path.pinged(now, c.rand.Float64())
	}
}

// pingSize sends a ping of at least that size, in bytes.
func (c *core) pingSize(now time.Time, p *peer, path *path, size int, asks bool) bool {
	if len(p.pings) >= 4*maxPaths {
		return false
	}
	m := c.message(now, p, disco.TypePing, disco.NewTxID())
	m.Padding = min(max(size, disco.MinSize), disco.MaxSize) - disco.MinSize
	if !c.seal(now, p, line{path.way, path.local}, m) {
		return false
	}
	p.pings[m.TxID] = sentPing{path, now, disco.MinSize + m.Padding, asks}
	path.pings++
	c.count.pingsSent.Add(1)
	return true
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
func (c *core) seal(now time.Time, p *peer, to line, m *disco.Message) bool {
	keys := c.pairKeys(p)
	if len(keys) == 0 {
		return false
	}
	m.KID = keys[0].kid
	copy(m.PSK[:], m.KID[:])
	c.sends = append(c.sends, send{line: to, peer: p.handle, pkt: keys[0].seal.Seal(c.ownTag(now, keys[0].secret), m)})
	return true
}

// handleContact takes a contact packet.
func (c *core) handleContact(now time.Time, from line, pkt []byte) {
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

func (c *core) handlePing(now time.Time, p *peer, from line, m *disco.Message) {
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
	c.seal(now, p, from, reply)
	if p.clockKnown && !c.timely(now, p, m) && m.Boot == p.boot {
		return // recorded long ago, or a clock that jumped: answered, but no reason to do anything
	}
	path := c.addPath(p, from.way)
	if path == nil {
		c.count.pathsFull.Add(1)
		return
	}
	path.told = now
	if !c.worthAsking(now, p, path, m) {
		return
	}
	switch {
	case path.confirmed() && now.Sub(path.lastPing) < minAsk:
		return
	case path.confirmed():
	case !c.mayProbe(now, p, path): // a ping of a moment ago may have come too early for the other side
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
	if path == p.best {
		c.syncTrust(p)
	}
	return !fresh || !path.confirmed() || p.active(now) && now.Sub(path.heard) > askAfter || wish
}

// minAsk is the least time between two pings that pings provoke on a path that answers.
const minAsk = 20 * time.Millisecond

func (c *core) handlePong(now time.Time, p *peer, from line, m *disco.Message) {
	ping, ok := p.pings[m.TxID]
	if !ok || ping.path.way != from.way {
		c.count.strayPong.Add(1)
		return
	}
	delete(p.pings, m.TxID)
	c.count.pongsReceived.Add(1)
	path, rtt := ping.path, now.Sub(ping.at)
	path.ponged(now, rtt, from.local)
	c.answered(p, path.way)
	c.passed(now, p, path, ping.size)
	p.clock, p.clockKnown = m.Time.Add(rtt/2).Sub(now), true
	c.setHours(p, p.clock)
	c.tell(Event{Type: EventClock, Peer: p.id, Clock: p.clock})
	if from.direct() && from.socket == 0 {
		c.tell(Event{Type: EventObserved, Peer: p.id, Observed: m.Observed, Path: c.pathInfo(p, path)})
	}
	if path == p.best && (path.carries() || path.fit == fitSmall || p.fallback() == nil) {
		p.doubt = time.Time{}
	}
	c.choose(now, p, p.answerReason(path))
	if path == p.best && p.doubt.IsZero() {
		p.handle.trusted.Store(p.handle.stamp(now))
		p.publish(nil)
	}
	c.viaAnswered(now, p, path)
	c.guessAnswered(now, p, path)
	c.tellReachable(now, p, &ping)
	c.handleBoot(now, p, m)
	if m.Flags&disco.FlagWants != 0 {
		p.usedAt, p.theyWant = now, now
	}
}

// reachEvery bounds how often a wanted peer is told to be reachable.
const reachEvery = 200 * time.Millisecond

// tellReachable tells that a wanted peer answered by a path which no initiation has left by since the ping: one that
// left with the ping has arrived as the ping did, and to begin anew would only undo it.
func (c *core) tellReachable(now time.Time, p *peer, ping *sentPing) {
	if !p.wanted(now) || ping.asks || !ping.path.lastInit.Before(ping.at) || now.Sub(p.reachTold) < reachEvery {
		return
	}
	p.reachTold = now
	c.tell(Event{Type: EventReachable, Peer: p.id, Path: c.pathInfo(p, ping.path)})
}

// handleBoot compares the boot id of a pong with the last one.
func (c *core) handleBoot(now time.Time, p *peer, m *disco.Message) {
	if p.bootKnown && p.boot != m.Boot {
		c.tell(Event{Type: EventRestarted, Peer: p.id})
		c.relayRestarted(now, p.id)
	}
	p.boot, p.bootKnown = m.Boot, true
}

// coldAfter is how long nothing came by a path before data on it is sent by the fallback too until it answers: NATs may
// have forgotten it.
const coldAfter = 30 * time.Second

// verify is called while data is sent on a path that nothing has vouched for lately. The ping is as large as the largest
// datagram since, as far as that fits: a path that only lets small ones through is no path for data.
func (c *core) verify(now time.Time, p *peer) {
	if p.best == nil {
		return
	}
	c.syncTrust(p)
	size := int(p.handle.largest.Swap(0))
	if most := p.best.most(); most > 0 {
		size = min(size, most)
	}
	switch b := p.best; {
	case !p.known || !p.doubt.IsZero():
	case b.dead: // whatever answers first takes over; until then, with their backoffs
		c.probeAll(now, p)
	case now.Sub(b.lastPing) >= verifyEvery:
		c.verifySize(now, p, b, size)
		if !b.relay && now.Sub(b.heard) >= coldAfter {
			c.doubtPath(now, p)
		}
	}
	c.checkSearch(now, p)
	c.schedule(now, p)
}

// verifyEvery is the least time between two pings that verify a path.
const verifyEvery = 100 * time.Millisecond
