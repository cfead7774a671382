package meshnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/meshnet/meshnet/proxy"
	"github.com/meshnet/meshnet/tunnel"
)

// serveProxies opens the local ways into the network that a userspace node has, and lets members reach this host.
func (n *Node) serveProxies(ctx context.Context) error {
	listen := &ListenStatus{}
	udp := fmt.Sprintf(":%d", n.conn.Port())
	listen.UDP = &udp
	if n.tun.Userspace() || n.cfg.ProxyFixed {
		cfg := proxy.Config{Logger: n.log, Dial: n.proxyDial}
		var err error
		if listen.SOCKS5, err = n.serveProxy(ctx, "socks5", n.cfg.SOCKS5, proxy.NewSOCKS5(cfg).Serve); err != nil {
			return err
		}
		if listen.HTTPProxy, err = n.serveProxy(ctx, "http-proxy", n.cfg.HTTPProxy, proxy.NewHTTP(cfg).Serve); err != nil {
			return err
		}
	}
	var err error
	if listen.Metrics, err = n.serveMetrics(ctx); err != nil {
		return err
	}
	if at := n.relay.Load().addr(); at.IsValid() {
		listen.Relay = optional(at.String())
	}
	n.listening.Store(listen)
	if n.tun.Userspace() && n.cfg.ForwardInbound {
		n.tun.ForwardInbound(n.inboundTarget)
	}
	return nil
}

// serveProxy serves one proxy; a default address that is taken moves to a free port.
func (n *Node) serveProxy(
	ctx context.Context, flag, addr string, serve func(context.Context, net.Listener) error,
) (*string, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil && !n.cfg.ProxyFixed {
		if host, _, splitErr := net.SplitHostPort(addr); splitErr == nil {
			l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
		}
	}
	if err != nil {
		return nil, &Hinted{err, "choose another address with --" + flag}
	}
	n.wg.Go(func() {
		if err := serve(ctx, l); err != nil {
			n.log.Error("proxy ended", "addr", addr, "err", err)
		}
	})
	real := l.Addr().String()
	return &real, nil
}

// proxyDial connects a proxy's client to a member.
func (n *Node) proxyDial(ctx context.Context, network, hostport string) (net.Conn, error) {
	c, err := n.Dial(ctx, network, hostport)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, ErrUnknownPeer):
		return nil, fmt.Errorf("%w: %w", proxy.ErrNotMember, err)
	case errors.Is(err, ErrDenied):
		return nil, fmt.Errorf("%w: %w", proxy.ErrDenied, err)
	case ctx.Err() != nil:
		return nil, err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Timeout() {
		return nil, fmt.Errorf("%w: %w", proxy.ErrUnreachable, err)
	}
	return nil, fmt.Errorf("%w: %w", proxy.ErrRefused, err)
}

// inboundTarget is where a member's connection to this host goes: the same port of 127.0.0.1, but never to one of our
// own listeners.
func (n *Node) inboundTarget(_, to netip.AddrPort) (netip.AddrPort, bool) {
	if n.ownListener(to.Port()) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port()), true
}

func (n *Node) ownListener(port uint16) bool {
	if port == n.conn.Port() {
		return true
	}
	l := n.listening.Load()
	for _, addr := range []*string{l.SOCKS5, l.HTTPProxy, l.DNS, l.Metrics, l.Web, l.Relay} {
		if addr == nil {
			continue
		}
		if a, err := netip.ParseAddrPort(*addr); err == nil && a.Port() == port {
			return true
		}
	}
	return false
}

// Exposed says in one line what members reach on this host; "" when nothing.
func (n *Node) Exposed() string {
	if !n.tun.Userspace() || !n.cfg.ForwardInbound {
		return ""
	}
	return "members reach every service that listens on this host's 127.0.0.1 (TCP and UDP), but meshnet's own; --forward-inbound=false turns that off"
}

var _ tunnel.ForwardFunc = (*Node)(nil).inboundTarget
