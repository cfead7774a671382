package tunnel

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// Values of struct virtio_net_hdr (linux/virtio_net.h).
const (
	virtioNeedsCsum = 1
	virtioTCP4      = 1
	virtioTCP6      = 4
)

// putSegmentation writes the virtio-net header that says the same as pkt's GSOOptions. The stack leaves two things to
// do in TCP segments of connections (of no other packets, nor in SYN and RST): the checksum field holds the sum of the
// pseudo header only, and the payload may be longer than the MSS.
func putSegmentation(buf []byte, pkt *stack.PacketBuffer) {
	h := buf[:offload.HeaderLen]
	clear(h)
	g, l4 := &pkt.GSOOptions, len(pkt.NetworkHeader().Slice())
	if g.Type == stack.GSONone {
		return
	}
	if g.NeedsCsum {
		h[0] = virtioNeedsCsum
		binary.NativeEndian.PutUint16(h[6:], uint16(l4))
		binary.NativeEndian.PutUint16(h[8:], g.CsumOffset)
	}
	if pkt.Data().Size() <= int(g.MSS) {
		return
	}
	switch g.Type {
	case stack.GSOTCPv4:
		h[1] = virtioTCP4
	case stack.GSOTCPv6:
		h[1] = virtioTCP6
	}
	binary.NativeEndian.PutUint16(h[2:], uint16(l4+len(pkt.TransportHeader().Slice())))
	binary.NativeEndian.PutUint16(h[4:], g.MSS)
}
