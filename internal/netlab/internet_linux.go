package netlab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// The public addresses (RFC 5737, RFC 3849). Every attachment N has the IPv6 subnet 2001:db8:0:N::/64, and a site N
// the prefix 2001:db8:1000+N::/48 for what is inside.
var (
	publicNet = netip.MustParsePrefix("203.0.113.0/24")  // public hosts
	accessNet = netip.MustParsePrefix("198.51.100.0/24") // sites
)

// Internet is a small public Internet: one core router, to which public hosts and sites have a cable each, so that
// they share no segment, even where their addresses look like it.
//
//	                    core router
//	       ┌────────────────┼───────────────────┐
//	203.0.113.2       198.51.100.2         198.51.100.3
//	  relay               NAT                 carrier
//	                  192.168.1.1            100.64.2.1 ─┬─ …
//	                   ┌────┴────┐             home NAT ─┘
//	              192.168.1.2  .3             192.168.3.1
//
// For the test's goroutine.
type Internet struct {
	lab   *Lab
	core  *Host
	ports map[*Iface]*attachment // by the card outside
	count int                    // of attachments so far
	sites int                    // so far
	used  map[netip.Prefix]netip.Addr
}

// attachment is what the core knows about a card.
type attachment struct {
	port  *Iface // the core's end
	pool  netip.Prefix
	addr4 netip.Addr // zero without IPv4
	pfx6  netip.Prefix
}

// Internet makes an Internet with nobody on it.
func (l *Lab) Internet() *Internet {
	l.t.Helper()
	w := &Internet{lab: l, core: l.Router("core"), ports: map[*Iface]*attachment{}, used: map[netip.Prefix]netip.Addr{}}
	for _, pool := range []netip.Prefix{publicNet, accessNet} {
		w.used[pool] = gateway(pool)
	}
	return w
}

// Core is the router between all sites and public hosts, for rules and captures that concern several of them.
func (w *Internet) Core() *Host { return w.core }

// Public makes a host with a public IPv4 and IPv6 address and no firewall.
func (w *Internet) Public(name string) *Host {
	w.lab.t.Helper()
	h := w.lab.Host(name)
	w.attach(h, publicNet, true, true, Line{})
	return h
}

// attach gives the host a card with a cable to the core, addresses of its own and default routes.
func (w *Internet) attach(h *Host, pool netip.Prefix, v4, v6 bool, line Line) *Iface {
	w.lab.t.Helper()
	w.count++
	a := &attachment{pool: pool}
	var mine, cores []string
	if v4 {
		a.addr4 = w.draw(pool)
		mine = append(mine, netip.PrefixFrom(a.addr4, pool.Bits()).String())
		cores = append(cores, gateway(pool).String()+"/32")
	}
	if v6 {
		a.pfx6 = netip.MustParsePrefix(fmt.Sprintf("2001:db8:0:%x::/64", w.count))
		mine = append(mine, host6(a.pfx6, 2).String())
		cores = append(cores, host6(a.pfx6, 1).String())
	}
	card, port := h.cable(w.core, mine, cores, line)
	a.port = port
	w.ports[card] = a
	if v4 {
		// The core answers for the hosts that the prefix of its address makes this one look for on its own cable.
		w.core.Sysctl("net/ipv4/conf/"+port.name+"/proxy_arp", "1")
		w.core.Sysctl("net/ipv4/neigh/"+port.name+"/proxy_delay", "0")
		w.core.addRoute(linkRoute(port, a.addr4))
		h.DefaultRoute(gateway(pool).String())
	}
	if v6 {
		h.DefaultRoute(host6(a.pfx6, 1).Addr().String())
	}
	return card
}

// Renumber gives a card with a public address the next free IPv4 address, as a new lease from the provider does. What
// a NAT has mapped to the old one is forgotten.
func (w *Internet) Renumber(i *Iface) {
	w.lab.t.Helper()
	a := w.ports[i]
	if a == nil || !a.addr4.IsValid() {
		w.lab.t.Fatalf("netlab: %s: %s has no public IPv4 address", i.host.name, i.name)
	}
	old := a.addr4
	a.addr4 = w.draw(a.pool)
	w.core.addRoute(linkRoute(a.port, a.addr4))
	w.core.dropRoute(old.String() + "/32")
	addrs := []string{netip.PrefixFrom(a.addr4, a.pool.Bits()).String()}
	if a.pfx6.IsValid() {
		addrs = append(addrs, host6(a.pfx6, 2).String())
	}
	i.SetAddr(addrs...)
}

// draw is the next free address of a pool.
func (w *Internet) draw(pool netip.Prefix) netip.Addr {
	w.lab.t.Helper()
	next := w.used[pool].Next()
	if !pool.Contains(next.Next()) {
		w.lab.t.Fatalf("netlab: no more addresses in %v", pool)
	}
	w.used[pool] = next
	return next
}

// linkRoute leads to one address behind a card.
func linkRoute(i *Iface, addr netip.Addr) *netlink.Route {
	return &netlink.Route{
		LinkIndex: i.link.Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())},
	}
}

// gateway is the first address of a subnet.
func gateway(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// host6 is host n of an IPv6 subnet, with the subnet's prefix length.
func host6(p netip.Prefix, n byte) netip.Prefix {
	b := p.Masked().Addr().As16()
	b[15] = n
	return netip.PrefixFrom(netip.AddrFrom16(b), p.Bits())
}
