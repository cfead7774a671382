package magicsock

import (
	"bytes"
	"sync"
	"time"
)

// WireGuard message types (https://www.wireguard.com/papers/wireguard.pdf §5.4), the first byte of a datagram that
// goes on with three zeros.
const (
	wgInitiation = 1
	wgResponse   = 2
	wgTransport  = 4
)

const (
	// vouchFor is how old the last pong of a path may be for an initiation from there to reach the device: it bounds
	// replays of recorded initiations.
	vouchFor = 30 * time.Second
	// holdFor is how long an initiation waits for the pong of its path.
	holdFor = time.Second
	// glareFor is how long our own initiation makes us deaf to the other's, if our PeerID is the lower one. It is a
	// little more than the wait for the next try: one that is not repeated must not shut the other side out.
	glareFor = 300 * time.Millisecond
	// yieldFor is how long an initiation of theirs, on its way to the device, holds ours back.
	yieldFor = 200 * time.Millisecond
	// answerFor is how long a handshake that the other side began is left to come to its end.
	answerFor = 200 * time.Millisecond
)

func isWireGuard(pkt []byte) bool {
	return len(pkt) >= 32 && pkt[0] >= wgInitiation && pkt[0] <= wgTransport && pkt[1] == 0 && pkt[2] == 0 && pkt[3] == 0
}

// gate keeps the initiations of a peer and ours from crossing: in the wireguard module, taking one in ends the
// handshake that one of ours began, so two that cross end each other, and again at every retry. Of two at the same
// time the lower PeerID's goes on. Safe for concurrent use.
type gate struct {
	mu        sync.Mutex
	initiated time.Time // ours left then; guarded by mu
	admitted  time.Time // theirs went to the device then; guarded by mu
	open      bool      // ours is not answered yet; guarded by mu
}

// leave decides whether an initiation of ours leaves: not right behind one of theirs, which is being answered.
func (g *gate) leave(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.admitted) < yieldFor {
		return false
	}
	g.initiated, g.open = now, true
	return true
}

// enter decides whether an initiation of theirs goes to the device: not while ours is under way and goes first.
func (g *gate) enter(now time.Time, weGoFirst bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if weGoFirst && g.open && now.Sub(g.initiated) < glareFor {
		return false
	}
	g.admitted = now
	return true
}

// answering reports whether an initiation of theirs went to the device a moment ago.
func (g *gate) answering(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Sub(g.admitted) < answerFor
}

// settle notes that a handshake was answered, by whichever side.
func (g *gate) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = false
}

// outgoing watches the handshakes that the device sends. It reports false for an initiation that must not leave.
func (c *Conn) outgoing(now time.Time, ep *endpoint, pkts [][]byte) bool {
	if len(pkts) != 1 || len(pkts[0]) == 0 {
		return true
	}
	switch pkts[0][0] {
	case wgInitiation:
		if !ep.gate.leave(now) {
			c.core.count.glare.Add(1)
			return false
		}
		ep.unanswered.Add(1)
	case wgResponse: // the other side initiated, and the device knows it: what we sent before is settled
		ep.settle()
	}
	return true
}

// settle ends the count of unanswered initiations.
func (e *endpoint) settle() {
	e.unanswered.Store(0)
	e.gate.settle()
}

// admit decides whether an initiation goes to the device. One from a path that no pong vouches for is held while the
// path is asked, and released with the pong.
func (c *core) admit(now time.Time, p *peer, from arrival, pkt []byte) bool {
	path := p.paths[from.addr]
	if path == nil || !p.known && !path.vouch {
		c.count.unconfirmedInitiation.Add(1)
		return false
	}
	if path.vouch || now.Sub(path.lastPong) < vouchFor {
		return c.enter(now, p)
	}
	p.held, p.heldFrom, p.heldAt = bytes.Clone(pkt), from.addr, now
	c.probe(now, p, path)
	c.schedule(now, p)
	return false
}

// enter asks the peer's gate about an initiation of the peer.
func (c *core) enter(now time.Time, p *peer) bool {
	if p.ep.gate.enter(now, c.self.ID().Compare(p.id) < 0) {
		return true
	}
	c.count.glare.Add(1)
	return false
}

// release hands a held initiation over now that its path has answered.
func (c *core) release(now time.Time, p *peer, from arrival) {
	switch {
	case p.held == nil:
		return
	case now.Sub(p.heldAt) >= holdFor:
		c.count.unconfirmedInitiation.Add(1)
	case p.heldFrom != from.addr:
		return // another path answered; the right one still may
	case c.enter(now, p):
		c.released = append(c.released, p.held)
	}
	p.held = nil
}
