package meshnet

import (
	"log/slog"

	"github.com/meshnet/meshnet/platform/windows"
)

func newSystem(log *slog.Logger) system { return windows.New(log) }
