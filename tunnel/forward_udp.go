package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// handleUDP gets the first packet of a flow, on the path of packets; the socket it makes gets the others. false has the
// stack answer port unreachable. borrowed: pkt, during the call.
func (f *forwarder) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	if !f.wanted(id) {
		return false
	}
	_, target, ok := f.resolve(id)
	if !ok {
		f.counters.add(forwardRefused)
		return false
	}
	if !f.enter(&f.udp, forwardUDP) {
		return true // silence: the sender may try again when there is room
	}
	var wq waiter.Queue
	ep, err := udp.NewForwarderRequest(f.stack.Stack, id, pkt).CreateEndpoint(&wq)
	if err != nil {
		f.done(&f.udp)
		f.counters.add(forwardRefused)
		return false
	}
	in := gonet.NewUDPConn(&wq, ep)
	go func() {
		defer f.done(&f.udp)
		f.flow(in, target)
	}()
	return true
}

// flow carries datagrams both ways until none came for a while.
func (f *forwarder) flow(in net.Conn, target netip.AddrPort) {
	defer in.Close()
	out, err := f.dial("udp", target)
	if err != nil {
		f.counters.add(forwardRefused)
		return
	}
	defer out.Close()
	end := &closerFunc{func() {
		_ = in.Close()
		_ = out.Close()
	}}
	if !f.flows.add(end) {
		return
	}
	defer f.flows.remove(end)
	var last atomic.Int64 // when either direction saw a datagram
	last.Store(time.Now().UnixNano())
	one := func(dst, src net.Conn) {
		copyDatagrams(dst, src, &last)
		_ = end.Close()
	}
	var wg sync.WaitGroup
	wg.Go(func() { one(in, out) })
	one(out, in)
	wg.Wait()
}

func copyDatagrams(dst, src net.Conn, last *atomic.Int64) {
	buf := make([]byte, 65535)
	for {
		idle := time.Since(time.Unix(0, last.Load()))
		if idle >= forwardUDPTimeout {
			return
		}
		_ = src.SetReadDeadline(time.Now().Add(forwardUDPTimeout - idle))
		n, err := src.Read(buf)
		var late net.Error
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &late) && late.Timeout():
			continue
		default:
			return
		}
		last.Store(time.Now().UnixNano())
		if _, err := dst.Write(buf[:n]); err != nil {
			return // nobody listens at the target, or the flow is closed
		}
	}
}
