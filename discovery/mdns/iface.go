package mdns

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
)

// maxInterfaces is on how many interfaces the service is spoken: a Linux socket joins a group on 20 (igmp_max_memberships).
const maxInterfaces = 20

// Interface is a link of the host that carries multicast.
type Interface struct {
	Name  string // as the system has it; the zone of link-local addresses
	Index int
	Addrs []netip.Prefix // the host's addresses on it, each with the length of its subnet
}

// Interfaces are the system's interfaces that are up, carry multicast and join more than two hosts. Those that cannot be
// read are left out.
func Interfaces() []Interface {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	const want, not = net.FlagUp | net.FlagRunning | net.FlagMulticast, net.FlagLoopback | net.FlagPointToPoint
	var all []Interface
	for i := range links {
		link := &links[i]
		if link.Flags&want != want || link.Flags&not != 0 {
			continue
		}
		addrs, err := link.Addrs()
		if err != nil {
			continue
		}
		iface := Interface{Name: link.Name, Index: link.Index}
		for _, a := range addrs {
			if p, ok := prefixOf(a); ok {
				iface.Addrs = append(iface.Addrs, p)
			}
		}
		all = append(all, iface)
	}
	return all
}

func prefixOf(a net.Addr) (netip.Prefix, bool) {
	ipnet, ok := a.(*net.IPNet)
	if !ok {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(ipnet.IP)
	ones, size := ipnet.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr.Unmap(), ones), true
}

// chosen are the interfaces to speak on, in a fixed order: those with addresses, and of too many the ones with IPv4, which
// the ports of a bridge do not have.
func chosen(all []Interface, skip func(string) bool) []Interface {
	var out []Interface
	for _, i := range all {
		i.Addrs = slices.DeleteFunc(slices.Clone(i.Addrs), func(p netip.Prefix) bool { return !unicast(p.Addr()) })
		slices.SortFunc(i.Addrs, netip.Prefix.Compare)
		i.Addrs = slices.Compact(i.Addrs)
		if len(i.Addrs) > 0 && (skip == nil || !skip(i.Name)) {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b Interface) int {
		if a.has4() != b.has4() {
			if a.has4() {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Index, b.Index)
	})
	return out[:min(len(out), maxInterfaces)]
}

func (i *Interface) has4() bool { return i.any(netip.Addr.Is4) }
func (i *Interface) has6() bool { return i.any(netip.Addr.Is6) }

func (i *Interface) any(is func(netip.Addr) bool) bool {
	return slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return is(p.Addr()) })
}

// owns reports whether the address is the host's own.
func (i *Interface) owns(addr netip.Addr) bool {
	addr = addr.WithZone("")
	return slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == addr })
}

// neighbour reports whether the address is on the link for certain: in one of its subnets, or link-local.
func (i *Interface) neighbour(addr netip.Addr) bool {
	addr = addr.WithZone("")
	return addr.IsLinkLocalUnicast() ||
		slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Masked().Contains(addr) })
}

// believes reports whether an address that somebody on the link names is one to send datagrams to: of a neighbour, or
// of a range that is nobody's on the internet.
func (i *Interface) believes(addr netip.Addr) bool {
	if !unicast(addr) || slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return broadcast(p, addr) }) {
		return false
	}
	return addr.IsPrivate() || i.neighbour(addr)
}

// unicast reports whether an address can be that of another host.
func unicast(addr netip.Addr) bool {
	return addr.IsValid() && !addr.Is4In6() && !addr.IsUnspecified() && !addr.IsLoopback() && !addr.IsMulticast()
}

// broadcast reports whether addr is the first or last IPv4 address of a subnet, which mean all of its hosts.
func broadcast(p netip.Prefix, addr netip.Addr) bool {
	if !addr.Is4() || !p.Masked().Contains(addr) || p.Bits() > 30 {
		return false
	}
	host := uint32(1)<<(32-p.Bits()) - 1
	b := addr.As4()
	low := (uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])) & host
	return low == 0 || low == host
}
