//go:build !linux && !darwin && !windows

package meshnet

import (
	"log/slog"
	"runtime"

	"github.com/meshnet/meshnet/platform"
)

func newSystem(log *slog.Logger) system { return platform.NewPolled(runtime.GOOS, log) }
