package discovery

import (
	"net/netip"
	"slices"

	"github.com/meshnet/meshnet/netmap"
)

// NAT is how the node's NATs choose the outside address, as members see it: every member that answers is a STUN server
// too. It is for networks without one. Members that see a private address are on this side of the outermost NAT, or
// behind one with us, and are not counted. Where IPv4 is spoken, its NATs are told of: IPv6 has none.
func (o *Own) NAT() netmap.NAT {
	o.mu.Lock()
	defer o.mu.Unlock()
	if nat := o.natBy(true); nat != netmap.NATUnknown {
		return nat
	}
	return o.natBy(false)
}

// natBy is what members say by one of the families. Called with mu held.
func (o *Own) natBy(is4 bool) netmap.NAT {
	ports := make(map[netip.Addr]uint16) // by outside address
	nat := netmap.NATUnknown
	for by, seen := range o.observed {
		ip := seen.addr.Addr()
		if by.is4 != is4 || scopeOf(ip) != scopeGlobal {
			continue
		}
		if slices.ContainsFunc(o.local, func(a netip.AddrPort) bool { return a.Addr() == ip }) {
			return netmap.NATNone
		}
		if before, known := ports[ip]; known && before != seen.addr.Port() {
			return netmap.NATHard
		}
		ports[ip] = seen.addr.Port()
		nat = netmap.NATEasy
	}
	return nat
}
