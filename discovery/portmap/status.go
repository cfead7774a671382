package portmap

import "net/netip"

// Protocol is a way to ask a router for a port mapping.
type Protocol string

// The protocols, in the order of preference.
const (
	PCP    Protocol = "pcp"     // RFC 6887
	NATPMP Protocol = "nat-pmp" // RFC 6886
	UPnP   Protocol = "upnp"    // UPnP Internet Gateway Device, versions 1 and 2
)

// Status is what is known of the router and of the mapping. Immutable.
type Status struct {
	Gateway netip.Addr // zero: none is known
	// PCP, NATPMP and UPnP say whether the router speaks the protocol; nil: not known yet, or never asked.
	PCP, NATPMP, UPnP *bool
	External          netip.AddrPort // zero: there is no mapping
	Protocol          Protocol       // of the mapping; "": none
	Err               string         // why there is none
}
