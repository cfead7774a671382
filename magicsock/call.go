package magicsock

import (
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/netmap"
)

// A call-me-maybe asks the other side to ping the addresses that it names, while we ping those of the other side: each
// side's own pings open its NATs for the other's.
//
//	A                          relay server, or control      B
//	ping all of B's addresses  ────────────────────────▶     (lost at B's NAT)
//	call-me-maybe: A's addresses ──────▶ ─────────────▶      ping all of A's addresses
//	                           ◀────────────────────────     (A's NAT lets them in: A pinged there)
//	ping, pong …
//
// It is sealed from end to end and goes by every carrier at once; the receiver takes each once.

const (
	// callEvery is the least time between two calls to a peer.
	callEvery = 400 * time.Millisecond
	// answerAfter is the age of our last call to a peer at which one of its own is answered by one. It is longer than a
	// call and its answer take, so two sides do not go on calling each other.
	answerAfter = 3 * time.Second
	// callRate and callBurst bound the calls of one peer that are acted on. They let fewer pass in the time for which a
	// signal is valid than txMemory remembers.
	callRate, callBurst = 0.4, 12
	// namedRate and namedBurst bound the pings to addresses that one peer named and nobody confirmed.
	namedRate, namedBurst = 20, 64
	// punchFor is how long a call may take to bring a direct path.
	punchFor = 5 * time.Second
)

// calling is what is known of calls to and from a peer.
type calling struct {
	called time.Time     // our last call left
	calls  bucket.Bucket // of its calls
	heard  *txMemory     // its calls; nil until one came
	punch  time.Time     // a call left or came, and nothing direct has answered since; zero: no
	dial   time.Time     // it has been wanted since, and nothing has answered; zero: no
}

// setEndpoints takes where we may be found. Who needs to know is told at once.
func (c *core) setEndpoints(now time.Time, addrs []netip.AddrPort, nat netmap.NAT) {
	next := make([]netip.AddrPort, 0, min(len(addrs), disco.MaxEndpoints))
	for _, addr := range addrs {
		ip := addr.Addr().Unmap().WithZone("")
		plain := netip.AddrPortFrom(ip, addr.Port())
		switch {
		case !ip.IsValid() || ip.IsUnspecified() || ip.IsLoopback() || addr.Port() == 0:
		case len(next) < disco.MaxEndpoints && !slices.Contains(next, plain):
			next = append(next, plain)
		}
	}
	news := false
	for _, addr := range next {
		news = news || !slices.Contains(c.endpoints, addr)
	}
	c.endpoints, c.nat = next, nat
	if !news {
		return
	}
	for _, p := range c.peers {
		if p.active(now) && !p.settled() {
			p.searchAnew(now)
			c.schedule(now, p)
		}
	}
}

// call tells the peer where we are, so that it pings there.
func (c *core) call(now time.Time, p *peer) {
	if !p.known || now.Sub(p.called) < callEvery {
		return
	}
	s := &disco.Signal{
		Kind: disco.CallMeMaybe, TxID: disco.NewTxID(), Time: now.Add(c.skew), Endpoints: c.endpoints, NAT: byte(c.nat),
	}
	if !c.signal(now, p, s) {
		return
	}
	p.called = now
	c.count.callsSent.Add(1)
	c.punching(now, p)
}

// signal seals a signal and queues it for every carrier. It reports whether there is one.
func (c *core) signal(now time.Time, p *peer, s *disco.Signal) bool {
	path := p.best
	if path != nil && (!path.confirmed() || !p.doubt.IsZero()) {
		path = nil
	}
	relay := c.reaches(p.id)
	keys := c.pairKeys(p)
	if len(keys) == 0 || path == nil && !relay && !c.carried {
		return false
	}
	pkt := keys[0].seal.SealSignal(c.ownTag(now, keys[0].secret), s)
	if path != nil && !path.relay {
		c.sends = append(c.sends, send{line: line{path.way, path.local}, peer: p.handle, pkt: pkt})
	}
	if relay {
		c.sends = append(c.sends, send{line: line{way: byRelay}, peer: p.handle, pkt: pkt})
	}
	if c.carried {
		c.sends = append(c.sends, send{signal: true, peer: p.handle, pkt: pkt})
	}
	return true
}

