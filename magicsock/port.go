package magicsock

import (
	"errors"
	"syscall"
)

// portTaken reports whether a socket could not be opened because somebody has the port.
func portTaken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
