package netlab

import "strconv"

// Kind is how a machine is connected to the Internet. The kinds of NAT are told by what RFC 4787 calls mapping (§4.1:
// which outside port a flow gets) and filtering (§5: who may send to that port).
type Kind int

const (
	// None is a public address of its own, open to everybody.
	None Kind = iota
	// FullCone: endpoint-independent mapping and filtering. Once a port is used, everybody may send to it.
	FullCone
	// AddressRestricted: endpoint-independent mapping, address-dependent filtering. Who was sent to may answer, from
	// whichever port.
	AddressRestricted
	// PortRestricted: endpoint-independent mapping, address and port-dependent filtering. Most home routers.
	PortRestricted
	// Symmetric: address and port-dependent mapping and filtering. Every destination sees another, random port, which
	// hole punching cannot know.
	Symmetric
	// CGNAT is a PortRestricted home router behind a PortRestricted carrier, with shared addresses (RFC 6598) between.
	CGNAT
	// UDPBlocked is a PortRestricted router that lets no UDP through, only TCP and ICMP.
	UDPBlocked
	// Firewalled is a public address of its own behind a firewall that lets nothing in that was not asked for.
	Firewalled
	// IPv6Only has no IPv4, and an IPv6 firewall.
	IPv6Only
)

var kindNames = [...]string{
	None:              "none",
	FullCone:          "full cone",
	AddressRestricted: "address-restricted",
	PortRestricted:    "port-restricted",
	Symmetric:         "symmetric",
	CGNAT:             "CGNAT",
	UDPBlocked:        "UDP blocked",
	Firewalled:        "firewalled",
	IPv6Only:          "IPv6 only",
}

// Kinds are all kinds in the order of their values.
func Kinds() []Kind {
	all := make([]Kind, len(kindNames))
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// String is the kind's name as it stands in tables.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "kind " + strconv.Itoa(int(k))
	}
	return kindNames[k]
}
