package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/identity"
)

// forgetAfter is how long a member's state outlives the last packet to or from it, and the last time that one of us
// looked for the other. WireGuard's sessions are over long before.
const forgetAfter = 10 * time.Minute

// forgettable reports whether the network map knows enough of the peer to begin anew. It does not know of a clock whose
// hours are others; and who brought a provisional peer also takes it away.
func (p *peer) forgettable() bool { return p.known && p.hours == 0 && !p.home }

// lastUsed is when packets went or came last, or one of us looked for the other. Pings alone are no use.
func (p *peer) lastUsed() time.Time {
	if at := p.handle.at(p.handle.used.Load()); at.After(p.usedAt) {
		return at
	}
	return p.usedAt
}

// forget gives back what is known of a member that was not used for forgetAfter, but for what the network map says. It
// reports whether it did.
//
//	member ── asked for, or a contact packet ──▶ peer ── forgetAfter ──▶ member
func (c *core) forget(now time.Time, p *peer) bool {
	if !p.forgettable() || now.Sub(p.lastUsed()) < forgetAfter {
		return false
	}
	if p.best != nil && !p.best.relay {
		c.tell(Event{
			Type: EventPathChanged, Peer: p.id, Path: c.unmet(p.id), Old: c.pathInfo(p, p.best),
			Reason: "not used for ten minutes",
		})
	}
	c.drop(p)
	return true
}

// unmet is the path to a member that is no peer.
func (c *core) unmet(id identity.PeerID) PathInfo {
	if c.reaches(id) {
		return PathInfo{Kind: PathRelay, Server: c.relay.Via(id)}
	}
	return PathInfo{Kind: PathNone}
}
