package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/hop"
)

// A datagram by way of a member that relays stands in a frame (magicsock/hop), which names a session of that relay. So the
// path is named by the relay's address and the session.

// sortFrames handles a run of frames of one session: one of ours that a path is known for, or one that this node relays.
func (in *intake) sortFrames(now time.Time, t *datagram.Train, sid uint32, run []byte) {
	from := t.From
	from.Via = sid
	switch {
	case in.conn.core.hasSession(wayOf(&from)):
		inner := hop.Strip(run, t.Size)
		in.sort(now, &datagram.Train{Data: inner, Size: min(t.Size-hop.HeaderSize, len(inner)), From: from})
	case in.conn.core.serving.on.Load():
		in.forward(now, t, sid, run)
	default:
		in.conn.core.count.sessionUnknown.Add(1)
	}
}

// addSession makes the path to a peer by a session at a member that relays. nil: there are too many paths.
func (c *core) addSession(now time.Time, p *peer, by way, relay *peer) *path {
	path := c.addPath(p, by)
	if path == nil {
		return nil
	}
	path.named, path.via = true, relay.id
	c.publishSession(by, true)
	c.probe(now, p, path)
	c.schedule(now, p)
	return path
}

// dropSession ends a path by a session that is over.
func (c *core) dropSession(now time.Time, p *peer, by way) {
	if path := p.paths[by]; path != nil {
		c.dropPath(now, p, path, "the session at the relaying member is over")
	}
}

// hasSession reports whether a way is a session that a path is known for. Safe for concurrent use.
func (c *core) hasSession(by way) bool {
	all := c.sessions.Load()
	return all != nil && (*all)[by]
}

// publishSession replaces what hasSession knows.
func (c *core) publishSession(by way, open bool) {
	next := make(map[way]bool)
	if all := c.sessions.Load(); all != nil {
		for w := range *all {
			next[w] = true
		}
	}
	delete(next, by)
	if open {
		next[by] = true
	}
	c.sessions.Store(&next)
}
