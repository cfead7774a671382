package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/platform"
)

const (
	// routeProtocol marks our routes; no other program is registered with it.
	routeProtocol = 109
	// routeMetric is above connected (0, 256) and DHCP routes (100 to 1023).
	routeMetric = 1024
	// addrFlags: no duplicate detection, addresses are computed to be unique; no route but those that are asked for.
	addrFlags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
)

// Apply makes the interface, which must exist, look as desired: up, with that MTU, exactly those addresses (but for
// link-local ones) and, of routes of ours, exactly those. What is so already is left alone. Where IPv6 is disabled,
// IPv6 addresses and routes are left out with a warning in the log, and Problems tells.
func (s *System) Apply(d platform.Desired) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(d.Interface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", d.Interface, err)
	}
	s.own.Store(&ownLink{name: d.Interface, index: l.Attrs().Index})
	if d.MTU != 0 && l.Attrs().MTU != d.MTU {
		if err := h.LinkSetMTU(l, d.MTU); err != nil {
			return fmt.Errorf("set mtu %d of %s: %w", d.MTU, d.Interface, err)
		}
	}
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", d.Interface, err)
		}
	}
	addrs, routes := d.Addrs, d.Routes
	if ipv6Disabled(d.Interface) {
		addrs, routes = only4(addrs), only4(routes)
		if len(addrs) < len(d.Addrs) {
			s.log.Warn("ipv6 is disabled, the interface gets no ipv6 address", "interface", d.Interface)
		}
	}
	if err := syncAddrs(h, l, addrs); err != nil {
		return err
	}
	return syncRoutes(h, l, routes)
}

func only4(all []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return !p.Addr().Is4() })
}

// ipv6Disabled: /proc shows the calling thread's namespace. Without IPv6 in the kernel there is no file.
func ipv6Disabled(link string) bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + link + "/disable_ipv6")
	return err != nil || strings.TrimSpace(string(b)) == "1"
}

// Clear takes the addresses and our routes off the interface of the last Apply and sets it down. An interface that is
// gone has nothing to clear.
func (s *System) Clear() error {
	own := s.own.Load()
	if own.name == "" {
		return nil
	}
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(own.name)
	if missing(err) || err == nil && l.Attrs().Index != own.index {
		return nil // gone, or somebody else's under the same name
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", own.name, err)
	}
	err = errors.Join(syncRoutes(h, l, nil), syncAddrs(h, l, nil))
	if down := h.LinkSetDown(l); down != nil {
		err = errors.Join(err, fmt.Errorf("set %s down: %w", own.name, down))
	}
	return err
}

func missing(err error) bool {
	_, ok := errors.AsType[netlink.LinkNotFoundError](err)
	return ok
}

// syncAddrs adds, removes, and adds again: the kernel drops an interface's IPv4 routes with its last address, and
// secondary addresses with the primary of their subnet where it does not promote one.
func syncAddrs(h *netlink.Handle, l netlink.Link, want []netip.Prefix) error {
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+l.Attrs().Name+"/promote_secondaries", []byte("1"), 0) // then it does
	if err := addAddrs(h, l, want); err != nil {
		return err
	}
	have, err := listAddrs(h, l)
	if err != nil {
		return err
	}
	removed := false
	for p, a := range have {
		if slices.Contains(want, p) {
			continue
		}
		removed = true
		if err := h.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s from %s: %w", p, l.Attrs().Name, err)
		}
	}
	if !removed {
		return nil
	}
	return addAddrs(h, l, want)
}

func addAddrs(h *netlink.Handle, l netlink.Link, want []netip.Prefix) error {
	have, err := listAddrs(h, l)
	if err != nil {
		return err
	}
	for _, p := range want {
		if _, ok := have[p]; ok {
			continue
		}
		a := &netlink.Addr{IPNet: ipNet(p), Flags: addrFlags}
		if p.Addr().Is4() {
			a.Broadcast = net.IPv4zero // none: the network has no broadcast
		}
		if err := h.AddrAdd(l, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s to %s: %w", p, l.Attrs().Name, err)
		}
	}
	return nil
}

// listAddrs leaves out link-local IPv6 addresses: the kernel's own.
func listAddrs(h *netlink.Handle, l netlink.Link) (map[netip.Prefix]netlink.Addr, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	found := map[netip.Prefix]netlink.Addr{}
	for _, a := range all {
		p, ok := prefix(a.IPNet)
		if ok && !(p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()) {
			found[p] = a
		}
	}
	return found, nil
}

func syncRoutes(h *netlink.Handle, l netlink.Link, want []netip.Prefix) error {
	have, err := listRoutes(h, l)
	if err != nil {
		return err
	}
	for p, r := range have {
		if slices.Contains(want, p) {
			continue
		}
		if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s from %s: %w", p, l.Attrs().Name, err)
		}
	}
	for _, p := range want {
		if _, ok := have[p.Masked()]; ok {
			continue
		}
		r := &netlink.Route{
			LinkIndex: l.Attrs().Index,
			Dst:       ipNet(p.Masked()),
			Protocol:  routeProtocol,
			Priority:  routeMetric,
			Table:     unix.RT_TABLE_MAIN,
		}
		if p.Addr().Is4() {
			r.Scope = netlink.SCOPE_LINK
		}
		if err := h.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add route %s to %s: %w", p, l.Attrs().Name, err)
		}
	}
	return nil
}

// listRoutes finds our routes on the link.
func listRoutes(h *netlink.Handle, l netlink.Link) (map[netip.Prefix]netlink.Route, error) {
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN}
	all, err := dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_ALL, filter,
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes of %s: %w", l.Attrs().Name, err)
	}
	found := map[netip.Prefix]netlink.Route{}
	for _, r := range all {
		if p, ok := destination(r); ok {
			found[p] = r
		}
	}
	return found, nil
}

// CleanLeftovers removes the interface name if it is surely a dead run's: a persistent TUN without an owner that
// nobody has open. Anything else by that name is left alone, as is nothing.
func (s *System) CleanLeftovers(name string) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if missing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if !leftover(l) {
		return nil
	}
	if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove left-over interface %s: %w", name, err)
	}
	s.log.Info("removed a left-over interface", "interface", name)
	return nil
}

// leftover: an owner or group means that an administrator made it for an unprivileged program; carrier or a queue that
// somebody has it open.
func leftover(l netlink.Link) bool {
	t, ok := l.(*netlink.Tuntap)
	return ok && t.Mode == netlink.TUNTAP_MODE_TUN && !t.NonPersist && t.Queues == 0 && t.Owner == 0 && t.Group == 0 &&
		t.RawFlags&(unix.IFF_RUNNING|unix.IFF_LOWER_UP) == 0
}
