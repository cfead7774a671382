package meshnet

import (
	"log/slog"

	"github.com/meshnet/meshnet/platform/darwin"
)

func newSystem(log *slog.Logger) system { return darwin.New(log) }
