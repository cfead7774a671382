package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Link is what happens to packets on their way.
type Link struct {
	Delay  time.Duration // one way
	Jitter time.Duration // up to that much more, evenly spread; packets may overtake each other
	Loss   float64       // the share of packets lost, 0 to 1
	MTU    int           // larger IP packets are lost; 0 means no limit
}

// Reason says why a packet was dropped.
type Reason uint8

// The reasons.
const (
	DropLoss        Reason = iota // by a link's Loss
	DropMTU                       // larger than a link's MTU
	DropDown                      // sender or receiver was down
	DropPartition                 // between the two sides of a partition
	DropNoAddress                 // the sender has no address of the family
	DropUnreachable               // nobody has the destination address
	DropNoSocket                  // nobody is bound to the destination port
	DropFiltered                  // a NAT let nothing in from there
	DropHairpin                   // to the outside address of the sender's own NAT
	reasons
)

var reasonNames = [reasons]string{
	"loss", "mtu", "down", "partition", "no address", "unreachable", "no socket", "filtered", "hairpin",
}

// String is the reason in words.
func (r Reason) String() string {
	if r >= reasons {
		return fmt.Sprintf("reason %d", r)
	}
	return reasonNames[r]
}

// Counters count packets, and bytes of their payload. A packet that is still on its way is only in Sent.
type Counters struct {
	Sent, Delivered, Dropped  uint64
	SentBytes, DeliveredBytes uint64
	Drops                     [reasons]uint64 // by Reason; they add up to Dropped
}

// Network is the public network: every host of it reaches every other by one link. Owned by the world's goroutine.
type Network struct {
	world    *World
	rand     *rand.Rand
	public   *segment
	cut      map[[2]*Host]bool
	total    Counters
	observer func(Packet)
}

// Network adds a network with that link.
func (w *World) Network(link Link) *Network {
	n := &Network{world: w, rand: w.stream(), cut: make(map[[2]*Host]bool)}
	n.public = &segment{net: n, link: link, nodes: make(map[netip.Addr]node)}
	return n
}

// Packet is what an observer is told when a packet has arrived or was dropped.
type Packet struct {
	At       time.Time
	From, To netip.AddrPort // as the sender wrote them
	Size     int            // of the payload
	Dropped  bool
	Reason   Reason // when it was dropped
}

// Observe has fn called with the fate of every packet; nil ends it.
func (n *Network) Observe(fn func(Packet)) { n.observer = fn }

// Counters are those of all hosts together.
func (n *Network) Counters() Counters { return n.total }

// SetDown takes a host off the network and puts it back. While it is down all packets from and to it are lost, also
// those that were on their way.
func (n *Network) SetDown(h *Host, down bool) { h.down = down }

// Partition loses all packets between a host of a and a host of b, wherever their NATs are, on top of earlier
// partitions.
func (n *Network) Partition(a, b []*Host) {
	for _, x := range a {
		for _, y := range b {
			n.cut[[2]*Host{x, y}] = true
			n.cut[[2]*Host{y, x}] = true
		}
	}
}

// Heal ends all partitions.
func (n *Network) Heal() { clear(n.cut) }

// SetLink changes the network's link for packets sent from now on.
func (n *Network) SetLink(l Link) { n.public.link = l }

// Host adds a host with public addresses, at most one of each family.
func (n *Network) Host(addrs ...netip.Addr) *Host { return n.public.host(addrs...) }

// NAT adds a NAT whose outside has a public address.
func (n *Network) NAT(kind NATKind, outside netip.Addr) *NAT { return n.public.nat(kind, outside) }

// datagram is a packet on its way. The addresses change at NATs.
type datagram struct {
	from, to netip.AddrPort
	data     []byte
	origin   *Host
	sentFrom netip.AddrPort
	sentTo   netip.AddrPort
}

// node is what has an address within a segment: a host, or the outside of a NAT.
type node interface {
	receive(*datagram)
}

// segment is one address space with a link between its nodes, and a way out unless it is the public one.
type segment struct {
	net   *Network
	link  Link
	nodes map[netip.Addr]node
	exit  *NAT
}

// send carries a datagram over the segment's link, to the node there or to the NAT that leads out.
func (s *segment) send(d *datagram, extra Link) {
	for _, l := range []Link{s.link, extra} {
		if reason, lost := s.net.loses(l, d); lost {
			s.net.drop(d, reason)
			return
		}
	}
	delay := s.net.delay(s.link) + s.net.delay(extra)
	s.net.world.After(delay, func() { s.arrive(d) })
}

func (s *segment) arrive(d *datagram) {
	switch to, ok := s.nodes[d.to.Addr()]; {
	case ok:
		to.receive(d)
	case s.exit != nil:
		s.exit.out(d)
	default:
		s.net.drop(d, DropUnreachable)
	}
}

func (s *segment) claim(a netip.Addr, n node) {
	if !a.IsValid() || a.Is4In6() {
		panic(fmt.Sprintf("sim: address %v", a))
	}
	if s.nodes[a] != nil {
		panic(fmt.Sprintf("sim: address %v is taken", a))
	}
	s.nodes[a] = n
}

func (n *Network) loses(l Link, d *datagram) (Reason, bool) {
	if l.MTU > 0 && ipSize(d) > l.MTU {
		return DropMTU, true
	}
	return DropLoss, l.Loss > 0 && n.rand.Float64() < l.Loss
}

func (n *Network) delay(l Link) time.Duration {
	if l.Jitter <= 0 {
		return l.Delay
	}
	return l.Delay + time.Duration(n.rand.Int64N(int64(l.Jitter)))
}

// ipSize is the size with IP and UDP headers, which is what an MTU limits.
func ipSize(d *datagram) int {
	const ip4, ip6, udp = 20, 40, 8
	if d.to.Addr().Is4() {
		return ip4 + udp + len(d.data)
	}
	return ip6 + udp + len(d.data)
}

func (n *Network) drop(d *datagram, r Reason) {
	for _, c := range []*Counters{&n.total, &d.origin.counters} {
		c.Dropped++
		c.Drops[r]++
	}
	n.observe(d, true, r)
}

func (n *Network) observe(d *datagram, dropped bool, r Reason) {
	if n.observer != nil {
		n.observer(Packet{
			At: n.world.now, From: d.sentFrom, To: d.sentTo,
			Size: len(d.data), Dropped: dropped, Reason: r,
		})
	}
}
