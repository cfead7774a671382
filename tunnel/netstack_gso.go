package tunnel

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// putSegmentation writes the virtio-net header that says the same as pkt's GSOOptions. The stack leaves two things to
// do in TCP segments of connections (of no other packets, nor in SYN and RST): the checksum field holds the sum of the
// pseudo header only, and the payload may be longer than the MSS.
func putSegmentation(buf []byte, pkt *stack.PacketBuffer) {
	g, ip := &pkt.GSOOptions, len(pkt.NetworkHeader().Slice())
	if g.Type == stack.GSONone {
		clear(buf[:offload.HeaderLen])
		return
	}
	s := offload.Segmentation{
		IPv6: g.Type == stack.GSOTCPv6, HeaderLen: ip + len(pkt.TransportHeader().Slice()), IPLen: ip,
		NeedsCsum: g.NeedsCsum, CsumOffset: int(g.CsumOffset),
	}
	if pkt.Data().Size() > int(g.MSS) {
		s.MSS = int(g.MSS)
	}
	s.Put(buf)
}
