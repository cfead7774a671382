package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/netmap"
)

// The reasons that a path is what it is, as users read them.
const (
	relayFirst    = "relay until something better answers"
	memberFirst   = "member: until something better answers"
	reasonHard    = "both NATs are hard (symmetric)"
	reasonBlocked = "UDP is blocked here"
	reasonTheirs  = "UDP is blocked there"
	reasonNowhere = "no direct address is known"
	reasonSilent  = "no direct candidate answered"
	reasonSmall   = "the direct path takes no full datagrams"
	reasonPieces  = "fragmented: no path takes full datagrams"
)

// firstSearch is how long a search goes on before nothing direct is a finding.
const firstSearch = 5 * time.Second

// reason says why the path to a peer is what it is now.
func (c *core) reason(now time.Time, p *peer) string {
	b := p.best
	switch {
	case b == nil || b.direct() && b.fit != fitSmall:
		return p.reason
	case b.direct():
		return reasonPieces
	}
	first := relayFirst
	if !b.relay {
		first = memberFirst
	}
	why := c.whyNotDirect(now, p)
	if why == "" {
		return first
	}
	return string(b.kind()) + ": " + why
}

// whyNotDirect says what stands in the way of a direct path; "" while that is being found out.
func (c *core) whyNotDirect(now time.Time, p *peer) string {
	known, small := false, false
	for _, path := range p.paths {
		known = known || path.direct()
		small = small || path.direct() && path.confirmed() && path.fit == fitSmall
	}
	switch {
	case small:
		return reasonSmall
	case c.nat == netmap.NATBlocked:
		return reasonBlocked
	case p.nat == netmap.NATBlocked:
		return reasonTheirs
	case p.rounds < 4 && now.Sub(p.best.since) < firstSearch:
		return ""
	case !known:
		return reasonNowhere
	case c.nat == netmap.NATHard && p.nat == netmap.NATHard:
		return reasonHard
	}
	return reasonSilent
}

// answerReason is why a path that has just answered becomes the best.
func (p *peer) answerReason(answered *path) string {
	switch {
	case p.best == nil || answered.rank() == p.best.rank():
		return "answered fastest"
	case answered.direct():
		return "a direct path answered"
	}
	return "it answered"
}

// The verdicts on candidates.
const (
	verdictUsed    = "in use"
	verdictDoubt   = "in use, in doubt"
	verdictWorks   = "works"
	verdictSmall   = "too small for data"
	verdictAsked   = "works, its size is asked"
	verdictGone    = "stopped answering"
	verdictSilent  = "no answer"
	verdictUntried = "not tried"
)

// verdict says what became of a path.
func (p *peer) verdict(path *path) string {
	switch {
	case path == p.best && !p.doubt.IsZero():
		return verdictDoubt
	case path == p.best && !path.dead:
		return verdictUsed
	case path.confirmed() && path.fit == fitSmall:
		return verdictSmall
	case path.confirmed() && !path.carries():
		return verdictAsked
	case path.confirmed():
		return verdictWorks
	case !path.lastPong.IsZero():
		return verdictGone
	case path.pings > 0:
		return verdictSilent
	}
	return verdictUntried
}
