package windows

import (
	"log/slog"

	"github.com/meshnet/meshnet/platform"
)

// System looks at a Windows host. Immutable.
type System struct {
	*platform.Polled
}

// New returns the system. A nil logger discards.
func New(log *slog.Logger) *System { return &System{platform.NewPolled("windows", log)} }
