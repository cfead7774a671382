package udp

import (
	"errors"

	"golang.org/x/sys/windows"
)

const (
	flagTruncated = 0x100 // MSG_TRUNC
	pktinfoOut    = false // x/net cannot write it here
)

// truncated: the datagram was larger than the buffer, or than the link.
func truncated(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }

func noBuffers(err error) bool { return errors.Is(err, windows.WSAENOBUFS) }

// aboutEarlier: an ICMP message about an earlier datagram.
func aboutEarlier(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAENETRESET)
}
