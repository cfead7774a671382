//go:build !windows

package tunnel

import "gvisor.dev/gvisor/pkg/tcpip"

// platformTCP is what TCP needs on this system beyond the defaults.
func platformTCP() []tcpip.SettableTransportProtocolOption { return nil }
