package sim

import (
	"net/netip"
	"time"
)

// NATKind is how a NAT maps and filters, in the terms of RFC 4787 §4.1 and §5.
type NATKind uint8

// The kinds. The first three after NATNone map independently of the destination and keep the inside port while it is
// free.
const (
	NATNone           NATKind = iota // no NAT: its hosts are on the network outside
	FullCone                         // endpoint-independent filtering
	AddressRestricted                // address-dependent filtering
	PortRestricted                   // address- and port-dependent filtering
	Symmetric                        // address- and port-dependent mapping, to random ports, and filtering
)

var natNames = [...]string{"none", "full cone", "address restricted", "port restricted", "symmetric"}

// String is the kind in words.
func (k NATKind) String() string { return natNames[k] }

// DefaultNATTimeout is the least that RFC 4787 allows (REQ-5).
const DefaultNATTimeout = 2 * time.Minute

// NAT translates between the hosts inside and one address outside. It translates that address's family only: hosts
// inside may have an address of the other, which the network outside then reaches directly. Owned by the world's
// goroutine.
type NAT struct {
	// Timeout is how long a mapping stays without a packet from inside. Default DefaultNATTimeout.
	Timeout time.Duration
	// Hairpin lets inside hosts reach each other by their outside addresses (RFC 4787 §6). Default off.
	Hairpin bool

	kind    NATKind
	addr    netip.Addr
	outside *segment
	inside  *segment
	byFlow  map[flow]*mapping
	byPort  map[uint16]*mapping
}

// flow is what a mapping belongs to; to is zero where mappings do not depend on the destination.
type flow struct{ from, to netip.AddrPort }

// mapping is one outside port.
type mapping struct {
	flow    flow
	port    uint16
	expires time.Time
	// allowed are the destinations it sent to, each as long as it is not silent: addresses with port 0 where only
	// the address counts.
	allowed map[netip.AddrPort]time.Time
}

func (s *segment) nat(kind NATKind, outside netip.Addr) *NAT {
	t := &NAT{Timeout: DefaultNATTimeout, kind: kind, addr: outside, outside: s, inside: s}
	if kind == NATNone {
		return t
	}
	t.inside = &segment{net: s.net, nodes: make(map[netip.Addr]node), exit: t}
	t.Forget()
	s.claim(outside, t)
	return t
}

// scope is the segment where an address lives for hosts of s: outside of NATs that do not translate its family.
func (s *segment) scope(a netip.Addr) *segment {
	for s.exit != nil && a.Is4() != s.exit.addr.Is4() {
		s = s.exit.outside
	}
	return s
}

// Host adds a host inside, with at most one address of each family.
func (t *NAT) Host(addrs ...netip.Addr) *Host { return t.inside.host(addrs...) }

// NAT adds a NAT inside, whose outside address is one of this NAT's inside.
func (t *NAT) NAT(kind NATKind, outside netip.Addr) *NAT { return t.inside.nat(kind, outside) }

// SetLink gives the network inside a link; at first packets cross it in no time. Packets that leave cross both.
func (t *NAT) SetLink(l Link) {
	if t.kind != NATNone {
		t.inside.link = l
	}
}

// Addr is its outside address.
func (t *NAT) Addr() netip.Addr { return t.addr }

// Forget drops all mappings, as a restart does.
func (t *NAT) Forget() {
	t.byFlow, t.byPort = make(map[flow]*mapping), make(map[uint16]*mapping)
}

// out translates a datagram from inside and sends it on.
func (t *NAT) out(d *datagram) {
	if d.to.Addr() == t.addr && !t.Hairpin {
		t.outside.net.drop(d, DropHairpin)
		return
	}
	m := t.mapping(d)
	now := t.outside.net.world.now
	m.expires = now.Add(t.Timeout)
	m.allowed[t.filterKey(d.to)] = m.expires
	d.from = netip.AddrPortFrom(t.addr, m.port)
	t.outside.scope(d.to.Addr()).send(d, Link{})
}

// receive translates a datagram from outside, when it is let in. It does not keep the mapping alive (RFC 4787 REQ-6
// leaves that open, and home routers differ).
func (t *NAT) receive(d *datagram) {
	now := t.outside.net.world.now
	m := t.byPort[d.to.Port()]
	if m == nil || m.expires.Before(now) || !t.lets(m, d.from, now) {
		t.outside.net.drop(d, DropFiltered)
		return
	}
	d.to = m.flow.from
	t.inside.send(d, Link{})
}

func (t *NAT) lets(m *mapping, from netip.AddrPort, now time.Time) bool {
	if t.kind == FullCone {
		return true
	}
	until, ok := m.allowed[t.filterKey(from)]
	return ok && !until.Before(now)
}

// filterKey is as much of a remote address as the filter looks at.
func (t *NAT) filterKey(a netip.AddrPort) netip.AddrPort {
	switch t.kind {
	case FullCone:
		return netip.AddrPort{}
	case AddressRestricted:
		return netip.AddrPortFrom(a.Addr(), 0)
	default:
		return a
	}
}

// mapping finds or makes the mapping of a datagram from inside.
func (t *NAT) mapping(d *datagram) *mapping {
	f := flow{from: d.from}
	if t.kind == Symmetric {
		f.to = d.to
	}
	now := t.outside.net.world.now
	if m := t.byFlow[f]; m != nil {
		if !m.expires.Before(now) {
			return m
		}
		t.remove(m)
	}
	m := &mapping{flow: f, port: t.port(d.from.Port()), allowed: make(map[netip.AddrPort]time.Time)}
	t.byFlow[f], t.byPort[m.port] = m, m
	return m
}

func (t *NAT) remove(m *mapping) {
	delete(t.byFlow, m.flow)
	delete(t.byPort, m.port)
}

// port picks the outside port: the inside one while it is free, else, and always when Symmetric, a random one.
func (t *NAT) port(inside uint16) uint16 {
	if t.kind != Symmetric && t.free(inside) {
		return inside
	}
	const low = 1024
	for range 1 << 20 {
		if p := uint16(low + t.outside.net.rand.IntN(1<<16-low)); t.free(p) {
			return p
		}
	}
	panic("sim: NAT has no free port")
}

// free reports whether a port is not in use, and removes an expired mapping that holds it.
func (t *NAT) free(port uint16) bool {
	m := t.byPort[port]
	if m == nil {
		return true
	}
	if !m.expires.Before(t.outside.net.world.now) {
		return false
	}
	t.remove(m)
	return true
}
