package magicsock

import "time"

// A path is confirmed by a small ping, and then asked for the size of data: a ping of that size has a pong of that size, so
// one answer shows both directions.
//
//	pong ─▶ full-size ping ─┬─ pong: full, data may go by it
//	                        └─ sizeTries unanswered, and a small ping with the last of them answered: small; a ladder of
//	                           lesser sizes finds the largest that passes
//
// A small path carries data only while there is none better, and then what is too large for it goes in fragments.

const (
	// DefaultMTU is the inner MTU unless Config says otherwise.
	DefaultMTU = 1280
	// wireGuardOverhead is what a WireGuard data message adds to its packet (whitepaper §5.4.6).
	wireGuardOverhead = 32
	// sizeTries full-size pings go unanswered before a path that answers small ones is small.
	sizeTries = 4
	// sizeAgain is how long after that the full size is tried again while the peer is used.
	sizeAgain = 2 * time.Minute
)

// ladder are the sizes that a small path is asked for, in bytes of a datagram: what fits links of 1420, 1400, 1360, 1280
// (IPv4 and IPv6), 1024 and 576 bytes.
var ladder = [...]int{1392, 1372, 1332, 1252, 1232, 996, 548}

// fit is what is known of the sizes that a path carries.
type fit uint8

const (
	fitUnknown fit = iota
	fitFull        // datagrams of the full size pass
	fitSmall       // they do not
)

// sizing is what a path learnt of the sizes it carries.
type sizing struct {
	fit      fit
	size     int       // largest datagram that a pong confirmed, in bytes
	asked    int       // full-size pings unanswered
	askedAt  time.Time // the last of sizeTries left
	nextSize time.Time // the next one is due; zero: none is
}

// carries reports whether data of the full size passes.
func (p *path) carries() bool { return p.relay || p.fit == fitFull }

// most is the size beyond which datagrams do not pass in one piece; 0: nothing is known against any.
func (p *path) most() int {
	if p.fit == fitSmall {
		return max(p.size, 1)
	}
	return 0
}

// whole is the size up to which datagrams are sent in one piece; 0: all are. While the full size is asked for, it is what
// was confirmed.
func (p *path) whole() int {
	if p.relay || p.fit == fitFull {
		return 0
	}
	return max(p.size, p.most())
}

// fullSize is the size of the largest datagram of data.
func (c *core) fullSize() int { return c.mtu + wireGuardOverhead }

// askSize sends a full-size ping on a path that has just answered, unless one is under way.
func (c *core) askSize(now time.Time, p *peer, path *path) {
	if path.relay || path.fit != fitUnknown || !path.nextSize.IsZero() {
		return
	}
	c.pingFull(now, p, path)
}

func (c *core) pingFull(now time.Time, p *peer, path *path) {
	path.asked++
	path.nextSize = now.Add(path.doubtAfter())
	c.pingSize(now, p, path, c.fullSize(), true)
	if path.asked == sizeTries && path.fit != fitSmall {
		path.askedAt = now
		c.ping(now, p, path)
	}
}

// checkSizes goes on with full-size pings whose time has come.
func (c *core) checkSizes(now time.Time, p *peer) {
	for _, path := range p.paths {
		if path.nextSize.IsZero() || now.Before(path.nextSize) {
			continue
		}
		switch {
		case !path.confirmed():
			path.nextSize = time.Time{}
		case path.fit == fitSmall && !p.inUse(now):
			path.nextSize, path.asked, path.fit = time.Time{}, 0, fitUnknown
		case path.fit != fitSmall && path.asked >= sizeTries && path.lastPong.Before(path.askedAt):
			path.asked, path.nextSize = 0, time.Time{} // it answers nothing at all, which says nothing of its size
		case path.fit != fitSmall && path.asked >= sizeTries:
			c.foundSmall(now, p, path)
		default:
			c.pingFull(now, p, path)
			if path.fit == fitSmall {
				path.nextSize = now.Add(sizeAgain)
			}
		}
	}
}

// proveAgain asks a path that carries data whether it still takes the full size: what stands between may have changed.
func (c *core) proveAgain(now time.Time, p *peer, path *path) {
	if path.fit == fitFull && path.nextSize.IsZero() && p.inUse(now) {
		c.pingFull(now, p, path)
	}
}

// foundSmall notes that full-size datagrams do not pass, and asks for what does.
func (c *core) foundSmall(now time.Time, p *peer, path *path) {
	path.fit, path.nextSize = fitSmall, now.Add(sizeAgain)
	for _, size := range ladder {
		if size < c.fullSize() && size > path.size {
			c.pingSize(now, p, path, size, true)
		}
	}
	c.choose(now, p, "the path before it takes no full datagrams")
	if path == p.best {
		p.republish()
	}
}

// passed notes the size of a ping that was answered.
func (c *core) passed(now time.Time, p *peer, path *path, size int) {
	if size > path.size {
		path.size = size
	}
	if size < c.fullSize() {
		c.askSize(now, p, path)
		return
	}
	path.fit, path.asked, path.nextSize = fitFull, 0, time.Time{}
}

// tooLarge takes the refusal of a datagram by this host: no link of ours takes it that way.
func (c *core) tooLarge(now time.Time, p *peer, by way, size int) {
	path := p.paths[by]
	if path == nil || path.relay || size <= path.size && path.fit == fitSmall {
		return
	}
	path.size = min(path.size, size-1)
	if path.fit != fitSmall {
		c.foundSmall(now, p, path)
	}
	c.schedule(now, p)
}
