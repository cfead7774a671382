package magicsock

import (
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/hop"
	"github.com/meshnet/meshnet/magicsock/udp"
	"github.com/meshnet/meshnet/netmap"
)

// A peer that packets go to and that nothing direct leads to is reached by way of a member that relays (magicsock/hop),
// one to which we have a direct path:
//
//	A                                 relay                               B
//	RelayOpen{B, nonce}     ────────▶
//	                        ◀──────── RelayAnswer{ok, sid}
//	                                  RelayOffer{A, sid, nonce} ────────▶
//	hello, answer           ◀───────▶ challenge, bound          ◀───────▶   hello, answer
//	ping over the session   ──────────────────────────────────────────▶     … a path like others
//
//	via: asking ── ok ─▶ binding ── bound ─▶ a path ── pong ─▶ open ── idle, relay gone ─▶ nothing
//	        └──────────────┴─── refused, silent, no pong ─▶ held down, 5 s to 5 min, and the next relay is asked
//
// The RelayOpen is repeated until there is a pong, and makes the relay repeat its offer.

const (
	// viaAfter is how long a direct path is given before relays are asked; viaSoon while nothing else carries data.
	viaAfter = 750 * time.Millisecond
	viaSoon  = 300 * time.Millisecond
	// viaAsked relays of one peer are asked at once, the second viaStagger after the first.
	viaAsked   = 2
	viaStagger = 300 * time.Millisecond
	// viaSeldom is the longest wait for a relay that may be asked, while there is none.
	viaSeldom = 10 * time.Second
	// viaWithin is how long it may take to a pong.
	viaWithin = 4 * time.Second
	// viaIdle is how long a session is kept that nothing goes by; the relay keeps it a little longer.
	viaIdle = hop.IdleAfter - 5*time.Second
	// holdFirst and holdMost bound how long a relay is not asked for a peer after a failure: twice as long each time.
	holdFirst = 5 * time.Second
	holdMost  = 5 * time.Minute
	// maxRetries times a relay decides itself when it is asked again.
	maxRetries = 3
	// maxVias bounds the sessions of one peer, and maxHops all of them.
	maxVias = 4
	maxHops = 256
	// maxProspects members that might relay are pinged at once when none is known to answer.
	maxProspects = 2
)

// via is one session at a member that relays, or the wish for one. Owned by core.
type via struct {
	relay identity.PeerID
	peer  *peer
	txid  disco.TxID // of our RelayOpen; zero: it was offered to us
	nonce hop.Nonce
	begun time.Time
	tries int
	next  time.Time // the next RelayOpen; zero: none

	client hop.Client // once bind is set
	bind   bool
	line   line  // of the session, once bind is set
	path   *path // once bound
	open   bool  // a pong came by it
}

// relaying is what a peer's relays are up to.
type relaying struct {
	vias    []*via
	holds   map[identity.PeerID]hold // by relay
	lonely  time.Time                // there has been no direct path since, while one is looked for; zero: there is
	ask     time.Time                // no further relay before
	asks    int                      // times that one was looked for since
	viaDue  time.Time                // checkVias is to be called; zero: not before something happens
	said    time.Time                // the newest time of a relay signal of this peer
	saidID  disco.TxID               // and which that was
	offered bucket.Bucket            // relay signals of this peer
}

// hold is a relay that failed.
type hold struct {
	until time.Time
	fails int
}

// hops finds the sessions of all peers.
type hops struct {
	asked map[disco.TxID]*via
	bound map[way]*via
}

func newHops() hops { return hops{asked: make(map[disco.TxID]*via), bound: make(map[way]*via)} }

// checkVias goes on with a peer's sessions, and asks another relay when that is wanted.
func (c *core) checkVias(now time.Time, p *peer) {
	for _, v := range slices.Clone(p.vias) {
		c.checkVia(now, v)
	}
	if c.lacksPath(now, p) {
		c.checkLonely(now, p)
	} else {
		p.lonely, p.ask = time.Time{}, time.Time{}
	}
	p.viaDue = p.ask
	for _, v := range p.vias {
		if due := v.due(); p.viaDue.IsZero() || due.Before(p.viaDue) {
			p.viaDue = due
		}
	}
}

// checkLonely asks the next relay for a peer when its time has come; seldom when there is none to ask.
func (c *core) checkLonely(now time.Time, p *peer) {
	if p.lonely.IsZero() {
		p.lonely, p.asks, p.ask = now, 0, now.Add(c.viaWait(p))
		if p.ask.After(now) {
			c.prospect(now, p)
		}
	}
	if p.asks == 0 && c.desperate(p) {
		p.ask = now
	}
	if now.Before(p.ask) {
		return
	}
	p.asks++
	p.ask = now.Add(min(viaStagger<<min(p.asks, 10), viaSeldom))
	if c.askRelay(now, p) {
		p.ask = now.Add(viaStagger)
	}
}

