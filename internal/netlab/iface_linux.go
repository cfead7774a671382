package netlab

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Iface is a host's network card with its cable, which goes to a switch or to another card. For the test's goroutine.
type Iface struct {
	host  *Host
	name  string
	link  netlink.Link // the host's end
	addrs []netip.Prefix

	sw   *Switch
	port netlink.Link // the switch's end
	far  *Iface       // the other end of a cable without a switch
	hop  *hop         // what carries the cable's frames; nil for the kernel
	end  int          // of the hop
	cut  []func()     // what mends the cable; nil unless it is cut
}

// Plug gives the host a card (eth0, then eth1, …) with the addresses, cabled to the switch, and returns when they
// work. An address is written with its prefix: "10.1.0.2/24", "fd01::2/64".
func (h *Host) Plug(sw *Switch, addrs ...string) *Iface {
	h.lab.t.Helper()
	return h.plug(sw, addrs, Line{})
}

func (h *Host) plug(sw *Switch, addrs []string, line Line) *Iface {
	h.lab.t.Helper()
	i := h.nextCard(addrs)
	i.sw = sw
	port := fmt.Sprintf("%s.%d", sw.bridge.Attrs().Name, sw.ports)
	sw.ports++
	i.wire(sw.host, port, line)
	i.found()
	i.port = sw.host.link(port)
	sw.host.must("join bridge", sw.host.links.LinkSetMaster(i.port, sw.bridge))
	sw.host.must("set port up", sw.host.links.LinkSetUp(i.port))
	i.SetUp()
	return i
}

// nextCard is a card without its link.
func (h *Host) nextCard(addrs []string) *Iface {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := &Iface{host: h, name: fmt.Sprintf("eth%d", h.plugs), addrs: parsePrefixes(addrs)}
	h.plugs++
	h.cards = append(h.cards, i)
	return i
}

// found takes the link that was made for the card.
func (i *Iface) found() {
	i.host.lab.t.Helper()
	i.link = i.host.link(i.name)
	// A neighbour that did not answer is asked again soon, so that it is not the kernel's second which a test of a
	// short outage measures.
	i.host.Sysctl("net/ipv4/neigh/"+i.name+"/retrans_time_ms", "50")
	i.host.Sysctl("net/ipv6/neigh/"+i.name+"/retrans_time_ms", "50")
}

// Name is its name within the host.
func (i *Iface) Name() string { return i.name }

// Addr is the first address it was given. It is zero when it was given none.
func (i *Iface) Addr() netip.Addr { return i.first(func(netip.Addr) bool { return true }) }

// Addr4 is the first IPv4 address it was given. It is zero when it was given none.
func (i *Iface) Addr4() netip.Addr { return i.first(netip.Addr.Is4) }

// Addr6 is the first IPv6 address it was given. It is zero when it was given none.
func (i *Iface) Addr6() netip.Addr { return i.first(netip.Addr.Is6) }

func (i *Iface) first(fits func(netip.Addr) bool) netip.Addr {
	for _, p := range i.addrs {
		if fits(p.Addr()) {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// SetAddr replaces all addresses, as a new lease does.
func (i *Iface) SetAddr(addrs ...string) {
	i.host.lab.t.Helper()
	for _, p := range i.addrs {
		i.host.must("remove address", i.host.links.AddrDel(i.link, netlinkAddr(p)))
	}
	i.addrs = parsePrefixes(addrs)
	i.addAddrs()
	i.host.restoreRoutes()
	i.host.forgetOutside(i)
	i.waitReady()
}

// Unplug pulls the cable: the card stays, with its addresses, and loses its carrier.
func (i *Iface) Unplug() {
	i.host.lab.t.Helper()
	if i.hop != nil {
		i.host.must("unplug", i.hop.carrier(i.end, false))
	}
	if i.far != nil {
		i.far.SetDown()
	} else {
		i.sw.host.must("unplug", i.sw.host.links.LinkSetDown(i.port))
	}
}

// Replug puts the cable back to where it was.
func (i *Iface) Replug() {
	i.host.lab.t.Helper()
	if i.hop != nil {
		i.host.must("replug", i.hop.carrier(i.end, true))
	}
	if i.far != nil {
		i.far.SetUp()
	} else {
		i.sw.host.must("replug", i.sw.host.links.LinkSetUp(i.port))
	}
	i.waitReady()
}

// SetDown switches the card off. The kernel drops its routes and its IPv6 addresses.
func (i *Iface) SetDown() {
	i.host.lab.t.Helper()
	i.host.must("set "+i.name+" down", i.host.links.LinkSetDown(i.link))
}

// SetUp switches the card on, with the addresses and routes it had, and returns when they work.
func (i *Iface) SetUp() {
	i.host.lab.t.Helper()
	i.host.must("set "+i.name+" up", i.host.links.LinkSetUp(i.link))
	i.addAddrs()
	i.host.restoreRoutes()
	i.waitReady()
}

// SetMTU sets the largest packet that both ends of its cable take. A router in front of it tells senders of larger
// packets so.
func (i *Iface) SetMTU(mtu int) {
	i.host.lab.t.Helper()
	i.host.must("set mtu", i.host.links.LinkSetMTU(i.link, mtu))
	if i.far != nil {
		i.far.host.must("set mtu", i.far.host.links.LinkSetMTU(i.far.link, mtu))
		return
	}
	i.sw.host.must("set mtu", i.sw.host.links.LinkSetMTU(i.port, mtu))
}

// Remove takes the card out of the host, and with it the other end of its cable.
func (i *Iface) Remove() {
	i.host.lab.t.Helper()
	if i.hop != nil {
		i.host.must("remove "+i.name, i.hop.Close()) // the devices go with their files
		i.host.lab.disown(i.hop)
	} else {
		i.host.must("remove "+i.name, i.host.links.LinkDel(i.link))
	}
	i.host.dropCard(i)
	if i.far != nil {
		i.far.host.dropCard(i.far)
	}
}

func (i *Iface) addAddrs() {
	i.host.lab.t.Helper()
	for _, p := range i.addrs {
		i.host.must("add "+p.String(), i.host.links.AddrReplace(i.link, netlinkAddr(p)))
	}
}

// waitReady returns when the card has its carrier and no address is tentative any more: the kernel settles both a
// little after the calls that asked for them.
func (i *Iface) waitReady() {
	i.host.lab.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !i.ready() {
		if time.Now().After(deadline) {
			i.host.lab.t.Fatalf("netlab: %s: %s does not come up", i.host.name, i.name)
		}
		time.Sleep(time.Millisecond)
	}
}

func (i *Iface) ready() bool {
	i.host.lab.t.Helper()
	state := i.host.link(i.name).Attrs().OperState
	if state != netlink.OperUp && (i.hop == nil || state != netlink.OperUnknown) { // which a TAP is until first pulled
		return false
	}
	addrs, err := i.host.links.AddrList(i.link, netlink.FAMILY_V6)
	i.host.must("list addresses", err)
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return false
		}
	}
	return true
}

func (h *Host) link(name string) netlink.Link {
	h.lab.t.Helper()
	l, err := h.links.LinkByName(name)
	h.must("find "+name, err)
	return l
}

func parsePrefixes(addrs []string) []netip.Prefix {
	var ps []netip.Prefix
	for _, a := range addrs {
		ps = append(ps, netip.MustParsePrefix(a))
	}
	return ps
}

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	a, err := netlink.ParseAddr(p.String())
	if err != nil {
		panic("netlab: " + err.Error()) // p is valid, so its text is
	}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}
