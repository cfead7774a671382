package tunnel

import (
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// Bounds of inbound forwarding.
const (
	forwardDialing    = 512 // TCP connections whose target is being dialled
	forwardPerSource  = 64  // of one member's address
	forwardTCP        = 4096
	forwardUDP        = 1024
	forwardDialWait   = 5 * time.Second
	forwardUDPTimeout = 2 * time.Minute
)

// ForwardFunc says where an inbound connection to an identity address goes; ok = false refuses it. It is called while
// packets wait, so it must only decide.
type ForwardFunc func(src, dst netip.AddrPort) (target netip.AddrPort, ok bool)

// ForwardInbound hands TCP and UDP that arrive at the identity addresses on ports nobody listens on to targets on this
// host. It works in userspace mode only: with a TUN the OS gets such packets. A target is dialled before the connection
// is accepted, so one that refuses looks refused. UDP flows end after 2 minutes of silence. nil stops it for new ones.
func (t *Tunnel) ForwardInbound(f ForwardFunc) {
	if f == nil {
		t.forward.target.Store(nil)
		return
	}
	t.forward.target.Store(&f)
}

// forwarder is the netstack's handler for packets that have no socket. Safe for concurrent use.
type forwarder struct {
	stack    *netstack
	counters *counters
	self     func() *self
	target   atomic.Pointer[ForwardFunc]
	flows    closers // sockets of all flows

	mu      sync.Mutex
	closing bool
	tcp     int
	udp     int
	dialing map[netip.Addr]int
	running sync.WaitGroup // grows under mu while not closing
}

func newForwarder(s *netstack, c *counters, self func() *self) *forwarder {
	f := &forwarder{stack: s, counters: c, self: self, dialing: make(map[netip.Addr]int)}
	syn := tcp.NewForwarder(s.Stack, 0, forwardDialing, f.handleTCP)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		return f.wanted(id) && syn.HandlePacket(id, pkt)
	})
	s.SetTransportProtocolHandler(udp.ProtocolNumber, f.handleUDP)
	return f
}

// wanted is false where the stack shall refuse by itself: control and service addresses are never forwarded.
func (f *forwarder) wanted(id stack.TransportEndpointID) bool {
	return f.target.Load() != nil && f.self().isIdentity(addrOf(id.LocalAddress))
}

// resolve asks where a flow goes.
func (f *forwarder) resolve(id stack.TransportEndpointID) (src, target netip.AddrPort, ok bool) {
	src = netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort)
	decide := f.target.Load()
	if decide == nil {
		return src, target, false
	}
	target, ok = (*decide)(src, netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort))
	return src, target, ok
}

// enter counts a flow in, in *n up to limit; done counts it out.
func (f *forwarder) enter(n *int, limit int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing {
		return false
	}
	if *n >= limit {
		f.counters.add(forwardLimit)
		return false
	}
	*n++
	f.running.Add(1)
	return true
}

func (f *forwarder) done(n *int) {
	f.mu.Lock()
	*n--
	f.mu.Unlock()
	f.running.Done()
}

// enterDial bounds the connections that one source has us dial at a time.
func (f *forwarder) enterDial(src netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dialing[src] >= forwardPerSource {
		f.counters.add(forwardLimit)
		return false
	}
	f.dialing[src]++
	return true
}

func (f *forwarder) doneDial(src netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dialing[src]--; f.dialing[src] == 0 {
		delete(f.dialing, src)
	}
}

// close ends every flow and waits for it.
func (f *forwarder) close() {
	f.target.Store(nil)
	f.mu.Lock()
	f.closing = true
	f.mu.Unlock()
	f.flows.close()
	f.running.Wait()
}

// closerFunc makes a func an io.Closer that can be a map key.
type closerFunc struct{ f func() }

func (c *closerFunc) Close() error {
	c.f()
	return nil
}

var _ io.Closer = (*closerFunc)(nil)