// lacksPath reports whether data to the peer goes by nothing better than a relay server.
func (c *core) lacksPath(now time.Time, p *peer) bool {
	if !p.known || !p.wanted(now) && !p.inUse(now) || c.nat == netmap.NATBlocked || c.natOf(p) == netmap.NATBlocked {
		return false
	}
	b := p.best
	return b == nil || b.relay || !b.confirmed() || !p.doubt.IsZero() && !p.seconded()
}

// seconded reports whether something not worse than a member stands by for the path in use.
func (p *peer) seconded() bool {
	second := p.fallback()
	return second != nil && second.confirmed() && !second.relay
}

// viaWait is how long a direct path is given.
func (c *core) viaWait(p *peer) time.Duration {
	switch {
	case c.desperate(p):
		return 0
	case p.best == nil:
		return viaSoon
	}
	return viaAfter
}

// desperate reports whether no direct path is to be expected, or the one there was has failed and nothing takes its
// place.
func (c *core) desperate(p *peer) bool {
	return c.nat == netmap.NATHard && c.natOf(p) == netmap.NATHard || !p.doubt.IsZero() && p.fallback() == nil
}

// natOf is what maps in front of a peer, as far as we were told.
func (c *core) natOf(p *peer) netmap.NAT {
	if p.nat == netmap.NATUnknown {
		if n := c.members.Peer(p.id); n != nil {
			return n.NAT
		}
	}
	return p.nat
}

// checkVia goes on with one session.
func (c *core) checkVia(now time.Time, v *via) {
	if v.path != nil && v.path == v.peer.best {
		c.syncTrust(v.peer)
	}
	switch {
	case !c.relays(v.relay):
		c.endVia(now, v, 0)
		return
	case v.bind && v.client.State() == hop.Lost && v.open, v.open && now.Sub(v.lastUse()) >= viaIdle:
		c.endVia(now, v, 0)
		return
	case v.bind && v.client.State() == hop.Lost,
		!v.open && now.Sub(v.begun) >= viaWithin,
		v.open && v.path.dead && now.Sub(v.path.heard) >= viaWithin:
		c.failVia(now, v, 0)
		return
	}
	if !v.next.IsZero() && !now.Before(v.next) {
		c.sendOpen(now, v)
	}
	if v.bind {
		c.emitBind(v, v.client.Tick(now))
	}
}

// due is when checkVia is to be called.
func (v *via) due() time.Time {
	due := v.begun.Add(viaWithin)
	switch {
	case v.open && v.path.dead:
		due = v.path.heard.Add(viaWithin)
	case v.open:
		due = v.lastUse().Add(viaIdle)
	}
	for _, at := range []time.Time{v.next, v.client.Due()} {
		if !at.IsZero() && at.Before(due) {
			due = at
		}
	}
	return due
}

// lastUse is when something went or came by the session last.
func (v *via) lastUse() time.Time {
	if v.path.lastPing.After(v.path.heard) {
		return v.path.lastPing
	}
	return v.path.heard
}

// sendOpen sends the RelayOpen, for the first time or again.
func (c *core) sendOpen(now time.Time, v *via) {
	v.tries++
	v.next = now.Add(min(250*time.Millisecond<<(v.tries-1), time.Second))
	relay := c.peer(now, v.relay)
	if relay == nil || relay.best == nil {
		return
	}
	s := &disco.Signal{
		Kind: disco.RelayOpen, TxID: v.txid, Time: now.Add(c.skew), Peer: v.peer.id, Nonce: disco.Nonce(v.nonce),
	}
	if !c.signal(now, relay, s) {
		return
	}
	c.count.relayAsked.Add(1)
	if now.Sub(relay.best.lastPong) >= freshEnough {
		c.probe(now, relay, relay.best) // which lets it find us again when it restarted
		c.schedule(now, relay)
	}
}

// freshEnough is the age of a relay's last pong at which it may have lost what it knew of us.
const freshEnough = time.Second

// emitBind queues a bind packet for the relay.
func (c *core) emitBind(v *via, pkt []byte) {
	if pkt == nil {
		return
	}
	to := v.line
	to.sid = 0 // which stands in the packet itself
	c.sends = append(c.sends, send{line: to, peer: v.peer.handle, pkt: pkt})
}

