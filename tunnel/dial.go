package tunnel

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// DialControl opens a TCP connection to a member's control address, from the own one.
func (t *Tunnel) DialControl(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	self := t.tap.self.Load()
	if !self.isControl(to.Addr()) {
		return nil, fmt.Errorf("tunnel: dial control %s: not a control address", to)
	}
	return t.dialTCP(ctx, self.control, to)
}

// Dial opens a connection from the own identity address: network is "tcp" or "udp". Without a TUN the netstack does it,
// and an address that no member has fails at once; with one the OS does.
func (t *Tunnel) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	self := t.tap.self.Load()
	if self.isControl(to.Addr()) {
		return nil, fmt.Errorf("tunnel: dial %s: %w", to, ErrControlAddress)
	}
	from := self.identityFor(to.Addr())
	if !from.IsValid() {
		return nil, fmt.Errorf("tunnel: dial %s: %w", to, ErrNoAddress)
	}
	kind, err := transport(network)
	if err != nil {
		return nil, err
	}
	if !self.userspace {
		return dialOS(ctx, kind, from, to)
	}
	if kind == "tcp" {
		return t.dialTCP(ctx, from, to)
	}
	if err := t.reachable(self, to.Addr()); err != nil {
		return nil, err
	}
	local, remote := fullAddress(netip.AddrPortFrom(from, 0)), fullAddress(to)
	c, err := gonet.DialUDP(t.stack.Stack, &local, &remote, protocolOf(to.Addr()))
	if err != nil {
		return nil, fmt.Errorf("tunnel: dial %s: %w", to, err)
	}
	return c, nil
}

func (t *Tunnel) dialTCP(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if err := t.reachable(t.tap.self.Load(), to.Addr()); err != nil {
		return nil, err
	}
	local := fullAddress(netip.AddrPortFrom(from, 0))
	c, err := gonet.DialTCPWithBind(ctx, t.stack.Stack, local, fullAddress(to), protocolOf(to.Addr()))
	if err != nil {
		return nil, fmt.Errorf("tunnel: dial %s: %w", to, err)
	}
	return c, nil
}

// reachable fails for addresses that would only time out, and after the end.
func (t *Tunnel) reachable(self *self, to netip.Addr) error {
	select {
	case <-t.done:
		return ErrClosed
	default:
	}
	if t.tap.table.Load().owner(to) != nil || to == self.control || self.isIdentity(to) || self.isService(to) {
		return nil
	}
	return fmt.Errorf("tunnel: dial %s: %w", to, ErrNoMember)
}

func dialOS(ctx context.Context, kind string, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	if kind == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	c, err := d.DialContext(ctx, kind, to.String())
	if err != nil {
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	return c, nil
}

// transport reduces a network name to "tcp" or "udp"; the family is that of the address.
func transport(network string) (string, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return "tcp", nil
	case "udp", "udp4", "udp6":
		return "udp", nil
	}
	return "", fmt.Errorf("tunnel: %w", net.UnknownNetworkError(network))
}
