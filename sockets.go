package meshnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/tunnel"
)

// find is the peer, or this node, that a name, an FQDN, a PeerID or an address means. "" is this node.
func (n *Node) find(peer string) (*netmap.Peer, error) {
	m := n.mesh.Map()
	if peer == "" {
		return &m.Self, nil
	}
	if p := m.ByName(peer); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknownPeer, peer)
}

// Dial connects to "peer:port", where peer is a name, an FQDN, a PeerID or an address of a member. network is "tcp",
// "tcp4", "tcp6", "udp", "udp4" or "udp6"; without a family IPv4 is used. Errors: ErrUnknownPeer, ErrDenied for control
// addresses, ErrClosed.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := n.resolve(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	c, err := n.tun.Dial(ctx, strings.TrimRight(network, "46"), to)
	return c, tunnelError(err)
}

// tunnelError turns the tunnel's sentinels into this package's.
func tunnelError(err error) error {
	switch {
	case errors.Is(err, tunnel.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, tunnel.ErrControlAddress):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case errors.Is(err, tunnel.ErrNoMember):
		return fmt.Errorf("%w: %w", ErrUnknownPeer, err)
	}
	return err
}

func (n *Node) resolve(network, address string) (netip.AddrPort, error) {
	if n.stopping.Load() {
		return netip.AddrPort{}, ErrClosed
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		number, lookErr := net.LookupPort(network, portText)
		if lookErr != nil {
			return netip.AddrPort{}, lookErr
		}
		port = uint64(number)
	}
	if ip, err := netip.ParseAddr(host); err == nil && n.mesh.Map().Network.ControlSubnet().Contains(ip) {
		return netip.AddrPort{}, ErrDenied
	}
	p, err := n.find(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(chooseIP(p, network, host), uint16(port)), nil
}

// chooseIP is the address that was given, or the one of the family that is wanted.
func chooseIP(p *netmap.Peer, network, host string) netip.Addr {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip
	}
	if strings.HasSuffix(network, "6") || !p.IP4.IsValid() {
		return p.IP6
	}
	return p.IP4
}

// HTTPClient makes requests to members by name: http://alice:8080/. Every call makes a client of its own.
func (n *Node) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.Dial}}
}

// Listen accepts connections from members on the node's addresses: address is ":port", or "ip:port" with one of them.
// Port 0 takes a free one.
func (n *Node) Listen(network, address string) (net.Listener, error) {
	at, err := n.localAddr(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	l, err := n.tun.Listen(strings.TrimRight(network, "46"), at)
	return l, tunnelError(err)
}

// ListenPacket receives datagrams from members: address is ":port", for the IPv4 address, or "ip:port".
func (n *Node) ListenPacket(network, address string) (net.PacketConn, error) {
	at, err := n.localAddr(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	if !at.Addr().IsValid() {
		self := n.mesh.Map().Self
		at = netip.AddrPortFrom(chooseIP(&self, network, ""), at.Port())
	}
	c, err := n.tun.ListenPacket(strings.TrimRight(network, "46"), at)
	return c, tunnelError(err)
}

// localAddr reads an own address; the zero address means all of them.
func (n *Node) localAddr(network, address string) (netip.AddrPort, error) {
	if n.stopping.Load() {
		return netip.AddrPort{}, ErrClosed
	}
	if strings.HasPrefix(address, ":") {
		address = "0.0.0.0" + address
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return at, err
	}
	self := n.mesh.Map().Self
	switch {
	case at.Addr().IsUnspecified() && strings.HasSuffix(network, "6"):
		return netip.AddrPortFrom(self.IP6, at.Port()), nil
	case at.Addr().IsUnspecified() && strings.HasSuffix(network, "4"):
		return netip.AddrPortFrom(self.IP4, at.Port()), nil
	case at.Addr().IsUnspecified():
		return netip.AddrPortFrom(netip.Addr{}, at.Port()), nil
	case at.Addr() == self.IP4 || at.Addr() == self.IP6:
		return at, nil
	case n.mesh.Map().Network.ControlSubnet().Contains(at.Addr()):
		return at, ErrDenied
	}
	return at, fmt.Errorf("%s is not an address of this node", at.Addr())
}
