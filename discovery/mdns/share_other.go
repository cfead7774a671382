//go:build !unix && !windows

package mdns

import (
	"errors"
	"syscall"
)

const bind4 = "0.0.0.0:5353"

func share(_, _ string, _ syscall.RawConn) error {
	return errors.New("multicast DNS shares its port, which this system does not do")
}
