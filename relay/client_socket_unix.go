//go:build linux || darwin

package relay

import "golang.org/x/sys/unix"

func limitUnsent(fd uintptr) {
	unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes) // as far as it goes
}
