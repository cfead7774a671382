package magicsock

import (
	"bytes"
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
	// glareFor is how long our own initiation makes us deaf to the other's, if our PeerID is the lower one.
	glareFor = time.Second
)

func isWireGuard(pkt []byte) bool {
	return len(pkt) >= 32 && pkt[0] >= wgInitiation && pkt[0] <= wgTransport && pkt[1] == 0 && pkt[2] == 0 && pkt[3] == 0
}

// noteOutgoing watches the handshakes that the device sends.
func (c *Conn) noteOutgoing(now time.Time, ep *endpoint, pkts [][]byte) {
	if len(pkts) != 1 || len(pkts[0]) == 0 {
		return
	}
	switch pkts[0][0] {
	case wgInitiation:
		ep.initiated.Store(now.UnixNano())
		ep.unanswered.Add(1)
	case wgResponse: // the other side initiated, and the device knows it: what we sent before is settled
		ep.unanswered.Store(0)
	}
}

// admit decides whether an initiation goes to the device. One from a path that no pong vouches for is held while the
// path is asked, and released with the pong.
func (c *core) admit(now time.Time, p *peer, from arrival, pkt []byte) bool {
	path := p.paths[from.addr]
	if path == nil || !p.known && !path.vouch {
		c.count.unconfirmedInitiation.Add(1)
		return false
	}
	if now.UnixNano()-p.ep.initiated.Load() < int64(glareFor) && c.self.ID().Compare(p.id) < 0 &&
		p.ep.unanswered.Load() > 0 {
		c.count.glare.Add(1)
		return false
	}
	if path.vouch || now.Sub(path.lastPong) < vouchFor {
		return true
	}
	p.held, p.heldFrom, p.heldAt = bytes.Clone(pkt), from.addr, now
	c.probe(now, p, path)
	c.schedule(now, p)
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
	default:
		c.released = append(c.released, p.held)
	}
	p.held = nil
}
