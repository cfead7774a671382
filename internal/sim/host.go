package sim

import (
	"bytes"
	"fmt"
	"net/netip"
)

// Host is a machine with UDP ports. Owned by the world's goroutine.
type Host struct {
	segment  *segment
	addrs    []netip.Addr
	access   Link
	sockets  map[uint16]*Socket
	next     uint16 // where the search for a free port goes on
	down     bool
	counters Counters
}

func (s *segment) host(addrs ...netip.Addr) *Host {
	h := &Host{segment: s, sockets: make(map[uint16]*Socket), next: firstFreePort}
	h.SetAddrs(addrs...)
	return h
}

// SetAddrs replaces its addresses, as roaming does; there may be none. Sockets stay bound. What was on its way to an
// old address is lost. It panics when an address is taken.
func (h *Host) SetAddrs(addrs ...netip.Addr) {
	for _, a := range h.addrs {
		delete(h.segment.scope(a).nodes, a)
	}
	h.addrs = nil
	for _, a := range addrs {
		if h.addr(a).IsValid() {
			panic(fmt.Sprintf("sim: second address of a family: %v", a))
		}
		h.segment.scope(a).claim(a, h)
		h.addrs = append(h.addrs, a)
	}
}

// Move takes the host to another place: behind nat, or onto the public network when nat is nil.
func (h *Host) Move(nat *NAT, addrs ...netip.Addr) {
	h.SetAddrs()
	to := h.segment.net.public
	if nat != nil {
		to = nat.inside
	}
	h.segment = to
	h.SetAddrs(addrs...)
}

// Addrs are its addresses. They must not be changed.
func (h *Host) Addrs() []netip.Addr { return h.addrs }

// SetLink gives the host a line of its own, whose delays and losses are added to those of the network, both ways.
func (h *Host) SetLink(l Link) { h.access = l }

// Counters count what the host sent (Sent, Dropped) and what it was given (Delivered).
func (h *Host) Counters() Counters { return h.counters }

// addr is its address of the same family as like; zero when it has none.
func (h *Host) addr(like netip.Addr) netip.Addr {
	for _, a := range h.addrs {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// receive takes a datagram from the segment: at once, or after the host's own line.
func (h *Host) receive(d *datagram) {
	n := h.segment.net
	if h.access == (Link{}) {
		h.deliver(d)
		return
	}
	if reason, lost := n.loses(h.access, d); lost {
		n.drop(d, reason)
		return
	}
	n.world.After(n.delay(h.access), func() { h.deliver(d) })
}

func (h *Host) deliver(d *datagram) {
	n := h.segment.net
	s := h.sockets[d.to.Port()]
	switch {
	case h.down || d.origin.down:
		n.drop(d, DropDown)
	case n.cut[[2]*Host{d.origin, h}]:
		n.drop(d, DropPartition)
	case h.addr(d.to.Addr()) != d.to.Addr(): // it moved meanwhile
		n.drop(d, DropUnreachable)
	case s == nil:
		n.drop(d, DropNoSocket)
	default:
		for _, c := range []*Counters{&n.total, &h.counters} {
			c.Delivered++
			c.DeliveredBytes += uint64(len(d.data))
		}
		n.observe(d, false, 0)
		s.fn(d.from, d.data)
	}
}

// firstFreePort begins the ports that are given out (RFC 6335 §6).
const firstFreePort = 49152

// Socket is a bound UDP port of a host, on all its addresses.
type Socket struct {
	host *Host
	port uint16
	fn   func(from netip.AddrPort, pkt []byte)
}

// Bind has fn called for every datagram to port; 0 takes a free one. The packet is fn's to keep. It panics when the
// port is taken.
func (h *Host) Bind(port uint16, fn func(from netip.AddrPort, pkt []byte)) *Socket {
	if port == 0 {
		port = h.freePort()
	}
	if h.sockets[port] != nil {
		panic(fmt.Sprintf("sim: port %d is taken", port))
	}
	s := &Socket{host: h, port: port, fn: fn}
	h.sockets[port] = s
	return s
}

func (h *Host) freePort() uint16 {
	for range 1 << 16 {
		port := h.next
		if h.next++; h.next == 0 {
			h.next = firstFreePort
		}
		if h.sockets[port] == nil {
			return port
		}
	}
	panic("sim: no free port")
}

// Port is the port it is bound to.
func (s *Socket) Port() uint16 { return s.port }

// Close frees the port. What was on its way to it is lost.
func (s *Socket) Close() {
	if s.host.sockets[s.port] == s {
		delete(s.host.sockets, s.port)
	}
}

// Send sends a copy of pkt. Like UDP it never says whether that helped.
func (s *Socket) Send(to netip.AddrPort, pkt []byte) {
	h, n := s.host, s.host.segment.net
	from := netip.AddrPortFrom(h.addr(to.Addr()), s.port)
	d := &datagram{from: from, to: to, data: bytes.Clone(pkt), origin: h, sentFrom: from, sentTo: to}
	for _, c := range []*Counters{&n.total, &h.counters} {
		c.Sent++
		c.SentBytes += uint64(len(pkt))
	}
	switch {
	case h.down:
		n.drop(d, DropDown)
	case !from.Addr().IsValid():
		n.drop(d, DropNoAddress)
	default:
		h.segment.scope(to.Addr()).send(d, h.access)
	}
}
