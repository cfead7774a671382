package ring

// count is something that happened to a signal here.
type count uint8

const (
	sent count = iota
	noWay
	retried
	delivered
	forwarded
	returned
	lost
	malformed
	muted
	limited
	strangers
	late
	duplicate
	unverified
	forged
	exhausted
	deadEnd
	unknown
	astray
	counts
)

var countNames = [counts]string{
	sent: "sent", noWay: "no_way", retried: "retried", delivered: "delivered", forwarded: "forwarded",
	returned: "returned", lost: "lost", malformed: "malformed", muted: "muted", limited: "limited",
	strangers: "strangers", late: "late", duplicate: "duplicate", unverified: "unverified", forged: "forged",
	exhausted: "exhausted", deadEnd: "dead_end", unknown: "unknown", astray: "astray",
}

// Counters count since the start, by name:
//
//	sent        frames with signals of this node, one for each way and try
//	no_way      signals of this node that were not sent or came to dead ends by both ways
//	retried     frames sent again by another session, since the one before stayed silent
//	delivered   signals for this node
//	forwarded   signals of others passed on
//	returned    no-routes passed back
//	lost        signals given up after several sessions stayed silent
//
// and what was dropped:
//
//	malformed   frames that are none
//	muted       frames of a neighbour that lately sent something malformed or forged
//	limited     beyond the quota of a neighbour or an origin
//	strangers   from an origin that is no member here, or this node's own
//	late        more than 2 minutes from the mesh's time
//	duplicate   seen before
//	unverified  beyond what is verified in a second
//	forged      with a signature that does not hold
//	exhausted   at the end of their TTL
//	dead_end    without a next hop: answered with no-route
//	unknown     of kinds, types or fields that a newer version knows
//	astray      answers to nothing that was asked of that neighbour
func (r *Router) Counters() map[string]uint64 {
	all := make(map[string]uint64, counts)
	for i, name := range countNames {
		all[name] = r.counts[i]
	}
	return all
}
