package magicsock

import (
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// members is what the network map says of all members. A member that nobody has contacted costs nothing else: core
// makes a peer of it when there is something to remember. Owned by core; the map itself is immutable.
type members struct {
	*netmap.Map
	byWG     []int32           // indices into Peers, ordered by WireGuard key
	relaying []identity.PeerID // who says that it relays
}

func newMembers() members { return members{Map: new(netmap.Map)} }

// replace takes over a map. It reports whether its members, or any of their keys, are others.
func (m *members) replace(fresh *netmap.Map) (changed bool) {
	changed = !slices.EqualFunc(m.Peers, fresh.Peers, func(a, b netmap.Peer) bool {
		return a.ID == b.ID && a.WG == b.WG && a.Disco == b.Disco
	})
	m.Map = fresh
	m.relaying = m.relaying[:0]
	for i := range fresh.Peers {
		if fresh.Peers[i].Relays {
			m.relaying = append(m.relaying, fresh.Peers[i].ID)
		}
	}
	if !changed {
		return false
	}
	m.byWG = slices.Grow(m.byWG[:0], len(fresh.Peers))
	for i := range fresh.Peers {
		m.byWG = append(m.byWG, int32(i))
	}
	slices.SortFunc(m.byWG, func(a, b int32) int { return compareWG(&fresh.Peers[a].WG, &fresh.Peers[b].WG) })
	return true
}

// find returns the member that has a WireGuard key, or nil.
func (m *members) find(wg identity.WGKey) *netmap.Peer {
	i, ok := slices.BinarySearchFunc(m.byWG, wg, func(i int32, wg identity.WGKey) int {
		return compareWG(&m.Peers[i].WG, &wg)
	})
	if !ok {
		return nil
	}
	return &m.Peers[m.byWG[i]]
}

// compareWG orders keys. Public keys are no secret: it need not take constant time.
func compareWG(a, b *identity.WGKey) int { return slices.Compare(a[:], b[:]) }

// peer returns what is known of a member or of a provisional peer. It begins with a member here. nil: nobody has that
// id.
func (c *core) peer(now time.Time, id identity.PeerID) *peer {
	if p := c.peers[id]; p != nil {
		return p
	}
	if n := c.members.Peer(id); n != nil {
		return c.meet(now, n)
	}
	return nil
}

// peerByKey is peer for a WireGuard key.
func (c *core) peerByKey(now time.Time, wg identity.WGKey) *peer {
	if p := c.byWG[wg]; p != nil {
		return p
	}
	if n := c.members.find(wg); n != nil {
		return c.peer(now, n.ID)
	}
	return nil
}

// meet makes a peer of a member.
func (c *core) meet(now time.Time, n *netmap.Peer) *peer {
	p := c.newPeer(now, n.ID, n.WG)
	p.known, p.disco, p.nat = true, n.Disco, n.NAT
	c.name(now, p, n.Endpoints)
	c.schedule(now, p) // when to forget it
	return p
}

// setMap takes over the members of a new map. Those that are peers already follow it at once.
func (c *core) setMap(now time.Time, m *netmap.Map) {
	newKeys := c.network.ID != m.Network.ID || !slices.Equal(c.secrets, m.Keys)
	c.network, c.secrets = m.Network, slices.Clone(m.Keys)
	if c.members.replace(m) || newKeys {
		c.tags.reset()
	}
	for id, p := range c.peers {
		n := m.Peer(id)
		switch {
		case n == nil && !p.known:
		case n == nil || n.WG != p.handle.wg:
			c.drop(p)
			c.serving.table.CloseMember(id)
		default:
			c.update(now, p, n, newKeys)
		}
	}
	c.meetHomes(now)
}

// update takes over what the map says of a peer.
func (c *core) update(now time.Time, p *peer, n *netmap.Peer, newKeys bool) {
	if p.disco != n.Disco || newKeys {
		p.disco, p.keys = n.Disco, nil
	}
	p.known = true
	if n.NAT != netmap.NATUnknown {
		p.nat = n.NAT // what its last call said is as good
	}
	c.checkRelay(now, p)
	c.name(now, p, n.Endpoints)
	c.schedule(now, p)
}
