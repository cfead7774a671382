package platform

import (
	"fmt"
	"net"
	"net/netip"
)

// Interfaces is the host as the standard library sees it on every system: links and addresses, and of routes only
// those that the addresses imply.
func Interfaces() (Host, error) {
	links, err := net.Interfaces()
	if err != nil {
		return Host{}, fmt.Errorf("list interfaces: %w", err)
	}
	var h Host
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue // it went away since
		}
		link := Link{
			Name:         l.Name,
			Index:        l.Index,
			MTU:          l.MTU,
			Up:           l.Flags&net.FlagUp != 0,
			Running:      l.Flags&net.FlagRunning != 0,
			Loopback:     l.Flags&net.FlagLoopback != 0,
			PointToPoint: l.Flags&net.FlagPointToPoint != 0,
		}
		for _, a := range addrs {
			if p, ok := prefix(a); ok {
				link.Addrs = append(link.Addrs, p)
				if !link.Loopback && !p.Addr().IsLinkLocalUnicast() {
					h.Routes = append(h.Routes, Route{Prefix: p.Masked(), Link: l.Name})
				}
			}
		}
		h.Links = append(h.Links, link)
	}
	return h, nil
}

func prefix(a net.Addr) (netip.Prefix, bool) {
	n, ok := a.(*net.IPNet)
	if !ok {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if !ok {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(ip.Unmap(), ones)
	return p, p.IsValid()
}
