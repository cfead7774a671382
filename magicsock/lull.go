package magicsock

import "time"

const (
	// lullReads is after how many reads is decided anew, and lullWithin how soon these have to come for pauses to save
	// something.
	lullReads  = 64
	lullWithin = lullReads * time.Millisecond
	// lullGather packets are let gather in the socket, which has room for more, but for no longer than lullMost: the
	// first genuine packet beside a flood may wait for so long.
	lullGather = 64
	lullMost   = 4 * time.Millisecond
)

// lull has a leg look seldom, and then for many packets at once, while it is flooded with what is nothing for the data
// path. To wake for each of them costs ten times what they cost themselves. Owned by the goroutine of one leg.
//
//	off ── 64 reads within 64 ms, 7 of 8 dull ─▶ on ── 64 reads took longer, or were not so dull ─▶ off
type lull struct {
	pause                time.Duration // 0: off
	reads, dull, packets int           // since begun
	begun                time.Time
}

// after takes a read of some packets: dull when nothing of it went to the data path, drained when it left nothing behind.
// It returns how long to wait with the next one.
func (l *lull) after(now time.Time, packets int, dull, drained bool) time.Duration {
	if l.reads == 0 {
		l.begun = now
	}
	l.reads++
	l.packets += packets
	if dull {
		l.dull++
	}
	if l.reads == lullReads {
		l.decide(now.Sub(l.begun))
		l.reads, l.dull, l.packets = 0, 0, 0
	}
	if !drained {
		return 0
	}
	return l.pause
}

// decide sets the pause after lullReads reads that took a while.
func (l *lull) decide(took time.Duration) {
	l.pause = 0
	if took < lullWithin && l.dull >= lullReads*7/8 {
		l.pause = min(lullMost, took*lullGather/time.Duration(l.packets))
	}
}
