package netlab

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
)

// Switch is a layer-2 segment: a bridge, alone or in a router.
type Switch struct {
	host   *Host
	bridge netlink.Link
	ports  int
}

// Switch makes a segment without ports, in a namespace of its own.
func (l *Lab) Switch(name string) *Switch {
	l.t.Helper()
	h := l.namespace(name)
	// A bridge speaks IPv6 for itself unless told not to, and would show up in captures.
	h.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	return h.bridge("br0")
}

// Switch makes a segment without ports that the host is part of, with the addresses, as a home router is of its LAN.
// They answer as soon as something is plugged in.
func (h *Host) Switch(addrs ...string) *Switch {
	h.lab.t.Helper()
	h.mu.Lock()
	name := fmt.Sprintf("lan%d", h.switches)
	h.switches++
	h.mu.Unlock()
	// What is bridged is no business of the router's firewall.
	for _, family := range []string{"ip", "ip6", "arp"} {
		h.optionalSysctl("net/bridge/bridge-nf-call-"+family+"tables", "0")
	}
	sw := h.bridge(name)
	for _, p := range parsePrefixes(addrs) {
		h.must("add "+p.String(), h.links.AddrReplace(sw.bridge, netlinkAddr(p)))
	}
	return sw
}

func (h *Host) bridge(name string) *Switch {
	h.lab.t.Helper()
	snooping := false // a querier is needed for it, and there is none
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snooping}
	br.Name = name
	br.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, 1} // otherwise that of a port, and another one when ports change
	h.must("add bridge", h.links.LinkAdd(br))
	h.must("set bridge up", h.links.LinkSetUp(br))
	return &Switch{host: h, bridge: br}
}

// optionalSysctl sets a parameter of a part of the kernel that need not be there.
func (h *Host) optionalSysctl(name, value string) {
	h.lab.t.Helper()
	if err := h.trySysctl(name, value); !errors.Is(err, os.ErrNotExist) {
		h.must("sysctl "+name, err)
	}
}
