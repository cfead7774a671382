package magicsock

import "time"

const (
	// lullReads is after how many reads is decided anew.
	lullReads = 64
	// lullWithin is how soon these have to come for a pause to save something.
	lullWithin = lullReads * time.Millisecond
	// lullPause lets some forty packets gather of a flood of 20 000 a second. It is what the first genuine packet may
	// wait beside a flood, and far below what the socket's buffer holds.
	lullPause = 2 * time.Millisecond
)

// lull has a leg look seldom, and then for many packets at once, while it is flooded with what is nothing for the data
// path. To wake for each of them costs ten times what they cost themselves. Owned by the goroutine of one leg.
//
//	off ── 64 reads within 64 ms, 7 of 8 dull ─▶ on ── 64 reads took longer, or were not so dull ─▶ off
type lull struct {
	on          bool
	reads, dull int
	begun       time.Time
}

// after takes a read: dull when nothing of it went to the data path, drained when it left nothing behind. It returns how
// long to wait with the next one.
func (l *lull) after(now time.Time, dull, drained bool) time.Duration {
	if l.reads == 0 {
		l.begun = now
	}
	l.reads++
	if dull {
		l.dull++
	}
	if l.reads == lullReads {
		l.on = now.Sub(l.begun) < lullWithin && l.dull >= lullReads*7/8
		l.reads, l.dull = 0, 0
	}
	if !l.on || !drained {
		return 0
	}
	return lullPause
}
