package wg

import "time"

// The constants of the WireGuard paper, §6.1.
const (
	RekeyAfterMessages  = 1 << 60
	RejectAfterMessages = 1<<64 - 1<<13 - 1
	RekeyAfterTime      = 120 * time.Second
	RejectAfterTime     = 180 * time.Second
	RekeyAttemptTime    = 90 * time.Second
	RekeyTimeout        = 5 * time.Second
	KeepaliveTimeout    = 10 * time.Second
)

const (
	// unheardTimeout is how long data goes unanswered before a new handshake.
	unheardTimeout = KeepaliveTimeout + RekeyTimeout
	// lateRekey is the age at which who did not begin a session, or only receives, begins a new one: in time for an
	// initiation that is lost.
	lateRekey = RejectAfterTime - unheardTimeout
	// maxPending bounds own initiations of a peer that may still be answered, and sessions that wait to be confirmed.
	maxPending = 4
	// maxPrevious bounds replaced sessions: all that two series which cross on a slow line can bring, and the one before.
	maxPrevious = 2 * maxPending
	// initiationGap is the least time between two initiations of one peer that are answered.
	initiationGap = 10 * time.Millisecond
	// yield is how long an initiation of theirs puts off the next one of ours.
	yield = 250 * time.Millisecond
	// kickGap is the least age of an initiation that a path which begins to work makes us repeat. It doubles each time,
	// maxKicks times at most, until the series goes on.
	kickGap  = 20 * time.Millisecond
	maxKicks = 8
)

// seriesOffsets are the times of a handshake's first initiations, from its start. RekeyTimeout lies between later ones.
var seriesOffsets = [...]time.Duration{
	0, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
}
