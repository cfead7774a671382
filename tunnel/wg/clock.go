package wg

import "time"

// Clock turns times into the numbers that atomics hold. Immutable.
type Clock struct{ epoch time.Time }

// NewClock counts from epoch, which should have a monotonic reading.
func NewClock(epoch time.Time) Clock { return Clock{epoch} }

// At is t in nanoseconds, never 0 for a time after the epoch: 0 means that something has not happened.
func (c Clock) At(t time.Time) int64 { return int64(t.Sub(c.epoch)) + 1 }

// Time is the inverse of At; the zero time for 0.
func (c Clock) Time(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return c.epoch.Add(time.Duration(at - 1))
}
