package tunnel

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/meshnet/meshnet/internal/stream"
)

// handleTCP has a goroutine of its own, which is the flow's.
func (f *forwarder) handleTCP(r *tcp.ForwarderRequest) {
	if !f.enter(&f.tcp, forwardTCP) {
		r.Complete(true)
		return
	}
	defer f.done(&f.tcp)
	src, target, ok := f.resolve(r.ID())
	if !ok || !f.enterDial(src.Addr()) {
		f.counters.add(forwardRefused)
		r.Complete(true)
		return
	}
	out, err := f.dial("tcp", target)
	f.doneDial(src.Addr())
	if err != nil {
		f.counters.add(forwardRefused)
		r.Complete(true)
		return
	}
	defer out.Close()
	var wq waiter.Queue
	ep, fail := r.CreateEndpoint(&wq)
	if fail != nil {
		f.counters.add(forwardRefused)
		r.Complete(true)
		return
	}
	r.Complete(false)
	in := gonet.NewTCPConn(&wq, ep)
	defer in.Close()
	f.splice(in, out.(*net.TCPConn))
}

// dial reaches a target on this host, and gives up when the forwarder closes.
func (f *forwarder) dial(network string, target netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), forwardDialWait)
	defer cancel()
	stop := &closerFunc{cancel}
	if !f.flows.add(stop) {
		return nil, net.ErrClosed
	}
	defer f.flows.remove(stop)
	var d net.Dialer
	return d.DialContext(ctx, network, target.String())
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// splice copies both ways until both are done or one fails.
func (f *forwarder) splice(a, b halfCloser) {
	end := &closerFunc{func() {
		_ = a.Close()
		_ = b.Close()
	}}
	if !f.flows.add(end) {
		return
	}
	defer f.flows.remove(end)
	one := func(dst, src halfCloser) {
		if err := stream.Copy(dst, src); err != nil {
			_ = end.Close() // a broken flow must not look like a finished one
			return
		}
		_ = dst.CloseWrite()
	}
	var wg sync.WaitGroup
	wg.Go(func() { one(a, b) })
	one(b, a)
	wg.Wait()
}
