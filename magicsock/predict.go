package magicsock

import (
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/guess"
	"github.com/meshnet/meshnet/netmap"
)

// Between a hard NAT and an easy one that filters by port, pings to the addresses that calls name never arrive. When a
// second of calls brought nothing, ports are guessed (magicsock/guess):
//
//	hard side:  nothing ── a call came, and 1 s ─▶ sockets opened ─▶ each pings ─┬─ pong at one ─▶ that one is kept
//	easy side:  nothing ── a call came, and 1 s ─▶ random ports are pinged ──────┴─ nothing in time ─▶ nothing, held down
//
// A ping that arrives anywhere is answered, and asked back there, as every ping is; so the path that comes about is one
// like others, but that on the hard side it leaves by a socket of its own (way.socket). Those pings are not remembered:
// a pong to one of them is stray, and the ping that comes with it counts.

const (
	// guessAfter is how long calls have to bring a direct path.
	guessAfter = time.Second
	// namedFor is how long what a call named is guessed at.
	namedFor = 10 * time.Second
	// guessSettle is how long after the first answer others are waited for: the other side may have chosen one of them.
	guessSettle = time.Second
	// maxExtra sockets beside the usual ones carry data.
	maxExtra = 4
	// extraGone is how long nothing comes by such a socket before it is closed, unless its path is in use and answers.
	extraGone = 10 * time.Second
)

// guessing is what a peer's calls named, and what became of it.
type guessing struct {
	named      []netip.AddrPort // by the last call
	namedAt    time.Time        // it came
	namedSince time.Time        // the first of the calls that came without a pause
	attempt    *attempt         // nil: none is under way
	guessDue   time.Time        // checkGuess is to be called; zero: not before something happens
}

// attempt is one attempt to guess. Owned by core.
type attempt struct {
	target  netip.AddrPort // the port counts for the hard side
	spray   *guess.Spray   // of the easy side
	fan     *guess.Fan     // of the hard side, once there are sockets
	sockets []uint16
	giveUp  time.Time
	settle  time.Time // the first answer came; zero: none yet
}

// guesses are those of all peers.
type guesses struct {
	limits guess.Limits
	kept   map[uint16]*peer // sockets that carry data
	orders []order
}

// order is what the Conn is to do about sockets: open some for a peer, give one what it takes to carry data, close some.
type order struct {
	peer  identity.PeerID
	open  int
	keep  uint16
	close []uint16
}

// takeOrders hands over what is to be done about sockets.
func (c *core) takeOrders() []order {
	orders := c.guesses.orders
	c.guesses.orders = nil
	return orders
}

// heardCall notes what a peer's call named.
func (c *core) heardCall(now time.Time, p *peer, s *disco.Signal) {
	if now.Sub(p.namedAt) >= namedFor {
		p.namedSince = now
	}
	p.named, p.namedAt = s.Endpoints, now
	c.checkGuess(now, p)
}

// checkGuess goes on guessing a peer's port, or begins.
func (c *core) checkGuess(now time.Time, p *peer) {
	p.guessDue = time.Time{}
	c.closeSilent(now, p)
	if p.attempt != nil {
		c.goOnGuessing(now, p, p.attempt)
		return
	}
	if p.named == nil {
		return
	}
	if at := p.namedSince.Add(guessAfter); now.Before(at) {
		p.guessDue = sooner(p.guessDue, at)
		return
	}
	if target, hard, ok := c.worthGuessing(now, p); ok {
		c.beginGuessing(now, p, target, hard)
	}
}

// worthGuessing reports whether ports are to be guessed with a peer now, where, and whether ours are the hard ones.
func (c *core) worthGuessing(now time.Time, p *peer) (target netip.AddrPort, hard, ok bool) {
	if now.Sub(p.namedAt) >= namedFor {
		p.named = nil
		return target, false, false
	}
	easy := func(nat netmap.NAT) bool { return nat == netmap.NATEasy || nat == netmap.NATNone }
	theirs := c.natOf(p)
	switch {
	case now.Sub(p.called) >= namedFor: // it does not know where we are
		return target, false, false
	case !p.wanted(now) && !p.inUse(now) || p.hasDirect():
		return target, false, false
	case c.nat == netmap.NATHard && easy(theirs):
		hard = len(c.guesses.kept) < maxExtra
		target, ok = c.guessTarget(p)
		return target, hard, ok && hard
	case easy(c.nat) && theirs == netmap.NATHard:
		target, ok = c.guessTarget(p)
	}
	return target, false, ok
}

// hasDirect reports whether any direct path answers.
func (p *peer) hasDirect() bool {
	for _, path := range p.paths {
		if path.direct() && path.confirmed() {
			return true
		}
	}
	return false
}

// guessTarget is the one address that is guessed at: the first that the peer named and that only the internet has.
func (c *core) guessTarget(p *peer) (netip.AddrPort, bool) {
	for _, addr := range p.named {
		ip := addr.Addr().Unmap()
		if guess.Guessable(ip) && !ip.IsPrivate() && !shared.Contains(ip) && len(c.usable(addr)) > 0 {
			return netip.AddrPortFrom(ip, addr.Port()), true
		}
	}
	return netip.AddrPort{}, false
}

// shared is the space between providers' NATs and their customers' (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

func (c *core) beginGuessing(now time.Time, p *peer, target netip.AddrPort, hard bool) {
	if err := c.guesses.limits.Begin(now, p.id, target.Addr()); err != nil {
		c.count.guessLimited.Add(1)
		p.named = nil // until the next call
		return
	}
	c.count.guessAttempts.Add(1)
	a := &attempt{target: target, giveUp: now.Add(guess.Window)}
	p.attempt = a
	if hard {
		c.guesses.orders = append(c.guesses.orders, order{peer: p.id, open: guess.Sockets})
		p.guessDue = sooner(p.guessDue, a.giveUp)
		return
	}
	var known []uint16
	for _, addr := range p.named {
		if addr.Addr().Unmap() == target.Addr() {
			known = append(known, addr.Port())
		}
	}
	a.spray = guess.NewSpray(now, target.Addr(), known, c.rand)
	c.goOnGuessing(now, p, a)
}

