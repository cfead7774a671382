package meshnet

import (
	"log/slog"

	"github.com/meshnet/meshnet/platform/linux"
)

func newSystem(log *slog.Logger) system { return linux.New(log) }