// handleSignal takes a sealed signal, by whatever way it came.
func (c *core) handleSignal(now time.Time, pkt []byte) {
	tag, err := disco.SignalTag(pkt)
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
		s, err := keys[candidate.key].open.OpenSignal(pkt)
		if err != nil {
			continue
		}
		c.takeSignal(now, p, s)
		c.schedule(now, p)
		return
	}
	c.count.unknownTag.Add(1)
}

// takeSignal acts on a peer's signal that is not old.
func (c *core) takeSignal(now time.Time, p *peer, s *disco.Signal) {
	ahead := c.skew
	if p.clockKnown {
		ahead = p.clock
	}
	if s.Time.Sub(now.Add(ahead)).Abs() >= clockSlack {
		c.count.lateSignal.Add(1)
		return
	}
	switch s.Kind {
	case disco.CallMeMaybe:
		c.takeCall(now, p, s)
	case disco.RelayOpen, disco.RelayOffer, disco.RelayAnswer, disco.RelayClose:
		c.takeRelaySignal(now, p, s)
	default:
		c.count.foreign.Add(1)
	}
}

// takeCall pings where a peer says it is.
func (c *core) takeCall(now time.Time, p *peer, s *disco.Signal) {
	if p.heard == nil {
		p.heard = new(txMemory)
	}
	switch {
	case !p.heard.fresh(s.TxID): // by another carrier, or again
		c.count.replayedSignal.Add(1)
		return
	case !p.calls.Take(now, callRate, callBurst):
		c.count.signalLimited.Add(1)
		return
	}
	c.count.callsReceived.Add(1)
	if nat := netmap.NAT(s.NAT); nat <= netmap.NATBlocked {
		p.nat = nat
	}
	p.usedAt = now
	c.punching(now, p)
	for _, addr := range s.Endpoints {
		if addr.Addr().IsLoopback() { // of its host, which is not this one as far as it says
			c.count.refusedAddr.Add(1)
			continue
		}
		c.takeEndpoint(now, p, addr)
	}
	if now.Sub(p.called) >= answerAfter {
		c.call(now, p)
	}
	c.heardCall(now, p, s)
}

// takeEndpoint makes an address that a call names a candidate, and pings it.
func (c *core) takeEndpoint(now time.Time, p *peer, addr netip.AddrPort) {
	all := c.usable(addr)
	if len(all) == 0 {
		c.count.refusedAddr.Add(1)
	}
	for _, usable := range all {
		path := c.addPath(p, way{addr: usable})
		if path == nil {
			c.count.pathsFull.Add(1)
			return
		}
		path.told = now
		if !path.confirmed() {
			path.anew()
		}
		c.probe(now, p, path)
	}
}

// punching notes that a call is to bring a direct path.
func (c *core) punching(now time.Time, p *peer) {
	if p.punch.IsZero() && !p.settled() {
		p.punch = now
		c.count.punchAttempts.Add(1)
	}
}

// checkOutcomes counts what was tried and has not come to anything.
func (c *core) checkOutcomes(now time.Time, p *peer) {
	if !p.punch.IsZero() && now.Sub(p.punch) >= punchFor {
		p.punch = time.Time{}
		c.count.punchFailures.Add(1)
	}
	if !p.dial.IsZero() && !p.wanted(now) {
		p.dial = time.Time{}
		c.count.dialFailures.Add(1)
	}
}

// answered counts what a pong brought to an end.
func (c *core) answered(p *peer, by way) {
	if !p.dial.IsZero() {
		p.dial = time.Time{}
		c.count.dialed[by.rank()].Add(1)
	}
	if !p.punch.IsZero() && by.direct() {
		p.punch = time.Time{}
		c.count.punchSuccesses.Add(1)
	}
}
