package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pingTimeout is for contexts without a deadline.
const pingTimeout = 10 * time.Second

// Ping sends one ICMPv6 echo with size bytes of payload (0 to 60000; above the MTU it travels in fragments) to a
// member's control address and returns the round trip. Each call has a socket, hence an identifier, of its own.
func (t *Tunnel) Ping(ctx context.Context, to netip.Addr, size int) (time.Duration, error) {
	self := t.tap.self.Load()
	if !self.isControl(to) {
		return 0, fmt.Errorf("tunnel: ping %s: not a control address", to)
	}
	if err := t.reachable(self, to); err != nil {
		return 0, err
	}
	if size < 0 || size > 60000 {
		return 0, fmt.Errorf("tunnel: ping: size %d out of range", size)
	}
	c, err := t.pingSocket(self.control, to)
	if err != nil {
		return 0, fmt.Errorf("tunnel: ping %s: %w", to, err)
	}
	defer c.Close()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pingTimeout)
		defer cancel()
	}
	past := time.Unix(1, 0)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })
	defer stop()
	took, err := echo(c, size)
	if err == nil {
		return took, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return 0, fmt.Errorf("tunnel: ping %s: %w", to, err)
}

// pingSocket is a connected ICMPv6 socket; the netstack picks its identifier and filters the answers by it.
func (t *Tunnel) pingSocket(from, to netip.Addr) (net.Conn, error) {
	var wq waiter.Queue
	ep, err := t.stack.NewEndpoint(icmp.ProtocolNumber6, ipv6.ProtocolNumber, &wq)
	if err != nil {
		return nil, fmt.Errorf("socket: %s", err)
	}
	if err := ep.Bind(fullAddress(netip.AddrPortFrom(from, 0))); err != nil {
		ep.Close()
		return nil, fmt.Errorf("bind: %s", err)
	}
	if err := ep.Connect(fullAddress(netip.AddrPortFrom(to, 0))); err != nil {
		ep.Close()
		return nil, fmt.Errorf("connect: %s", err)
	}
	return gonet.NewUDPConn(&wq, ep), nil
}

// echo sends one request and waits for the answer with the same payload.
func echo(c net.Conn, size int) (time.Duration, error) {
	msg := make([]byte, header.ICMPv6EchoMinimumSize+size)
	_, _ = rand.Read(msg[header.ICMPv6EchoMinimumSize:]) // never fails
	header.ICMPv6(msg).SetType(header.ICMPv6EchoRequest)
	header.ICMPv6(msg).SetSequence(1)
	start := time.Now()
	if _, err := c.Write(msg); err != nil {
		return 0, err
	}
	got := make([]byte, len(msg)+1)
	for {
		n, err := c.Read(got)
		if err != nil {
			return 0, err
		}
		h := header.ICMPv6(got[:n])
		if n == len(msg) && h.Type() == header.ICMPv6EchoReply && bytes.Equal(got[8:n], msg[8:]) {
			return time.Since(start), nil
		}
	}
}
