package portmap

import "time"

// epoch is a router's clock, which starts again when it has lost its mappings. The zero value knows nothing.
type epoch struct {
	at    time.Time // when it was read
	value uint32    // seconds
}

// read takes a new reading and reports whether the router still has what it had at the last one (RFC 6887 §8.5). The
// clocks may differ by a sixteenth, and by two seconds.
func (e *epoch) read(now time.Time, value uint32) (kept bool) {
	last := *e
	*e = epoch{now, value}
	if last.at.IsZero() {
		return true
	}
	if int64(value) < int64(last.value)-1 {
		return false
	}
	ours, theirs := int64(now.Sub(last.at)/time.Second), max(int64(value)-int64(last.value), 0)
	return ours+2 >= theirs-theirs/16 && theirs+2 >= ours-ours/16
}
