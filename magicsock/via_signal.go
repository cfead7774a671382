package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/hop"
)

// relayRate and relayBurst bound the signals about sessions that are taken from one member.
const relayRate, relayBurst = 10, 40

// takeRelaySignal acts on a signal about sessions. Signals of one member count in the order of their times, so that a
// recorded one does not come back; what is lost that way comes again, with another time.
func (c *core) takeRelaySignal(now time.Time, from *peer, s *disco.Signal) {
	if s.Time.Before(from.said) || s.TxID == from.saidID && s.Time.Equal(from.said) { // or by another carrier
		c.count.replayedSignal.Add(1)
		return
	}
	if !from.offered.Take(now, relayRate, relayBurst) {
		c.count.signalLimited.Add(1)
		return
	}
	from.said, from.saidID = s.Time, s.TxID
	switch s.Kind {
	case disco.RelayOpen:
		c.takeOpen(now, from, s)
	case disco.RelayOffer:
		c.takeOffer(now, from, s)
	case disco.RelayAnswer:
		c.takeAnswer(now, from, s)
	case disco.RelayClose:
		c.takeClose(now, from, s)
	}
}

// takeAnswer goes on with what a relay answers.
func (c *core) takeAnswer(now time.Time, relay *peer, s *disco.Signal) {
	v := c.hops.asked[s.About]
	switch {
	case v == nil || v.relay != relay.id:
		c.refusedOffer(now, relay, s)
		return
	case s.Code != disco.CodeOK:
		c.failVia(now, v, s.Retry)
	case v.bind && v.client.SID() == s.SID && v.client.State() != hop.Lost:
	case !relay.answersDirectly():
		c.failVia(now, v, 0)
	default:
		c.beginBind(now, v, relay, s.SID, v.nonce)
	}
	c.recheck(now, v.peer)
}

// takeOffer binds a session that a relay offers, because another member asked it to.
func (c *core) takeOffer(now time.Time, relay *peer, s *disco.Signal) {
	p := c.peer(now, s.Peer)
	if p == nil || !p.known || p == relay || !c.relays(relay.id) || !relay.answersDirectly() {
		c.signal(now, relay, &disco.Signal{
			Kind: disco.RelayAnswer, TxID: disco.NewTxID(), Time: now.Add(c.skew), About: s.TxID, SID: s.SID,
			Code: disco.CodeRefused,
		})
		return
	}
	var v *via
	for _, other := range p.vias {
		if other.relay == relay.id {
			v = other
		}
	}
	switch {
	case v == nil && (len(p.vias) >= maxVias || len(c.hops.bound) >= maxHops):
		return
	case v == nil:
		v = &via{relay: relay.id, peer: p, begun: now}
		p.vias = append(p.vias, v)
	case v.bind && v.client.SID() == s.SID && v.client.State() != hop.Lost:
		return
	}
	p.usedAt = now
	c.beginBind(now, v, relay, s.SID, hop.Nonce(s.Nonce))
	c.recheck(now, p)
}

// takeClose ends a session: one of ours, or one that we relay.
func (c *core) takeClose(now time.Time, from *peer, s *disco.Signal) {
	for _, v := range c.hops.bound {
		if v.relay == from.id && v.client.SID() == s.SID {
			c.failVia(now, v, 0)
			c.recheck(now, v.peer)
			return
		}
	}
	c.closeRelayed(now, from, s.SID)
}
