package tunnel

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const nicID = 1

// Buffers of a TCP connection; the maxima fill 1 Gbit/s at 50 ms.
var (
	receiveBuffer = tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	sendBuffer    = tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 6 << 20}
)

// netstack is the node's own TCP/IP, which serves control and service addresses and, in userspace mode, the identity
// addresses. Its methods are safe for concurrent use, setAddresses excepted.
type netstack struct {
	*stack.Stack
	link      *link
	addresses []netip.Addr // guarded by Tunnel.mu
}

// newNetstack makes a stack that gives its packets to out. gVisor starts goroutines of its own, so it must be closed.
func newNetstack(mtu int, out func(stack.PacketBufferList) (int, tcpip.Error)) (*netstack, error) {
	quietStack()
	n := &netstack{
		link: &link{mtu: uint32(mtu), out: out},
		Stack: stack.New(stack.Options{
			NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{
				tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
			},
			HandleLocal: true,
		}),
	}
	if err := n.setUp(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *netstack) setUp() error {
	sack, moderate, cubic := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true), tcpip.CongestionControlOption("cubic")
	receive, send := receiveBuffer, sendBuffer
	for _, o := range append(platformTCP(), &sack, &moderate, &cubic, &receive, &send) {
		if err := n.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set %T: %s", o, err)
		}
	}
	if err := n.CreateNIC(nicID, n.link); err != nil {
		return fmt.Errorf("create nic: %s", err)
	}
	n.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	return nil
}

// setAddresses makes the stack answer to exactly these.
func (n *netstack) setAddresses(want []netip.Addr) {
	for _, a := range n.addresses {
		if !slices.Contains(want, a) {
			n.RemoveAddress(nicID, tcpip.AddrFromSlice(a.AsSlice()))
		}
	}
	for _, a := range want {
		if slices.Contains(n.addresses, a) {
			continue
		}
		// The only error is a duplicate, which the test above rules out.
		n.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
			Protocol:          protocolOf(a),
			AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
		}, stack.AddressProperties{})
	}
	n.addresses = slices.Clone(want)
}

// close aborts every connection and waits for the stack's goroutines.
func (n *netstack) close() {
	n.link.closed.Store(true)
	n.Stack.Close()
	n.Stack.Wait()
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

func addrOf(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

// link is the stack's only interface: layer 3, no queue of its own.
type link struct {
	mtu        uint32
	out        func(stack.PacketBufferList) (int, tcpip.Error)
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	closed     atomic.Bool
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

// WritePackets implements stack.LinkWriter. The stack may hold locks: out must not call into it. borrowed: pkts are the
// stack's.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	if l.closed.Load() {
		return 0, &tcpip.ErrClosedForSend{}
	}
	return l.out(pkts)
}

// Attach implements stack.LinkEndpoint; nil detaches.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// IsAttached implements stack.LinkEndpoint.
func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }

// MTU implements stack.LinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu }

// Capabilities implements stack.LinkEndpoint. Inbound checksums are not looked at: WireGuard vouches for the inside.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// SupportedGSO implements stack.GSOEndpoint: TCP hands the link large segments with unfinished checksums.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize implements stack.GSOEndpoint.
func (l *link) GSOMaxSize() uint32 { return 64 << 10 }

// ARPHardwareType implements stack.LinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// The rest of stack.LinkEndpoint means nothing for a link without hardware.

func (l *link) SetMTU(uint32)                        {}
func (l *link) MaxHeaderLength() uint16              { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress       { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)     {}
func (l *link) Wait()                                {}
func (l *link) AddHeader(*stack.PacketBuffer)        {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool { return true }
func (l *link) Close()                               {}
func (l *link) SetOnCloseAction(func())              {}
