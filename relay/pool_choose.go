package relay

import (
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// How long a server on which a peer is not is passed over for it: doubled each time, until the peer is heard by it.
const (
	goneFirst = 2 * time.Second
	goneMax   = 30 * time.Second
	maxGone   = 8 // servers remembered for a peer
)

// heardTime is how long a peer is expected where it was heard last, homes or not: it leaves a server that is no home of
// its after idleTime without datagrams.
const heardTime = idleTime * 3 / 4

// choiceTime is how long a choice of a server holds: the homes of a peer may change without notice.
const choiceTime = time.Second

// peer is what is known of one node that datagrams came from or went to.
type peer struct {
	heard   atomic.Pointer[server] // that the newest datagram came by
	heardAt atomic.Int64           // when, in ns since the pool began
	choice  atomic.Pointer[choice]
	gone    []absence // guarded by Pool.mu
}

// absence is a server that said that a peer is not there.
type absence struct {
	server *server
	until  time.Time
	wait   time.Duration
}

// choice is the server to send by. Immutable.
type choice struct {
	server     *server // nil: there is none
	generation uint64  // of the pool, when it was made
	until      time.Time
}

// wasGone remembers that a server does not know the peer.
func (p *peer) wasGone(now time.Time, s *server) {
	for i := range p.gone {
		if a := &p.gone[i]; a.server == s {
			a.wait = min(2*a.wait, goneMax)
			a.until = now.Add(a.wait)
			return
		}
	}
	if len(p.gone) == maxGone {
		p.gone = append(p.gone[:0], p.gone[1:]...)
	}
	p.gone = append(p.gone, absence{s, now.Add(goneFirst), goneFirst})
}

// isBack forgets what was remembered of a server.
func (p *peer) isBack(s *server) {
	for i, a := range p.gone {
		if a.server == s {
			p.gone = append(p.gone[:i], p.gone[i+1:]...)
			return
		}
	}
}

// absent reports whether the peer is not on a server, as far as that is known.
func (p *peer) absent(now time.Time, s *server) bool {
	if p == nil {
		return false
	}
	for _, a := range p.gone {
		if a.server == s {
			return now.Before(a.until)
		}
	}
	return false
}

// pick chooses the server to reach a peer by, whose homes are given: the one it was just heard by; a home of it that is
// connected; a home of it that can be dialled; the one it was heard by before; a home of our own, where it may be as
// well. Those that are in doubt, or are dialled without success, come last. A home that no server is known for yet is returned as its URL. Neither: no
// server might reach the peer now.
func (r *roster) pick(now time.Time, p *peer, homes []URL) (s *server, named URL) {
	heard, just := r.heard(now, p)
	if just {
		return heard, URL{}
	}
	var last *server // resort
	for _, u := range homes {
		s := r.servers[u]
		switch {
		case s == nil || p.absent(now, s):
		case isConnected(s):
			return s, URL{}
		case s.phase == connected, last == nil && s.slow(now):
			last = s
		}
	}
	for _, u := range homes {
		switch s := r.servers[u]; {
		case s == nil:
			return nil, u
		case s.dialable(now) && !p.absent(now, s):
			return s, URL{}
		}
	}
	if heard != nil {
		return heard, URL{}
	}
	if s := r.ours(now, p); s != nil && (isConnected(s) || last == nil) {
		return s, URL{}
	}
	return last, URL{}
}

// heard is the server that a peer was heard by last, if it may still be there, and whether that was just now.
func (r *roster) heard(now time.Time, p *peer) (s *server, just bool) {
	if p == nil {
		return nil, false
	}
	if s = p.heard.Load(); s == nil || !isConnected(s) || p.absent(now, s) {
		return nil, false
	}
	return s, now.Sub(r.began)-time.Duration(p.heardAt.Load()) < heardTime
}

// ours is a server of our own that a peer without a home may be on: one that is connected, then one that can be
// dialled, then what is left.
func (r *roster) ours(now time.Time, p *peer) *server {
	var dialable, last *server
	for _, list := range [][]*server{r.homes, r.own} {
		for _, s := range list {
			switch {
			case p.absent(now, s):
			case isConnected(s):
				return s
			case s.dialable(now) && dialable == nil:
				dialable = s
			case s.phase != idle && last == nil:
				last = s
			}
		}
	}
	if dialable != nil {
		return dialable
	}
	return last
}

// maxPeers is how many peers half of a peerCache holds.
const maxPeers = 4096

// peerCache is the peers that were used lately. When it is full those not used since the last time are forgotten, so
// that strangers who send under many keys cost a bounded amount. Guarded by a lock of whoever has it.
type peerCache struct{ young, old map[identity.PeerID]*peer }

// find looks for a peer that is young, which needs the lock for reading only.
func (c *peerCache) find(id identity.PeerID) *peer { return c.young[id] }

// peek looks for a peer without making it young; nil: there is none.
func (c *peerCache) peek(id identity.PeerID) *peer {
	if p := c.young[id]; p != nil {
		return p
	}
	return c.old[id]
}

// get finds or makes a peer.
func (c *peerCache) get(id identity.PeerID) *peer {
	if p := c.young[id]; p != nil {
		return p
	}
	p := c.old[id]
	if p == nil {
		p = new(peer)
	}
	if len(c.young) >= maxPeers {
		c.young, c.old = nil, c.young
	}
	if c.young == nil {
		c.young = make(map[identity.PeerID]*peer)
	}
	c.young[id] = p
	return p
}