// opened begins to ping from the sockets that were ordered for a peer. Those that nobody waits for any more are closed.
func (c *core) opened(now time.Time, id identity.PeerID, sockets []uint16) {
	p := c.peers[id]
	if p == nil || p.attempt == nil || p.attempt.spray != nil || p.attempt.fan != nil {
		c.closeSockets(sockets...)
		return
	}
	a := p.attempt
	a.sockets, a.fan = sockets, guess.NewFan(now, len(sockets))
	c.goOnGuessing(now, p, a)
	c.schedule(now, p)
}

// goOnGuessing sends the pings of an attempt that are due, or ends it.
func (c *core) goOnGuessing(now time.Time, p *peer, a *attempt) {
	switch {
	case a.settle.IsZero() && p.hasDirect():
		a.settle = now
		p.guessDue = sooner(p.guessDue, now.Add(guessSettle))
		return
	case !a.settle.IsZero() && now.Before(a.settle.Add(guessSettle)):
		p.guessDue = sooner(p.guessDue, a.settle.Add(guessSettle))
		return
	case !a.settle.IsZero() || !now.Before(a.giveUp):
		c.endGuessing(now, p, a)
		return
	}
	due := a.giveUp // for sockets that are being opened
	if a.spray != nil {
		for _, to := range a.spray.Tick(now) {
			c.guessPing(now, p, way{addr: to})
		}
		due = a.spray.Due()
	}
	if a.fan != nil {
		from, to := a.fan.Tick(now)
		for _, socket := range a.sockets[from:to] {
			c.guessPing(now, p, way{addr: a.target, socket: socket})
		}
		due = a.fan.Due()
	}
	p.guessDue = sooner(p.guessDue, due)
}

// guessPing sends a ping that nobody waits for the pong to.
func (c *core) guessPing(now time.Time, p *peer, by way) {
	if c.seal(now, p, line{way: by}, c.message(now, p, disco.TypePing, disco.NewTxID())) {
		c.count.guessPings.Add(1)
	}
}

// endGuessing ends an attempt, and closes the sockets that did not come to anything.
func (c *core) endGuessing(now time.Time, p *peer, a *attempt) {
	ok := p.hasDirect()
	c.guesses.limits.End(now, p.id, ok)
	if ok {
		c.count.guessSuccesses.Add(1)
	}
	p.attempt, p.named = nil, nil
	for _, path := range p.sorted() {
		if path.socket != 0 && c.guesses.kept[path.socket] != p && slices.Contains(a.sockets, path.socket) {
			c.dropPath(now, p, path, "its socket is closed")
		}
	}
	lost := slices.DeleteFunc(a.sockets, func(id uint16) bool { return c.guesses.kept[id] == p })
	c.closeSockets(lost...)
}

// guessAnswered keeps the socket that a pong came by.
func (c *core) guessAnswered(now time.Time, p *peer, path *path) {
	if p.attempt != nil && path.direct() {
		defer c.checkGuess(now, p)
	}
	if path.socket == 0 || c.guesses.kept[path.socket] != nil || len(c.guesses.kept) >= maxExtra {
		return
	}
	if c.guesses.kept == nil {
		c.guesses.kept = make(map[uint16]*peer)
	}
	c.guesses.kept[path.socket] = p
	c.guesses.orders = append(c.guesses.orders, order{peer: p.id, keep: path.socket})
}

// closeSilent closes a peer's sockets that are not used any more: the path in use when it has not answered for long, others
// when nothing came by them.
func (c *core) closeSilent(now time.Time, p *peer) {
	for id, owner := range c.guesses.kept {
		if owner != p {
			continue
		}
		for _, path := range p.paths {
			if path.socket != id || path == p.best && path.confirmed() {
				continue
			}
			if at := path.heard.Add(extraGone); now.Before(at) {
				p.guessDue = sooner(p.guessDue, at)
			} else {
				c.dropPath(now, p, path, "the guessed port does not answer any more")
			}
		}
	}
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// releaseSocket closes the socket of a path that is forgotten, unless it may still come to something.
func (c *core) releaseSocket(p *peer, gone *path) {
	if gone.socket != 0 && c.guesses.kept[gone.socket] == p {
		c.closeSockets(gone.socket)
	}
}

func (c *core) closeSockets(ids ...uint16) {
	for _, id := range ids {
		delete(c.guesses.kept, id)
	}
	if len(ids) > 0 {
		c.guesses.orders = append(c.guesses.orders, order{close: ids})
	}
}

// forsakeGuess ends what is under way with a peer that is dropped, and closes its sockets.
func (c *core) forsakeGuess(p *peer) {
	if a := p.attempt; a != nil {
		c.guesses.limits.End(a.giveUp, p.id, false)
		c.closeSockets(a.sockets...)
		p.attempt = nil
	}
	for _, path := range p.paths {
		c.releaseSocket(p, path)
	}
}

// extrasLost forgets the paths by sockets that the Conn closed.
func (c *core) extrasLost(now time.Time, lost func(id uint16) bool) {
	for id, p := range c.guesses.kept {
		if !lost(id) {
			continue
		}
		for _, path := range p.sorted() {
			if path.socket == id {
				c.dropPath(now, p, path, "its socket was closed")
			}
		}
		delete(c.guesses.kept, id)
	}
}
