package platform

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// ErrNoTUN is returned by Apply on systems where this version makes no network interface.
var ErrNoTUN = errors.New("TUN mode is not available on this system yet; userspace mode is")

// Desired is how the node's own interface should look.
type Desired struct {
	Interface string
	MTU       int // 0 leaves it alone
	Addrs     []netip.Prefix
	Routes    []netip.Prefix
}

// The severities of problems.
const (
	SeverityInfo    = "info"
	SeverityWarning = "warning"
	SeverityError   = "error"
)

// Problem is something about the host that gets in the way, as `status` health shows it.
type Problem struct {
	Code     string // fixed, for scripts
	Severity string // one of the Severity constants
	Text     string
	Hint     string // what helps; may be empty
}

// Host is what the host's network looks like at one moment. Immutable.
type Host struct {
	Links  []Link
	Routes []Route
}

// Link is one network interface.
type Link struct {
	Name         string
	Kind         string // "wireguard", "tun", "bridge" …; empty for hardware and where the system does not tell
	Index        int
	MTU          int
	Addrs        []netip.Prefix // usable ones; link-local IPv6 without zone
	Up           bool
	Running      bool // has carrier
	Loopback     bool
	PointToPoint bool
}

// Route is one entry of a routing table. The default route has 0 bits.
type Route struct {
	Prefix  netip.Prefix
	Link    string
	Gateway netip.Addr // invalid when on-link
}

// tunnelKinds are link kinds that carry an overlay. Their point-to-point flag is not always set.
var tunnelKinds = []string{"wireguard", "tun", "ipip", "ip6tnl", "gre", "sit", "vti", "xfrm", "vxlan", "geneve"}

// tunnelPrefixes begin the names of other programs' tunnels, in lower case: Linux, macOS, then the adapters' names on
// Windows.
var tunnelPrefixes = []string{
	"wg", "tailscale", "utun", "zt", "tun", "nebula", "nordlynx", "ipsec", "cscotun", "gpd", "proton",
	"wireguard", "zerotier", "openvpn", "meshnet",
}

// uplinkPrefixes begin the names of point-to-point links that are the way to the internet: PPPoE and mobile networks.
var uplinkPrefixes = []string{"ppp", "wwan", "wwp", "rmnet", "pdp_ip"}

// Tunnel reports whether the link looks like a VPN's: what goes out there comes back inside another overlay, or not
// at all.
func (l Link) Tunnel() bool {
	name := strings.ToLower(l.Name)
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	switch {
	case l.Loopback:
		return false
	case slices.ContainsFunc(uplinkPrefixes, begins):
		return false
	}
	return l.PointToPoint || slices.Contains(tunnelKinds, l.Kind) || slices.ContainsFunc(tunnelPrefixes, begins) ||
		numbered(name, "wt") // NetBird
}

// numbered reports whether name is prefix and a number.
func numbered(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && rest != "" && strings.Trim(rest, "0123456789") == ""
}

// without is the host as it would be without the link.
func (h Host) without(name string) Host {
	return Host{
		Links:  slices.DeleteFunc(slices.Clone(h.Links), func(l Link) bool { return l.Name == name }),
		Routes: slices.DeleteFunc(slices.Clone(h.Routes), func(r Route) bool { return r.Link == name }),
	}
}

// Same reports whether two hosts are alike but for the link own, whatever the order of entries.
func (h Host) Same(o Host, own string) bool {
	a, b := h.without(own), o.without(own)
	a.sort()
	b.sort()
	return slices.Equal(a.Routes, b.Routes) && slices.EqualFunc(a.Links, b.Links, Link.same)
}

func (h Host) sort() {
	slices.SortFunc(h.Links, func(a, b Link) int { return a.Index - b.Index })
	for i := range h.Links {
		h.Links[i].Addrs = slices.SortedFunc(slices.Values(h.Links[i].Addrs), netip.Prefix.Compare)
	}
	slices.SortFunc(h.Routes, func(a, b Route) int {
		if c := a.Prefix.Compare(b.Prefix); c != 0 {
			return c
		}
		if c := strings.Compare(a.Link, b.Link); c != 0 {
			return c
		}
		return a.Gateway.Compare(b.Gateway)
	})
}

func (l Link) same(o Link) bool {
	return l.Name == o.Name && l.Kind == o.Kind && l.Index == o.Index && l.MTU == o.MTU && l.Up == o.Up &&
		l.Running == o.Running && l.Loopback == o.Loopback && l.PointToPoint == o.PointToPoint &&
		slices.Equal(l.Addrs, o.Addrs)
}
