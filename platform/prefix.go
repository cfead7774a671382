package platform

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

var (
	shared   = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598: no private network should use it
	private  = netip.MustParsePrefix("10.0.0.0/8")
	poolBits = 16 // of the prefix taken out of them
)

// occupied are parts of the pools that joiners often have in use though the founder has not: Alibaba Cloud's metadata
// and resolver, which are Tailscale's resolver too; ChromeOS's containers; the usual LAN, k3s, Podman, Kubernetes
// services and Flannel.
var occupied = []netip.Prefix{
	netip.MustParsePrefix("100.100.0.0/16"), netip.MustParsePrefix("100.115.0.0/16"),
	netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.42.0.0/15"),
	netip.MustParsePrefix("10.88.0.0/16"), netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16"),
}

// narrowest default: a route of fewer bits is a default route, or one cut in pieces by a VPN.
const minRouteBits = 8

// Overlaps reports the first route of a link other than own that overlaps prefix. Default routes overlap nothing: any
// route of ours is narrower.
func Overlaps(host Host, own string, prefix netip.Prefix) (Problem, bool) {
	for _, r := range host.without(own).ranges() {
		if r.Prefix.Bits() >= minRouteBits && r.Prefix.Overlaps(prefix) {
			return Problem{
				Code:     "route_overlap",
				Severity: SeverityWarning,
				Text:     fmt.Sprintf("addresses of the network %s are also routed to %s (%s)", prefix.Masked(), r.Link, r.Prefix),
				Hint:     "leave that network, or found this one with a --cidr that is free on every member",
			}, true
		}
	}
	return Problem{}, false
}

// ranges are the routes and the links' own networks.
func (h Host) ranges() []Route {
	all := slices.Clone(h.Routes)
	for _, l := range h.Links {
		for _, p := range l.Addrs {
			if p.IsValid() && !l.Loopback {
				all = append(all, Route{Prefix: p.Masked(), Link: l.Name})
			}
		}
	}
	return slices.DeleteFunc(all, func(r Route) bool { return !r.Prefix.IsValid() })
}

// FreePrefix4 chooses a network's IPv4 /16. Seed decides where the search begins, so that two networks rarely choose
// the same; it moves on while the prefix overlaps a route of the host. The pool is 100.64.0.0/10, or 10.0.0.0/8 where
// another VPN owns the former. When nothing is free it returns where it began, and Overlaps tells.
func FreePrefix4(host Host, seed []byte) netip.Prefix {
	pools := []netip.Prefix{shared, private}
	if sharedTaken(host) {
		pools = pools[1:]
	}
	sum := sha256.Sum256(append([]byte("meshnet/prefix4/v1\x00"), seed...))
	start := binary.BigEndian.Uint32(sum[:])
	for _, pool := range pools {
		for i := range uint32(1) << (poolBits - pool.Bits()) {
			p := nth(pool, start+i)
			if _, taken := Overlaps(host, "", p); !taken && !slices.ContainsFunc(occupied, p.Overlaps) {
				return p
			}
		}
	}
	return nth(pools[0], start)
}

// nth is the /16 number n of pool, counted around.
func nth(pool netip.Prefix, n uint32) netip.Prefix {
	base := pool.Addr().As4()
	n %= 1 << (poolBits - pool.Bits())
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(base[:])+n<<(32-poolBits))
	return netip.PrefixFrom(netip.AddrFrom4(a), poolBits)
}

// sharedTaken: a tunnel holds an address or a route within 100.64.0.0/10.
func sharedTaken(host Host) bool {
	tunnels := map[string]bool{}
	for _, l := range host.Links {
		tunnels[l.Name] = l.Tunnel()
	}
	return slices.ContainsFunc(host.ranges(), func(r Route) bool {
		return tunnels[r.Link] && r.Prefix.Bits() >= shared.Bits() && r.Prefix.Overlaps(shared)
	})
}
