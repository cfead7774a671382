package mdns

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// bind4 is any address: Windows binds to no group.
const bind4 = "0.0.0.0:5353"

// share lets a socket share its port with other programs' before it is bound.
func share(_, _ string, c syscall.RawConn) error {
	var err error
	outer := c.Control(func(fd uintptr) {
		err = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1)
	})
	return errors.Join(outer, err)
}
