package netlab

import "github.com/vishvananda/netlink"

// Cable joins two hosts without a switch between them, and returns the two cards when it works. Each end is the next
// card of its host (eth0, then eth1, …) with the address given for it, written as in Plug. An mtu of 0 leaves the
// kernel's 1500.
func (h *Host) Cable(to *Host, addr, toAddr string, mtu int) (here, there *Iface) {
	h.lab.t.Helper()
	return h.cable(to, []string{addr}, []string{toAddr}, Line{MTU: mtu})
}

// LineCable is Cable for a cable that is slow or loses frames. Its frames pass through the lab's own process, which
// is good for some 100 Mbit/s.
func (h *Host) LineCable(to *Host, addr, toAddr string, line Line) (here, there *Iface) {
	h.lab.t.Helper()
	return h.cable(to, []string{addr}, []string{toAddr}, line)
}

func (h *Host) cable(to *Host, addrs, toAddrs []string, line Line) (here, there *Iface) {
	h.lab.t.Helper()
	here, there = h.nextCard(addrs), to.nextCard(toAddrs)
	here.far, there.far = there, here
	here.wire(to, there.name, line)
	there.hop, there.end = here.hop, 1
	for _, i := range []*Iface{here, there} {
		i.found()
		i.host.must("set "+i.name+" up", i.host.links.LinkSetUp(i.link))
		i.addAddrs()
	}
	here.waitReady()
	there.waitReady()
	return here, there
}

// wire makes the card's device and the one at the other end of its cable: a veth pair, or a hop where the line does
// something to frames.
func (i *Iface) wire(to *Host, toName string, line Line) {
	h := i.host
	h.lab.t.Helper()
	if line.plain() {
		veth := netlink.NewVeth(netlink.NewLinkAttrs())
		veth.Name, veth.PeerName, veth.PeerNamespace = i.name, toName, netlink.NsFd(to.ns)
		if line.MTU > 0 {
			veth.MTU, veth.PeerMTU = line.MTU, uint32(line.MTU)
		}
		h.must("add "+i.name, h.links.LinkAdd(veth))
		return
	}
	p, err := newHop([2]*Host{h, to}, [2]string{i.name, toName}, line)
	h.must("add "+i.name, err)
	h.lab.own(p)
	i.hop = p
	if line.MTU > 0 {
		h.must("set mtu", h.links.LinkSetMTU(h.link(i.name), line.MTU))
		to.must("set mtu", to.links.LinkSetMTU(to.link(toName), line.MTU))
	}
}

// plain reports whether frames pass as they are.
func (l Line) plain() bool {
	return l.Delay == 0 && l.Jitter == 0 && l.Loss == 0 && l.Rate == 0 && l.Seed == 0
}

// SetLine changes what the cable does to frames that it has not taken yet, except for its MTU: see SetMTU. It must have been made with a line
// that does something.
func (i *Iface) SetLine(line Line) {
	i.host.lab.t.Helper()
	if i.hop == nil {
		i.host.lab.t.Fatalf("netlab: %s: the cable of %s passes frames as they are", i.host.name, i.name)
	}
	i.hop.set(line)
}
