package linux

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/platform"
)

// System configures one interface and looks at the host. Safe for concurrent use, but Apply and Clear are for one
// caller.
type System struct {
	log *slog.Logger
	own atomic.Pointer[ownLink] // what Apply configured last
}

// ownLink is immutable.
type ownLink struct {
	name  string
	index int
}

// New returns the system. A nil logger discards.
func New(log *slog.Logger) *System {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &System{log: log}
	s.own.Store(&ownLink{})
	return s
}

// Snapshot returns the links with their usable addresses, and the unicast routes of all tables.
func (s *System) Snapshot() (platform.Host, error) {
	h, err := open()
	if err != nil {
		return platform.Host{}, err
	}
	defer h.Close()
	return snapshot(h)
}

func open() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

func snapshot(h *netlink.Handle) (platform.Host, error) {
	var host platform.Host
	links, err := dump(h.LinkList)
	if err != nil {
		return host, fmt.Errorf("list links: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return host, fmt.Errorf("list addresses: %w", err)
	}
	byLink := map[int][]netip.Prefix{}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			byLink[a.LinkIndex] = append(byLink[a.LinkIndex], p)
		}
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		host.Links = append(host.Links, link(l, byLink[l.Attrs().Index]))
	}
	host.Routes, err = routes(h, names)
	return host, err
}

// dump repeats a listing that changes in between; the last attempt's result is taken as it is.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range 3 {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, nil
}

func link(l netlink.Link, addrs []netip.Prefix) platform.Link {
	a := l.Attrs()
	kind := l.Type()
	if t, ok := l.(*netlink.Tuntap); ok && t.Mode == netlink.TUNTAP_MODE_TUN {
		kind = "tun"
	}
	if kind == "device" {
		kind = ""
	}
	return platform.Link{
		Name:         a.Name,
		Kind:         kind,
		Index:        a.Index,
		MTU:          a.MTU,
		Addrs:        addrs,
		Up:           a.RawFlags&unix.IFF_UP != 0,
		Running:      a.RawFlags&unix.IFF_RUNNING != 0,
		Loopback:     a.RawFlags&unix.IFF_LOOPBACK != 0,
		PointToPoint: a.RawFlags&unix.IFF_POINTOPOINT != 0,
	}
}

// routes lists unicast routes of every table: other VPNs keep theirs in tables of their own.
func routes(h *netlink.Handle, names map[int]string) ([]platform.Route, error) {
	all, err := dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var found []platform.Route
	for _, r := range all {
		if r.Type != unix.RTN_UNICAST || r.Table == unix.RT_TABLE_LOCAL {
			continue
		}
		p, ok := destination(r)
		if !ok || p.Addr().IsMulticast() {
			continue
		}
		found = append(found, hops(r, p, names)...)
	}
	return found, nil
}

// hops is one route for each way it names.
func hops(r netlink.Route, p netip.Prefix, names map[int]string) []platform.Route {
	if len(r.MultiPath) == 0 {
		return []platform.Route{{Prefix: p, Link: names[r.LinkIndex], Gateway: address(r.Gw)}}
	}
	var all []platform.Route
	for _, hop := range r.MultiPath {
		all = append(all, platform.Route{Prefix: p, Link: names[hop.LinkIndex], Gateway: address(hop.Gw)})
	}
	return all
}

func destination(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst != nil {
		return prefix(r.Dst)
	}
	if r.Family == netlink.FAMILY_V6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ones, _ := n.Mask.Size()
	p := netip.PrefixFrom(address(n.IP), ones)
	return p, p.IsValid()
}

func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
