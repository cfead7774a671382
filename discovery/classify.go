package discovery

import (
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/netmap"
)

// Mapping is how a NAT chooses the outside address of a socket (RFC 5780 §4.3). "": not known.
type Mapping string

// The kinds of mapping.
const (
	MappingNone           Mapping = "none"
	MappingIndependent    Mapping = "endpoint-independent"
	MappingAddress        Mapping = "address-dependent"
	MappingAddressAndPort Mapping = "address-and-port-dependent"
	MappingVarying        Mapping = "varying" // dependent on the address at least; on the port too or not
)

// Filtering is whose packets a NAT or firewall lets in (RFC 5780 §4.4). "": not known.
type Filtering string

// The kinds of filtering.
const (
	FilteringIndependent    Filtering = "endpoint-independent"
	FilteringAddress        Filtering = "address-dependent"
	FilteringAddressAndPort Filtering = "address-and-port-dependent"
)

// sighting is where one server saw the main socket.
type sighting struct {
	server, mapped netip.AddrPort
	took           time.Duration
}

// classify tells the mapping from where servers saw the same socket. With one server address only, a mapping that is
// the same for two of its ports is taken for an easy one: those that depend on the address alone are rare.
func classify(seen []sighting, untranslated func(netip.AddrPort) bool) (Mapping, netmap.NAT) {
	if len(seen) == 0 {
		return "", netmap.NATUnknown
	}
	if !slices.ContainsFunc(seen, func(s sighting) bool { return !untranslated(s.mapped) }) {
		return MappingNone, netmap.NATNone
	}
	var addrs, ports struct{ same, differ bool } // pairs of sightings by different addresses, by ports of one
	for i, a := range seen {
		for _, b := range seen[:i] {
			pair := &ports
			if a.server.Addr() != b.server.Addr() {
				pair = &addrs
			}
			pair.same = pair.same || a.mapped == b.mapped
			pair.differ = pair.differ || a.mapped != b.mapped
		}
	}
	switch {
	case ports.differ:
		return MappingAddressAndPort, netmap.NATHard
	case addrs.differ && ports.same:
		return MappingAddress, netmap.NATHard
	case addrs.differ:
		return MappingVarying, netmap.NATHard
	case addrs.same:
		return MappingIndependent, netmap.NATEasy
	case ports.same:
		return "", netmap.NATEasy
	}
	return "", netmap.NATUnknown
}

// scope is how far an address is known.
type scope uint8

const (
	scopeHost scope = iota
	scopeLink
	scopeSite // private, shared by a carrier's NAT, or unique local
	scopeGlobal
)

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

func scopeOf(ip netip.Addr) scope {
	switch {
	case ip.IsLoopback():
		return scopeHost
	case ip.IsLinkLocalUnicast():
		return scopeLink
	case ip.IsPrivate() || sharedSpace.Contains(ip):
		return scopeSite
	}
	return scopeGlobal
}

// outermost leaves out servers that are within our networks, when others are not: they see us from this side of a NAT,
// which tells nothing about it.
func outermost(seen []sighting, untranslated func(netip.AddrPort) bool) []sighting {
	widest := scopeHost
	translated := false
	for _, s := range seen {
		widest = max(widest, scopeOf(s.mapped.Addr()))
		translated = translated || !untranslated(s.mapped)
	}
	return slices.DeleteFunc(slices.Clone(seen), func(s sighting) bool {
		return scopeOf(s.mapped.Addr()) < widest || translated && untranslated(s.mapped) && scopeOf(s.mapped.Addr()) < scopeGlobal
	})
}

// quickest is where the nearest server saw us; zero without any.
func quickest(seen []sighting) netip.AddrPort {
	var best sighting
	for _, s := range seen {
		if !best.mapped.IsValid() || s.took < best.took {
			best = s
		}
	}
	return best.mapped
}

// distinct are the different addresses that we were seen at, the quickest server's first.
func distinct(seen []sighting) []netip.AddrPort {
	seen = slices.Clone(seen)
	slices.SortStableFunc(seen, func(a, b sighting) int { return int(a.took - b.took) })
	var all []netip.AddrPort
	for _, s := range seen {
		if !slices.Contains(all, s.mapped) {
			all = append(all, s.mapped)
		}
	}
	return all
}
