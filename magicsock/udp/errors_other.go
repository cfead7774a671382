//go:build !unix && !windows

package udp

const (
	flagTruncated = 0
	pktinfoOut    = false
)

func truncated(error) bool { return false }

func noBuffers(error) bool { return false }

func aboutEarlier(error) bool { return false }
