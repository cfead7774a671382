package tunnel

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// Member is somebody packets may be exchanged with.
type Member struct {
	ID   identity.PeerID
	WG   identity.WGKey
	IPs  []netip.Addr      // its IPv4 and IPv6 identity addresses and its control address; invalid ones are ignored
	PSKs []identity.Secret // pre-shared keys, at least one, the newest first: each may serve the next handshake
}

func (m *Member) equal(o *Member) bool {
	return slices.Equal(m.IPs, o.IPs) && slices.Equal(m.PSKs, o.PSKs)
}

// The states of a member as the packet path sees it. They change under the lot's lock.
//
//	parked ◀──park── open
//	   └───release────▲
const (
	parked int32 = iota // packets wait in the lot, for a session or behind others that do
	open                // packets go, if there is a session
)

// peer is a member's entry in the tables. It lives as long as the member has its WireGuard key; its fields are immutable
// or atomic.
type peer struct {
	id     identity.PeerID
	wg     *wg.Peer
	member atomic.Pointer[Member]
	link   atomic.Pointer[datagram.Peer] // how to reach it; nil: the socket does not know it
	state  atomic.Int32
}

// linked is how the socket reaches the member, asked for anew at each handshake.
func (p *peer) linked() datagram.Peer {
	if l := p.link.Load(); l != nil {
		return *l
	}
	return nil
}

// limit is the longest packet that goes to the member in one piece, in bytes: at most mtu, and never less than what
// IPv6 is promised.
func (p *peer) limit(mtu int) int {
	if mtu <= minMTU {
		return mtu
	}
	if l := p.linked(); l != nil {
		if size := l.MaxSize(); size > 0 {
			return min(mtu, max(size-wg.Overhead, minMTU))
		}
	}
	return mtu
}

// minMTU is what every link of IPv6 carries (RFC 8200 §5).
const minMTU = 1280

// table finds members. Immutable, but for the peers it points to.
type table struct {
	byIP *bart.Table[*peer]
	byID map[identity.PeerID]*peer
}

func newTable() *table {
	return &table{byIP: new(bart.Table[*peer]), byID: make(map[identity.PeerID]*peer)}
}

// owner is the member that an address belongs to; nil: none.
func (t *table) owner(ip netip.Addr) *peer {
	p, _ := t.byIP.Lookup(ip)
	return p
}

// change is how one table differs from the one before. Peers of members that stay are kept.
type change struct {
	added, gone, rekeyed []*peer
}

// next makes the table of members.
func (t *table) next(members []Member, notes *wg.Notes) (n *table, c change) {
	n = newTable()
	for i := range members {
		m := members[i]
		m.IPs = slices.DeleteFunc(slices.Clone(m.IPs), func(a netip.Addr) bool { return !a.IsValid() })
		p := t.byID[m.ID]
		switch {
		case p == nil || p.wg.Key != m.WG:
			p = &peer{id: m.ID}
			p.wg = wg.NewPeer(m.WG, p, notes)
			p.member.Store(&m)
			c.added = append(c.added, p)
		case !p.member.Load().equal(&m):
			p.member.Store(&m)
			c.rekeyed = append(c.rekeyed, p)
		}
		n.byID[m.ID] = p
		for _, ip := range m.IPs {
			n.byIP.Insert(netip.PrefixFrom(ip, ip.BitLen()), p)
		}
	}
	for id, p := range t.byID {
		if n.byID[id] != p {
			c.gone = append(c.gone, p)
		}
	}
	return n, c
}

// SetMembers replaces the members, provisional ones included. Packets see the new table at once; the sessions of who is
// no longer in it, or has another WireGuard key, end, and parked packets are dropped.
func (t *Tunnel) SetMembers(members []Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next, c := t.tap.table.Load().next(members, t.machine.Notes())
	// Before the table: a packet's note must find the peer known.
	t.do(func(o *owner) { o.members(c) })
	t.tap.table.Store(next)
}

// relink looks up how a peer is reached, which costs the socket memory: not before there is a handshake.
func (t *Tunnel) relink(p *peer) {
	if l := t.cfg.Socket.PeerByKey(p.wg.Key); l != nil {
		p.link.Store(&l)
	}
}
