package tunnel

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/meshnet/meshnet/identity"
)

// Member is somebody packets may be exchanged with.
type Member struct {
	ID  identity.PeerID
	WG  identity.WGKey
	IPs []netip.Addr // its IPv4 and IPv6 identity addresses and its control address; invalid ones are ignored
}

func (m *Member) equal(o *Member) bool {
	return m.ID == o.ID && m.WG == o.WG && slices.Equal(m.IPs, o.IPs)
}

// The states of a member as the packet path sees it. Only the owner changes them, through the lot.
//
//	parked ──release──▶ trying ──settle──▶ open
//	   ▲                  │                 │
//	   └───────hold───────┴─────────────────┘
const (
	parked int32 = iota // not in the device: packets wait in the lot
	trying              // in the device without a session yet: packets pass, and the lot keeps a copy for Reset
	open                // packets pass
)

// peer is a member's entry in the tables. It lives as long as the member; its fields are atomic.
type peer struct {
	id     identity.PeerID
	member atomic.Pointer[Member]
	state  atomic.Int32
	heard  atomic.Bool  // a packet came since it is trying: the session works, copies are needless
	wanted atomic.Int64 // when Want was last asked for, in nanoseconds
}

// table finds members. Immutable, but for the peers it points to.
type table struct {
	byIP map[netip.Addr]*peer
	byID map[identity.PeerID]*peer
}

// next makes the table of members, which keeps the entries of those that stay. It tells who left and whose addresses
// or key changed.
func (t *table) next(members []Member) (n *table, gone, changed []identity.PeerID) {
	n = &table{byIP: make(map[netip.Addr]*peer, 3*len(members)), byID: make(map[identity.PeerID]*peer, len(members))}
	for i := range members {
		m := members[i]
		m.IPs = slices.DeleteFunc(slices.Clone(m.IPs), func(a netip.Addr) bool { return !a.IsValid() })
		p := t.byID[m.ID]
		switch {
		case p == nil:
			p = &peer{id: m.ID}
			p.member.Store(&m)
		case !p.member.Load().equal(&m):
			p.member.Store(&m)
			changed = append(changed, m.ID)
		}
		n.byID[m.ID] = p
		for _, ip := range m.IPs {
			n.byIP[ip] = p
		}
	}
	for id := range t.byID {
		if n.byID[id] == nil {
			gone = append(gone, id)
		}
	}
	return n, gone, changed
}

// SetMembers replaces the members, provisional ones included. Packets see the new table at once; who is no longer in it
// leaves the device, and its parked packets are dropped.
func (t *Tunnel) SetMembers(members []Member) {
	t.mu.Lock()
	next, gone, changed := t.tap.table.Load().next(members)
	t.tap.table.Store(next)
	t.mu.Unlock()
	for _, id := range gone {
		t.do(func(o *owner) { o.remove(id) })
	}
	for _, id := range changed {
		t.do(func(o *owner) { o.memberChanged(id) })
	}
}
