package platform

import (
	"context"
	"log/slog"
	"time"
)

const (
	// QuietTime is the least time between two calls of a watcher's changed.
	QuietTime = time.Second
	// PollInterval is how often systems without a monitor are looked at.
	PollInterval = 5 * time.Second
)

// Coalesce calls changed for what comes through changes, until ctx is done: for the first at once, for a burst behind
// it once a second. It never loses the last. changes should have room for one value.
func Coalesce(ctx context.Context, changes <-chan struct{}, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
		}
		changed()
		quiet := time.NewTimer(QuietTime)
		select {
		case <-ctx.Done():
			quiet.Stop()
			return
		case <-quiet.C:
		}
	}
}

// Poll looks at the host every PollInterval and calls changed when it differs from the last look, until ctx is done,
// whose error it returns. The link own may change as it likes.
func Poll(ctx context.Context, log *slog.Logger, own func() string, look func() (Host, error), changed func()) error {
	last, err := look()
	if err != nil {
		return err
	}
	tick := time.NewTicker(PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now, err := look()
		if err != nil {
			log.Debug("network snapshot failed", "err", err)
			continue
		}
		if !now.Same(last, own()) {
			last = now
			changed()
		}
	}
}
