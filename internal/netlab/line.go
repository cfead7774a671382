package netlab

import (
	"math/rand/v2"
	"time"
)

// Line is what a cable does to frames, each way by itself. The zero value does nothing. Frames never overtake each
// other.
type Line struct {
	MTU    int           // 0 leaves the kernel's 1500
	Delay  time.Duration // one way
	Jitter time.Duration // at most this is added to Delay, drawn for each frame
	Loss   float64       // probability of losing a frame, 0 to 1
	Rate   int64         // bits per second; 0 is as fast as it goes
	Queue  time.Duration // frames that would wait longer for Rate are dropped; default 100 ms
	Seed   uint64        // of Jitter and Loss; the same number of frames then has the same fate
}

// The bounds of a line.
const (
	defaultQueue = 100 * time.Millisecond
	lineFrames   = 16384 // under way in one direction; what comes then is dropped
)

// lane decides about the frames of one direction. Owned by the goroutine that reads them.
type lane struct {
	line Line
	rng  *rand.Rand
	free time.Time // when the frame before has been sent at Rate
	last time.Time // when it arrives
}

// newLane makes the lane of a direction, 0 or 1: they draw different numbers.
func newLane(line Line, direction uint64) *lane {
	if line.Queue == 0 {
		line.Queue = defaultQueue
	}
	return &lane{line: line, rng: rand.New(rand.NewPCG(line.Seed, direction))}
}

// admit returns when a frame of size bytes that is sent now arrives; false when it does not.
func (l *lane) admit(now time.Time, size int) (time.Time, bool) {
	if l.line.Loss > 0 && l.rng.Float64() < l.line.Loss {
		return time.Time{}, false
	}
	at := now
	if l.line.Rate > 0 {
		if l.free.After(at) {
			at = l.free
		}
		if at.Sub(now) > l.line.Queue {
			return time.Time{}, false
		}
		at = at.Add(time.Duration(float64(size*8) / float64(l.line.Rate) * float64(time.Second)))
		l.free = at
	}
	at = at.Add(l.line.Delay)
	if l.line.Jitter > 0 {
		at = at.Add(time.Duration(l.rng.Int64N(int64(l.line.Jitter) + 1)))
	}
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	return at, true
}
