package netlab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// Cable joins two hosts by one veth pair, without a switch between them, and returns when it works. Each end is the
// next card of its host (eth0, then eth1, …) with the address given for it, written as in Plug. An mtu of 0 leaves the
// kernel's 1500.
func (h *Host) Cable(to *Host, addr, toAddr string, mtu int) {
	h.lab.t.Helper()
	here, there := h.nextCard(addr), to.nextCard(toAddr)
	veth := netlink.NewVeth(netlink.NewLinkAttrs())
	veth.Name, veth.PeerName, veth.PeerNamespace = here.name, there.name, netlink.NsFd(to.ns)
	if mtu > 0 {
		veth.MTU, veth.PeerMTU = mtu, uint32(mtu)
	}
	h.must("add "+here.name, h.links.LinkAdd(veth))
	for _, i := range []*Iface{here, there} {
		i.link = i.host.link(i.name)
		i.host.must("set "+i.name+" up", i.host.links.LinkSetUp(i.link))
		i.addAddrs()
	}
	here.waitReady()
	there.waitReady()
}

func (h *Host) nextCard(addr string) *Iface {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := &Iface{host: h, name: fmt.Sprintf("eth%d", h.plugs), addrs: parsePrefixes([]string{addr})}
	h.plugs++
	return i
}
