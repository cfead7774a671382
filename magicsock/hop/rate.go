package hop

import (
	"sync/atomic"
	"time"
)

// rate lets so many bytes a second pass. It is the generic cell rate algorithm (ITU-T I.371) on one word, so that any
// number of goroutines ask it at once.
type rate struct {
	perSecond int64 // bytes; 0: no limit
	until     atomic.Int64
}

// burst is how long a time's bytes pass at once after a pause.
const burst = 100 * time.Millisecond

// minBurst holds at least the largest train, twice.
const minBurst = 2 << 16

// take returns how many of size bytes may pass at a time in nanoseconds: a multiple of unit, or all.
func (r *rate) take(now int64, size, unit int) int {
	if r.perSecond <= 0 {
		return size
	}
	perByte := float64(time.Second) / float64(r.perSecond)
	depth := max(int64(burst), int64(minBurst*perByte))
	for {
		until := r.until.Load()
		from := max(until, now)
		granted := size
		if free := int(float64(now+depth-from) / perByte); free < size {
			granted = max(free/unit, 0) * unit
		}
		if granted == 0 || r.until.CompareAndSwap(until, from+int64(float64(granted)*perByte)) {
			return granted
		}
	}
}
