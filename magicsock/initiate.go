package magicsock

import (
	"cmp"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// maxTargets is how many paths one handshake initiation goes by.
const maxTargets = 16

// PeerByKey returns the handle of the member, or of the provisional peer, that has a WireGuard key; nil when nobody
// has it. The handle stands for the peer as long as that key is its key; after it, it sends nothing. A member that is
// asked for is remembered with its paths, about 3 KiB, until it was not used for ten minutes. Its handle works beyond
// that, though slowly: it is worth asking for another at each handshake.
func (c *Conn) PeerByKey(key identity.WGKey) datagram.Peer {
	var found *handle
	now := time.Now()
	c.doAt(now, func(core *core) {
		if p := core.peerByKey(now, key); p != nil {
			found = p.handle
		}
	})
	if found == nil {
		return nil
	}
	return found
}

// Connected tells that there is a session with a member, so that it is looked for no longer.
func (c *Conn) Connected(id identity.PeerID) {
	now := time.Now()
	c.doAt(now, func(core *core) {
		if p := core.peers[id]; p != nil {
			p.usedAt, p.wantedAt = now, time.Time{}
			if p.best != nil {
				core.answered(p, p.best.way)
			}
			core.schedule(now, p)
		}
	})
}

// SendAll sends a handshake initiation by the route, every confirmed path, the relay leg, addresses that Intro and
// Welcome vouch for, and unconfirmed candidates within their limits; by maxTargets in all. The peer is looked for as
// Contact does.
func (h *handle) SendAll(now time.Time, pkt []byte) {
	h.conn.doAt(now, func(core *core) {
		if p := core.peerByKey(now, h.wg); p != nil {
			core.sendAll(now, p, pkt)
		} else {
			core.count.noRoute.Add(1)
		}
	})
}

// sendAll queues an initiation for every path that might work, ahead of the pings that look for the peer. Those take
// their share of the limits first.
func (c *core) sendAll(now time.Time, p *peer, pkt []byte) {
	before := len(c.sends)
	if p.known {
		c.want(now, p)
	}
	pings := slices.Clone(c.sends[before:])
	c.sends = c.sends[:before]
	for _, path := range p.byPromise() {
		if len(c.sends)-before == maxTargets {
			break
		}
		if !c.mayInitiate(now, p, path) {
			continue
		}
		path.initiated(now)
		path.meter.tx.Add(uint64(len(pkt)))
		p.handle.kinds[path.rank()].tx.Add(uint64(len(pkt)))
		c.sends = append(c.sends, send{line: line{path.way, path.local}, peer: p.handle, pkt: pkt})
	}
	if len(c.sends) == before {
		c.count.noRoute.Add(1)
	}
	c.sends = append(c.sends, pings...)
	c.schedule(now, p)
}

// mayInitiate decides whether an initiation goes by a path. To an address that nobody confirmed it is one more probe,
// with the budget of probes and a backoff of its own.
func (c *core) mayInitiate(now time.Time, p *peer, path *path) bool {
	switch {
	case path.relay || path.sid != 0:
		return true
	case path == p.best && !path.dead || path.confirmed() || path.vouch:
		return true
	case path.inits > 0 && now.Before(path.lastInit.Add(backoff(path.inits+1))):
		return false
	}
	return c.mayProbe(now, p, path)
}

// byPromise lists the paths, the likeliest to work first.
func (p *peer) byPromise() []*path {
	all := make([]*path, 0, len(p.paths))
	for _, path := range p.paths {
		all = append(all, path)
	}
	slices.SortFunc(all, func(a, b *path) int {
		return cmp.Or(
			cmp.Compare(p.promise(a), p.promise(b)),
			cmp.Compare(a.rank(), b.rank()),
			cmp.Compare(a.cost(), b.cost()),
			b.heard.Compare(a.heard),
			a.addr.Compare(b.addr),
		)
	})
	return all
}

// promise ranks a path: 0 is the route.
func (p *peer) promise(path *path) int {
	switch {
	case path == p.best:
		return 0
	case path.confirmed() && !path.relay:
		return 1
	case path.relay || path.sid != 0:
		return 2
	case path.vouch:
		return 3
	}
	return 4
}
