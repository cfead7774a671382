//go:build unix && !linux

package udp

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	flagTruncated = unix.MSG_TRUNC
	pktinfoOut    = true
)

// truncated: the datagram was larger than the buffer, or than the link.
func truncated(err error) bool { return errors.Is(err, unix.EMSGSIZE) }

func noBuffers(err error) bool { return errors.Is(err, unix.ENOBUFS) }

// aboutEarlier: an ICMP message about an earlier datagram.
func aboutEarlier(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET)
}
