package netlab

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Switch is a layer-2 segment: a bridge in a namespace of its own, without addresses.
type Switch struct {
	host   *Host
	bridge netlink.Link
	ports  int
}

// Switch makes a segment without ports.
func (l *Lab) Switch(name string) *Switch {
	l.t.Helper()
	h := l.namespace(name)
	// A bridge speaks IPv6 for itself unless told not to, and would show up in captures.
	h.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	snooping := false // a querier is needed for it, and there is none
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snooping}
	br.Name = "br0"
	h.must("add bridge", h.links.LinkAdd(br))
	h.must("set bridge up", h.links.LinkSetUp(br))
	return &Switch{host: h, bridge: br}
}

// Iface is a host's network card with its cable. For the test's goroutine.
type Iface struct {
	host  *Host
	sw    *Switch
	name  string
	link  netlink.Link // the host's end
	port  netlink.Link // the switch's end
	addrs []netip.Prefix
}

// Plug gives the host a card (eth0, then eth1, …) with the addresses, cabled to the switch, and returns when they
// work. An address is written with its prefix: "10.1.0.2/24", "fd01::2/64".
func (h *Host) Plug(sw *Switch, addrs ...string) *Iface {
	h.lab.t.Helper()
	h.mu.Lock()
	i := &Iface{host: h, sw: sw, name: fmt.Sprintf("eth%d", h.plugs)}
	h.plugs++
	h.mu.Unlock()
	port := fmt.Sprintf("port%d", sw.ports)
	sw.ports++
	veth := netlink.NewVeth(netlink.NewLinkAttrs())
	veth.Name, veth.PeerName, veth.PeerNamespace = i.name, port, netlink.NsFd(sw.host.ns)
	h.must("add "+i.name, h.links.LinkAdd(veth))
	i.link = h.link(i.name)
	// A neighbour that did not answer is asked again soon, so that it is not the kernel's second which a test of a
	// short outage measures.
	h.Sysctl("net/ipv4/neigh/"+i.name+"/retrans_time_ms", "50")
	h.Sysctl("net/ipv6/neigh/"+i.name+"/retrans_time_ms", "50")
	i.port = sw.host.link(port)
	sw.host.must("join bridge", sw.host.links.LinkSetMaster(i.port, sw.bridge))
	sw.host.must("set port up", sw.host.links.LinkSetUp(i.port))
	i.addrs = parsePrefixes(addrs)
	i.SetUp()
	return i
}

// Name is its name within the host.
func (i *Iface) Name() string { return i.name }

// Addr is the first address it was given. It is zero when it was given none.
func (i *Iface) Addr() netip.Addr {
	if len(i.addrs) == 0 {
		return netip.Addr{}
	}
	return i.addrs[0].Addr()
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
	i.waitReady()
}

// Unplug pulls the cable: the card stays, with its addresses, and loses its carrier.
func (i *Iface) Unplug() {
	i.host.lab.t.Helper()
	i.sw.host.must("unplug", i.sw.host.links.LinkSetDown(i.port))
}

// Replug puts the cable back into the same switch.
func (i *Iface) Replug() {
	i.host.lab.t.Helper()
	i.sw.host.must("replug", i.sw.host.links.LinkSetUp(i.port))
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

// SetMTU sets the largest packet the card and its switch port take.
func (i *Iface) SetMTU(mtu int) {
	i.host.lab.t.Helper()
	i.host.must("set mtu", i.host.links.LinkSetMTU(i.link, mtu))
	i.sw.host.must("set mtu", i.sw.host.links.LinkSetMTU(i.port, mtu))
}

// Remove takes the card out of the host.
func (i *Iface) Remove() {
	i.host.lab.t.Helper()
	i.host.must("remove "+i.name, i.host.links.LinkDel(i.link))
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
	if i.host.link(i.name).Attrs().OperState != netlink.OperUp {
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
