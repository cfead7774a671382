//go:build unix

package relayserver_test

import (
	"syscall"
	"time"
)

// cpuTime is what this process used until now: both clients and the relay.
func cpuTime() time.Duration {
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
