package meshnet

import (
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"
)

// Config of a Node. The zero value founds a network in memory, in userspace mode, without proxies.
type Config struct {
	// Dir is the state folder. "": state in memory only.
	Dir string
	// Logger: nil discards.
	Logger *slog.Logger

	// Join is a token. "": use the network of Dir, or found one.
	Join string
	// JoinTimeout ends a join that nobody answers. 0: never.
	JoinTimeout time.Duration
	// Network names a network that is founded. "": two random words.
	Network string
	// Prefix4 is the IPv4 prefix of a network that is founded, /8 to /20. Zero: chosen out of 100.64.0.0/10.
	Prefix4 netip.Prefix
	// Hostname is the node's name. "": the host's.
	Hostname string

	// TUN asks for a network interface.
	TUN TUNMode
	// Interface is its name. "": "meshnet0", and a free name after that.
	Interface string
	// MTU of the inner network, in bytes. 0: 1280.
	MTU int

	// Port is the UDP port. 0: a free one.
	Port uint16
	// PortFixed makes a taken Port an error; otherwise a free one is used instead.
	PortFixed bool
	// Advertise are addresses where others reach this node, beyond those it finds.
	Advertise []netip.AddrPort
	// Bootstrap are "host:port" of nodes to ask first: while too few members are connected, and when joining.
	Bootstrap []string
	// BootstrapFile names a file with one of them a line, which is read again when it changes. "": none.
	BootstrapFile string
	// BootstrapDNS is a domain whose SRV and TXT records at _meshnet._udp name more of them. "": none.
	BootstrapDNS string
	// MDNS finds members on the same link, and is found there (mDNS, DNS-SD).
	MDNS bool
	// DHT finds members, and is found, by the public BitTorrent DHT. What stands there is sealed for members and holders of
	// open invites; the nodes of the DHT see this node's address.
	DHT bool
	// DHTBootstrap are "host:port" of nodes of another DHT to begin with. nil: those of the public one.
	DHTBootstrap []string
	// STUN are "host:port" of servers that tell this node its address as they see it, beside the relay servers.
	STUN []string
	// PortMap asks the router for a port (PCP, NAT-PMP, UPnP).
	PortMap bool

	// RelayServers are relay URLs, https://host:port[#sha256=HEX], beside those that members serve.
	RelayServers []string
	// RelayRoots are the authorities that certificates of relay servers may come from. nil: the system's. One that is
	// pinned in its URL needs none.
	RelayRoots *x509.CertPool
	// Relay makes this node a relay server too. nil: it is none.
	Relay *RelayConfig
	// MemberRelay says whether this node passes on packets between members who reach each other in no other way.
	MemberRelay MemberRelayMode
	// MemberRelayRate is how much of that at most, in bytes per second. 0: 2.5 million (20 Mbit/s); negative: no limit.
	MemberRelayRate int64

	// Metrics is an address where Prometheus metrics are served, at /metrics. "": none. One that is taken is an error.
	Metrics string

	// SOCKS5 and HTTPProxy are addresses of local proxies into the network. "": none.
	SOCKS5, HTTPProxy string
	// ProxyFixed makes a proxy address that is taken an error; otherwise a free port is used instead.
	ProxyFixed bool
	// ForwardInbound forwards connections from members to 127.0.0.1, in userspace mode, for ports that the program
	// itself does not listen on.
	ForwardInbound bool
}

// TUNMode says whether a node is a network interface.
type TUNMode int

// The modes.
const (
	TUNOff     TUNMode = iota // userspace
	TUNTry                    // a TUN where it can be had, else userspace
	TUNRequire                // a TUN, or Start fails with ErrNoTUN
)

// RelayConfig of a node that is a relay server.
type RelayConfig struct {
	// Addr is where it listens, for TLS and, on the same port of UDP, for STUN. "": ":9000".
	Addr string
	// AddrFixed makes an Addr that is taken an error; otherwise a free port is used instead.
	AddrFixed bool
	// Public is the "host:port" where others reach it. "": the certificate's name, or an address of this host.
	Public string
	// TLSCert and TLSKey are PEM files, read again when they change; one may hold both. "": a self-signed certificate,
	// which is kept in the state folder and named in the relay's URL by its hash.
	TLSCert, TLSKey string
}

// MemberRelayMode says whether a node passes on packets between other members. They are sealed end to end: it cannot
// read them.
type MemberRelayMode string

// The modes.
const (
	MemberRelayAuto MemberRelayMode = "auto" // where the node is reachable from outside and its link is not metered; "" is the same
	MemberRelayOn   MemberRelayMode = "on"   // wherever it is reachable
	MemberRelayOff  MemberRelayMode = "off"
)
