package netmap

import (
	"crypto/sha256"
	"net/netip"

	"github.com/meshnet/meshnet/identity"
)

// The subnets within a network's /48, by their fourth 16-bit group.
const (
	subnetService  = 0
	subnetIdentity = 1
	subnetControl  = 2
)

// Prefix6 is the network's unique local /48 (RFC 4193): fd, then 40 bits of a hash of its id.
func Prefix6(network identity.NetworkID) netip.Prefix {
	sum := sha256.Sum256(append([]byte("meshnet/prefix6/v1\x00"), network[:]...))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

func subnet(prefix netip.Prefix, group byte) netip.Prefix {
	a := prefix.Addr().As16()
	a[7] = group
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// ServiceSubnet holds the addresses that every node answers on its own.
func (n *Network) ServiceSubnet() netip.Prefix { return subnet(n.Prefix6, subnetService) }

// IdentitySubnet holds the members' IPv6 addresses.
func (n *Network) IdentitySubnet() netip.Prefix { return subnet(n.Prefix6, subnetIdentity) }

// ControlSubnet holds the addresses of control streams.
func (n *Network) ControlSubnet() netip.Prefix { return subnet(n.Prefix6, subnetControl) }

// Service4 is the resolver's IPv4 address, .0.53 of the network's prefix.
func (n *Network) Service4() netip.Addr {
	a := n.Prefix4.Masked().Addr().As4()
	a[3] = 53
	return netip.AddrFrom4(a)
}

// Service6 is the resolver's IPv6 address, :0::53.
func (n *Network) Service6() netip.Addr {
	a := n.Prefix6.Addr().As16()
	a[15] = 0x53
	return netip.AddrFrom16(a)
}

// IdentityAddr is a member's IPv6 address.
func IdentityAddr(network identity.NetworkID, id identity.PeerID) netip.Addr {
	return memberAddr(network, id, subnetIdentity)
}

// ControlAddr is a member's control address.
func ControlAddr(network identity.NetworkID, id identity.PeerID) netip.Addr {
	return memberAddr(network, id, subnetControl)
}

func memberAddr(network identity.NetworkID, id identity.PeerID, group byte) netip.Addr {
	a := subnet(Prefix6(network), group).Addr().As16()
	sum := sha256.Sum256(append([]byte("meshnet/address6/v1\x00"), id[:]...))
	copy(a[8:], sum[:8])
	return netip.AddrFrom16(a)
}
