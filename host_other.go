//go:build !linux

package meshnet

import (
	"crypto/sha256"
	"net"
	"os"
)

// hostTag is the same for nodes that share this host's loopback: the host's name and hardware addresses. Zero when
// the system does not tell.
func hostTag() [8]byte {
	name, err := os.Hostname()
	if err != nil {
		return [8]byte{}
	}
	h := sha256.New()
	h.Write([]byte(name))
	links, err := net.Interfaces()
	if err != nil {
		return [8]byte{}
	}
	for _, l := range links {
		h.Write(l.HardwareAddr)
	}
	return [8]byte(h.Sum(nil)[:8])
}
