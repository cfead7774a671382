package main

import (
	"context"
	"runtime"
	"time"
)

const (
	calmShare = 0.05                   // of the machine that may be busy with something else
	calmLook  = 250 * time.Millisecond // how long a look takes
	calmWait  = 2 * time.Second        // for one measurement
)

// calm looks whether the machine has something else to do. Owned by the run's goroutine.
type calm struct {
	left time.Duration // to wait; after it, measurements are only marked
}

// wait returns when the machine is idle, or has not become so in time; then noisy is true.
func (c *calm) wait(ctx context.Context) (noisy bool) {
	start := time.Now()
	for {
		if share, err := busyShare(ctx, calmLook); err != nil || share <= calmShare {
			return false
		}
		if waited := time.Since(start); waited > min(calmWait, c.left) {
			c.left = max(0, c.left-waited)
			return true
		}
	}
}

// busyShare is the part of all CPUs' time that was used within a while.
func busyShare(ctx context.Context, length time.Duration) (float64, error) {
	before, err := usageNow(nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := usageNow(nil)
	used := after.since(before).Machine.Seconds()
	return used / time.Since(start).Seconds() / float64(runtime.NumCPU()), err
}
