package meshnet

import "net/netip"

// Netcheck is what the networks around this node let through, and the JSON that `meshnet netcheck --json` prints.
type Netcheck struct {
	UDP       bool             `json:"udp"`       // a STUN server or a member answered over UDP
	IPv4      *netip.AddrPort  `json:"ipv4"`      // where the IPv4 socket is seen
	IPv6      *netip.AddrPort  `json:"ipv6"`      // where the IPv6 socket is seen
	NAT       *string          `json:"nat"`       // none, easy, hard, blocked
	Mapping   *string          `json:"mapping"`   // RFC 5780 §4.3: none, endpoint-independent, address-dependent, address-and-port-dependent, varying
	Filtering *string          `json:"filtering"` // RFC 5780 §4.4: endpoint-independent, address-dependent, address-and-port-dependent
	Hairpin   *bool            `json:"hairpin"`
	PortMap   NetcheckPortMap  `json:"portmap"`
	STUN      []NetcheckServer `json:"stun"`
	Relays    []NetcheckRelay  `json:"relays"`
	Took      float64          `json:"took_ms"`
}

// NetcheckPortMap says which protocols the router speaks for port mappings, and the mapping in use.
type NetcheckPortMap struct {
	PCP      *bool           `json:"pcp"`
	NATPMP   *bool           `json:"nat_pmp"`
	UPnP     *bool           `json:"upnp"`
	External *netip.AddrPort `json:"external"`
	Protocol *string         `json:"protocol"` // of the mapping in use
}

// NetcheckServer is what one STUN server answered.
type NetcheckServer struct {
	Server    string          `json:"server"`
	Mapped    *netip.AddrPort `json:"mapped"`
	LatencyMs *float64        `json:"latency_ms"`
	Error     *string         `json:"error"`
}

// NetcheckRelay is how a relay server is reached.
type NetcheckRelay struct {
	URL       string   `json:"url"`
	Connected bool     `json:"connected"`
	Home      bool     `json:"home"`
	LatencyMs *float64 `json:"latency_ms"`
	Error     *string  `json:"error"`
}
