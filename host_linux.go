package meshnet

import (
	"crypto/sha256"
	"os"
)

// hostTag is the same for nodes that share this host's loopback: one boot of one kernel, one network namespace. Zero
// when the system does not tell.
func hostTag() [8]byte {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return [8]byte{}
	}
	namespace, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return [8]byte{}
	}
	sum := sha256.Sum256(append(boot, namespace...))
	return [8]byte(sum[:8])
}
