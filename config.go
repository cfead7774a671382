package meshnet

import (
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
	// Bootstrap are "host:port" of nodes to try first.
	Bootstrap []string

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
