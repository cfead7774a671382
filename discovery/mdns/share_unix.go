//go:build unix

package mdns

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind4 is the group: what is sent to this host alone is left to others that share the port.
const bind4 = "224.0.0.251:5353"

// share lets a socket share its port with other programs' before it is bound.
func share(_, _ string, c syscall.RawConn) error {
	var err error
	outer := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(outer, err)
}
