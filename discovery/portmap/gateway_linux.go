package portmap

import (
	"net"
	"net/netip"
	"os"
)

// maxGateways is how many of several routers are tried.
const maxGateways = 3

// Gateways are the routers of the default IPv4 routes, the preferred first: at most 3. None when the system does not
// tell.
func Gateways() []Gateway {
	table, err := os.Open("/proc/thread-self/net/route")
	if err != nil {
		return nil
	}
	defer table.Close()
	var all []Gateway
	for _, r := range parseRoutes(table) {
		if self, ok := onLink(r.iface, r.via); ok && len(all) < maxGateways {
			all = append(all, Gateway{Addr: r.via, Self: self})
		}
	}
	return all
}

// onLink finds our address in the gateway's network.
func onLink(iface string, via netip.Addr) (netip.Addr, bool) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return netip.Addr{}, false
	}
	addrs, err := i.Addrs()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.Contains(net.IP(via.AsSlice())) {
			continue
		}
		if self, ok := netip.AddrFromSlice(n.IP); ok && self.Unmap().Is4() {
			return self.Unmap(), true
		}
	}
	return netip.Addr{}, false
}
