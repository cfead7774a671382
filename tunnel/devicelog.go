package tunnel

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// At most errorLogs of the device's errors are logged per errorLogPeriod: some come once per packet.
const (
	errorLogs      = 5
	errorLogPeriod = 10 * time.Second
)

// deviceLogger adapts the device's printf functions. What it calls errors (a packet not sent) degrades at most.
func deviceLogger(log *slog.Logger) *device.Logger {
	var limit logLimit
	return &device.Logger{
		Verbosef: func(format string, args ...any) {
			if log.Enabled(context.Background(), slog.LevelDebug) {
				log.Debug("wireguard: " + fmt.Sprintf(format, args...))
			}
		},
		Errorf: func(format string, args ...any) {
			if ok, suppressed := limit.allow(time.Now()); ok {
				log.Warn("wireguard: "+fmt.Sprintf(format, args...), "suppressed", suppressed)
			}
		},
	}
}

// logLimit counts what a period may still log. Guarded by mu.
type logLimit struct {
	mu         sync.Mutex
	start      time.Time
	used       int
	suppressed int
}

// allow tells whether to log, and how many were held back before this one.
func (l *logLimit) allow(now time.Time) (ok bool, suppressed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.start) >= errorLogPeriod {
		l.start, l.used = now, 0
	}
	if l.used >= errorLogs {
		l.suppressed++
		return false, 0
	}
	l.used++
	suppressed, l.suppressed = l.suppressed, 0
	return true, suppressed
}
