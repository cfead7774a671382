package tunnel

import (
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// stackJoin gives packets to a tap's netstack, those of one TCP flow together. The zero value is ready. Owned by one
// goroutine.
type stackJoin struct {
	tap  *tap
	join *offload.Join // nil until the first packet
}

// add takes a packet that a member has vouched for, whose memory stays as it is until flush.
func (s *stackJoin) add(t *tap, pkt []byte) {
	if s.join == nil {
		s.tap = t
		s.join = offload.NewJoin(s.write, offload.Offloads{TCP: true})
	}
	s.join.Add(pkt)
}

// flush gives the stack what is left.
func (s *stackJoin) flush() {
	if s.join != nil {
		_ = s.join.Flush() // write does not fail
	}
}

// write takes what the Join made: a virtio-net header and the parts of a packet. The stack needs no such header, because
// it segments nothing and looks at no checksum.
func (s *stackJoin) write(packet [][]byte) error {
	if len(packet) == 2 {
		s.tap.inject(packet[1])
	} else {
		s.tap.injectParts(packet[1:])
	}
	return nil
}

// inject gives the stack one inbound packet; b is copied.
func (n *netstack) inject(b []byte) { n.injectParts([][]byte{b}) }

// injectParts gives the stack one inbound packet, which may be larger than the MTU; the parts are copied. The first one
// holds all headers.
func (n *netstack) injectParts(parts [][]byte) {
	d := n.link.dispatcher.Load()
	if d == nil {
		return
	}
	protocol := header.IPv4ProtocolNumber
	if parts[0][0]>>4 == 6 {
		protocol = header.IPv6ProtocolNumber
	}
	size := 0
	for _, b := range parts {
		size += len(b)
	}
	v := buffer.NewViewSize(size)
	to := v.AsSlice()
	for _, b := range parts {
		to = to[copy(to, b):]
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	(*d).DeliverNetworkPacket(protocol, pkt)
	pkt.DecRef()
}
