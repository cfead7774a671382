package tunnel

import "gvisor.dev/gvisor/pkg/tcpip"

// platformTCP turns RACK off: with the coarse clock of Windows it stalls (gvisor PR 14492, not in this version).
func platformTCP() []tcpip.SettableTransportProtocolOption {
	recovery := tcpip.TCPRecovery(0)
	return []tcpip.SettableTransportProtocolOption{&recovery}
}