// beginBind binds a session from our data socket, over the path that we have to the relay.
func (c *core) beginBind(now time.Time, v *via, relay *peer, sid uint32, nonce hop.Nonce) {
	c.unbind(now, v)
	at := line{relay.best.way, relay.best.local}
	at.sid = sid
	v.line, v.bind, v.client = at, true, hop.NewClient(now, sid, nonce)
	c.hops.bound[at.way] = v
	c.emitBind(v, v.client.Tick(now))
}

// unbind gives up a session's way, and the path by it.
func (c *core) unbind(now time.Time, v *via) {
	if !v.bind {
		return
	}
	delete(c.hops.bound, v.line.way)
	v.bind, v.open, v.client = false, false, hop.Client{}
	if v.path != nil {
		v.path = nil
		c.dropSession(now, v.peer, v.line.way)
	}
}

// handleBound takes a bind packet for one of our sessions. It reports whether it is for one.
func (c *core) handleBound(now time.Time, from line, pkt []byte) bool {
	sid, err := hop.SID(pkt)
	if err != nil {
		return false
	}
	by := from.way
	by.sid = sid
	v := c.hops.bound[by]
	if v == nil {
		return false
	}
	c.emitBind(v, v.client.Handle(now, pkt))
	if v.client.State() == hop.Bound && v.path == nil {
		v.line.local = from.local
		if relay := c.peer(now, v.relay); relay != nil {
			v.path = c.addSession(now, v.peer, by, relay)
		}
		if v.path != nil {
			c.ping(now, v.peer, v.path)
		}
	}
	c.recheck(now, v.peer)
	return true
}

// recheck looks at a peer's relays after something happened.
func (c *core) recheck(now time.Time, p *peer) {
	c.checkVias(now, p)
	c.schedule(now, p)
}

// viaAnswered notes that a pong came by a path.
func (c *core) viaAnswered(now time.Time, p *peer, path *path) {
	if path.sid == 0 {
		return
	}
	v := c.hops.bound[path.way]
	if v == nil || v.path != path {
		return
	}
	if !v.open {
		v.open, v.next = true, time.Time{}
		delete(p.holds, v.relay)
		c.count.relayOpened.Add(1)
		c.call(now, p) // there may have been no way to tell where we are
	}
	if !p.doubt.IsZero() && path != p.best {
		p.publish(p.fallback())
	}
	c.checkVias(now, p)
}

// endVia forgets a session, after whose end the next data may ask anew.
func (c *core) endVia(now time.Time, v *via, hold time.Duration) {
	p := v.peer
	c.unbind(now, v)
	delete(c.hops.asked, v.txid)
	p.vias = slices.DeleteFunc(p.vias, func(other *via) bool { return other == v })
	if hold > 0 {
		p.hold(now, v.relay, hold)
	}
}

// failVia forgets a session that did not come to anything, and holds the relay down: for retry where the relay said so.
func (c *core) failVia(now time.Time, v *via, retry time.Duration) {
	fails := v.peer.holds[v.relay].fails
	wait := min(holdFirst<<min(fails, 10), holdMost)
	wait -= time.Duration(c.rand.Float64() * float64(wait/4))
	if retry > 0 && fails < maxRetries {
		wait = retry
	}
	c.count.relayFailed.Add(1)
	c.endVia(now, v, wait)
	v.peer.ask = now
}

// hold has a relay not asked for this peer for a while.
func (p *peer) hold(now time.Time, relay identity.PeerID, wait time.Duration) {
	if p.holds == nil {
		p.holds = make(map[identity.PeerID]hold)
	}
	p.holds[relay] = hold{until: now.Add(wait), fails: p.holds[relay].fails + 1}
	for id, h := range p.holds {
		if now.Sub(h.until) > holdMost {
			delete(p.holds, id)
		}
	}
}

// forsakeVias ends the sessions with a peer that is dropped.
func (c *core) forsakeVias(p *peer) {
	for _, v := range p.vias {
		delete(c.hops.asked, v.txid)
		if v.bind {
			delete(c.hops.bound, v.line.way)
		}
		if v.path != nil {
			c.publishSession(v.line.way, false)
		}
	}
	p.vias = nil
}

// rebindVias tells the relays our new address.
func (c *core) rebindVias(now time.Time, p *peer) {
	for _, v := range p.vias {
		if v.bind {
			v.line.local = udp.Source{}
			v.client.Rebind(now)
			c.emitBind(v, v.client.Tick(now))
		}
	}
}

// relayRestarted ends the sessions at a relay that lost them, and has them opened anew.
func (c *core) relayRestarted(now time.Time, relay identity.PeerID) {
	for _, p := range c.peers {
		delete(p.holds, relay)
		for _, v := range slices.Clone(p.vias) {
			if v.relay == relay && v.open {
				c.endVia(now, v, 0)
				c.recheck(now, p)
			}
		}
	}
}
