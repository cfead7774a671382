package tunnel

import (
	"net/netip"

	"github.com/meshnet/meshnet/netmap"
)

// self is what packets are judged by. Immutable.
type self struct {
	network      netmap.Network
	ip4, ip6     netip.Addr // identity addresses; invalid until known
	control      netip.Addr
	controlNet   netip.Prefix
	serviceNet   netip.Prefix
	service4     netip.Addr // invalid until Prefix4 is known
	service6     netip.Addr
	filter       Filter // nil: members may reach members
	userspace    bool
	stackAddress []netip.Addr // what the netstack answers to
}

// newSelf derives the addresses of a node. filter is kept aside by the caller.
func newSelf(network netmap.Network, control, ip4, ip6 netip.Addr, userspace bool) *self {
	s := &self{
		network: network, ip4: ip4, ip6: ip6, control: control, userspace: userspace,
		controlNet: network.ControlSubnet(),
		serviceNet: network.ServiceSubnet(),
		service6:   network.Service6(),
	}
	s.stackAddress = []netip.Addr{control, s.service6}
	if network.Prefix4.IsValid() && network.Prefix4.Addr().Is4() {
		s.service4 = network.Service4()
		s.stackAddress = append(s.stackAddress, s.service4)
	}
	if userspace {
		for _, ip := range []netip.Addr{ip4, ip6} {
			if ip.IsValid() {
				s.stackAddress = append(s.stackAddress, ip)
			}
		}
	}
	return s
}

func (s *self) isControl(a netip.Addr) bool  { return s.controlNet.Contains(a) }
func (s *self) isIdentity(a netip.Addr) bool { return a.IsValid() && (a == s.ip4 || a == s.ip6) }
func (s *self) isService(a netip.Addr) bool {
	return s.serviceNet.Contains(a) || a == s.service4 && a.IsValid()
}

// identityFor is the own identity address of the family of to.
func (s *self) identityFor(to netip.Addr) netip.Addr {
	if to.Is4() {
		return s.ip4
	}
	return s.ip6
}

// SetSelf tells the network (its IPv4 prefix may come late) and the own identity addresses; an invalid address is not
// known yet. The netstack answers to the service addresses from then on and, in userspace mode, to the identity ones.
func (t *Tunnel) SetSelf(network netmap.Network, ip4, ip6 netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.tap.self.Load()
	next := newSelf(network, old.control, ip4, ip6, old.userspace)
	next.filter = old.filter
	t.tap.self.Store(next)
	t.stack.setAddresses(next.stackAddress)
}

// Direction is which way a packet goes.
type Direction int

// The directions.
const (
	Outbound Direction = iota // from this node to a member
	Inbound
)

// Filter decides about one packet between identity addresses; peer is the member at the other end. It is called on the
// packet path, from several goroutines: it must not block, allocate, or keep or change pkt. Control and service
// packets are not shown to it.
type Filter func(dir Direction, pkt []byte, peer *Member) bool

// SetFilter replaces the filter. nil lets members reach members and nothing else.
func (t *Tunnel) SetFilter(f Filter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.tap.self.Load()
	next.filter = f
	t.tap.self.Store(&next)
}
