package platform

import "net/netip"

// Usable returns the host's addresses that others may find this node at, in the order of the links: none of links
// that are down, of the node's own interface or another tunnel, of the overlay prefixes; neither multicast nor
// unspecified. Link-local IPv6 addresses carry the link's name as zone. Loopback addresses come apart: they are for
// nodes of one host only.
func Usable(host Host, own string, overlay []netip.Prefix) (addrs, loopback []netip.Addr) {
	seen := map[netip.Addr]bool{}
	for _, l := range host.Links {
		if !l.Up || l.Name == own || !l.Loopback && (!l.Running || l.Tunnel()) {
			continue
		}
		for _, p := range l.Addrs {
			a := p.Addr().Unmap()
			if !candidate(a, overlay) || seen[zoned(a, l.Name)] {
				continue
			}
			a = zoned(a, l.Name)
			seen[a] = true
			if a.IsLoopback() {
				loopback = append(loopback, a)
			} else if !l.Loopback || a.IsGlobalUnicast() {
				addrs = append(addrs, a) // a public address on the loopback link is how anycast and routers do it
			}
		}
	}
	return addrs, loopback
}

func candidate(a netip.Addr, overlay []netip.Prefix) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	for _, p := range overlay {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

func zoned(a netip.Addr, link string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(link)
	}
	return a
}
