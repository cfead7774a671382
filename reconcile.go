package meshnet

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/platform"
	"github.com/meshnet/meshnet/tunnel"
)

// coalesce is how long changes of the map are gathered after one was applied.
const coalesce = 250 * time.Millisecond

func (n *Node) poke() {
	select {
	case n.change <- struct{}{}:
	default:
	}
}

// reconcileLoop makes the workers what the newest map says: at once after a quiet time, then gathered.
func (n *Node) reconcileLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.change:
		}
		if err := n.reconcile(); err != nil {
			n.log.Error("apply the network map", "err", err)
			n.publish(EventError, nil, map[string]any{"text": err.Error()})
		}
		pause := time.NewTimer(coalesce)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// reconcile applies the newest map, additions from the bottom up, removals in reverse.
func (n *Node) reconcile() error {
	n.applying.Lock()
	defer n.applying.Unlock()
	old, now := n.applied.Load(), n.mesh.Map()
	if old == now {
		return nil
	}
	changes := netmap.Diff(old, now)
	if len(changes.Removed) > 0 {
		n.setMembers(now)
	}
	n.conn.SetMap(now)
	n.setRelayServers()
	var err error
	if renumbered(old, now) {
		n.tun.SetSelf(now.Network, now.Self.IP4, now.Self.IP6)
		err = n.applyHost(now)
	}
	if carriesOthers(old, changes) {
		n.setMembers(now)
	}
	n.applied.Store(now)
	n.tellChanges(old, changes)
	return err
}

// renumbered reports whether the host has to know of changes: what else is said of this node is for others.
func renumbered(old, now *netmap.Map) bool {
	return old == nil || old.Network != now.Network || old.Self.IP4 != now.Self.IP4 || old.Self.IP6 != now.Self.IP6
}

// carriesOthers reports whether the tunnel has to know of changes: most are of names and endpoints only.
func carriesOthers(old *netmap.Map, c netmap.Changes) bool {
	return old == nil || len(c.Added) > 0 || slices.ContainsFunc(c.Changed, func(p *netmap.Peer) bool {
		before := old.Peer(p.ID)
		return before.WG != p.WG || before.FloorPSK != p.FloorPSK ||
			before.IP4 != p.IP4 || before.IP6 != p.IP6 || before.Control != p.Control
	})
}

func (n *Node) tellChanges(old *netmap.Map, c netmap.Changes) {
	if old == nil {
		return
	}
	for _, p := range c.Added {
		n.log.Info("peer added", "peer", p.ID, "name", p.Name)
		n.publish(EventPeerAdded, p, nil)
	}
	for _, p := range c.Removed {
		n.log.Info("peer removed", "peer", p.ID, "name", p.Name)
		n.publish(EventPeerRemoved, p, nil)
	}
	if c.Self && (old.Self.IP4 != n.applied.Load().Self.IP4) {
		n.publish(EventAddressChanged, nil, map[string]any{"ips": n.applied.Load().Self.IPs()})
	}
}

// setMembers tells the tunnel whose packets to carry.
func (n *Node) setMembers(m *netmap.Map) { n.tun.SetMembers(n.tunnelMembers(m)) }

// tunnelMembers are the members of m, and provisional peers by their control address only.
func (n *Node) tunnelMembers(m *netmap.Map) []tunnel.Member {
	n.mu.Lock()
	provisional := maps.Clone(n.provisional)
	n.mu.Unlock()
	var peers []netmap.Peer
	if m != nil {
		peers = m.Peers
	}
	members := make([]tunnel.Member, 0, len(peers)+len(provisional))
	// All addresses in one piece, and all keys: for 10 000 members that is 20 000 allocations less.
	ips, psks := make([]netip.Addr, 0, 3*len(peers)), make([]identity.Secret, 0, len(peers)+len(provisional))
	for i := range peers {
		p := &peers[i]
		firstIP, firstPSK := len(ips), len(psks)
		ips = append(ips, p.IP6, p.Control)
		if p.IP4.IsValid() {
			ips = append(ips, p.IP4)
		}
		if again, ok := provisional[p.ID]; ok { // a member that comes anew keeps its addresses
			psks = append(psks, again.PSK)
			delete(provisional, p.ID)
		}
		psks = append(psks, p.FloorPSK)
		members = append(members, tunnel.Member{
			ID: p.ID, WG: p.WG, IPs: slices.Clip(ips[firstIP:]), PSKs: slices.Clip(psks[firstPSK:]),
		})
	}
	for id, p := range provisional {
		members = append(members, tunnel.Member{
			ID: id, WG: p.WG, IPs: []netip.Addr{p.Control}, PSKs: []identity.Secret{p.PSK},
		})
	}
	return members
}

// applyHost gives the interface its addresses and routes.
func (n *Node) applyHost(m *netmap.Map) error {
	if n.tun.Userspace() {
		n.lookForProblems()
		return nil
	}
	err := n.sys.Apply(n.desired(m))
	n.lookForProblems()
	return err
}

// desired is how the node's interface should look. The control subnet is not among its routes.
func (n *Node) desired(m *netmap.Map) platform.Desired {
	d := platform.Desired{Interface: n.tun.InterfaceName(), MTU: n.tun.MTU()}
	add := func(ip netip.Addr, routes ...netip.Prefix) {
		if ip.IsValid() {
			d.Addrs = append(d.Addrs, netip.PrefixFrom(ip, ip.BitLen()))
			d.Routes = append(d.Routes, routes...)
		}
	}
	add(m.Self.IP4, m.Network.Prefix4)
	add(m.Self.IP6, m.Network.IdentitySubnet(), m.Network.ServiceSubnet())
	return d
}

// onProvisional makes a peer reachable that is not a member yet, or ends that. The joiner initiates.
func (n *Node) onProvisional(p control.Provisional, initiate bool) {
	n.applying.Lock()
	defer n.applying.Unlock()
	var current *netmap.Map
	if n.member.Load() {
		current = n.mesh.Map()
	}
	if p.Over {
		n.endProvisional(current, p)
		return
	}
	n.mu.Lock()
	n.provisional[p.Node] = p
	n.mu.Unlock()
	n.conn.AddProvisional(p.Node, p.WG, p.Place)
	n.setMembers(current)
	if initiate {
		n.tun.Renew(p.Node)
	}
}

// endProvisional makes a provisional peer a member like others, or forgets it. Called with applying held.
func (n *Node) endProvisional(current *netmap.Map, p control.Provisional) {
	n.mu.Lock()
	newer := n.provisional[p.Node].PSK != p.PSK
	if !newer {
		delete(n.provisional, p.Node)
	}
	n.mu.Unlock()
	switch {
	case newer: // the same node asked again meanwhile
	case current == nil || current.Peer(p.Node) == nil:
		n.setMembers(current)
		n.conn.RemoveProvisional(p.Node)
	default:
		n.conn.SetMap(current)
		n.setMembers(current) // all its addresses, and the pair's PSK from the next handshake on
	}
}

// endJoin ends what our own join left.
func (n *Node) endJoin() {
	n.mu.Lock()
	left := slices.Collect(maps.Values(n.provisional))
	n.mu.Unlock()
	for _, p := range left {
		p.Over = true
		n.onProvisional(p, false)
	}
}

// endpoints are where others may reach this node.
func (n *Node) endpoints() []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range n.out.own.Endpoints() {
		all = append(all, e.Addr)
	}
	return all
}

// overlays are the prefixes that are no way to reach anybody.
func (n *Node) overlays() []netip.Prefix {
	all := []netip.Prefix{netmap.Prefix6(n.network)}
	if m := n.applied.Load(); m != nil {
		all = append(all, m.Network.Prefix4)
	}
	return all
}

// lookAtHost takes the host's addresses as candidates.
func (n *Node) lookAtHost() {
	host, err := n.sys.Snapshot()
	if err != nil {
		n.log.Warn("read the host's addresses", "err", err)
		return
	}
	n.seek.tunnels.Store(tunnelLinks(host))
	addrs, loopback := platform.Usable(host, n.tun.InterfaceName(), n.overlays())
	n.out.own.SetLocal(addrs, n.conn.Port())
	own := n.out.own.Local()
	for _, a := range loopback {
		own = append(own, netip.AddrPortFrom(a, n.conn.Port()))
	}
	n.conn.SetOwn(own)
}

// watchHost follows changes of links and addresses.
func (n *Node) watchHost(ctx context.Context) {
	before := n.out.own.Local()
	err := n.sys.Watch(ctx, func() {
		n.lookAtHost()
		n.lookForProblems()
		n.conn.LinkChanged()
		if now := n.out.own.Local(); !slices.Equal(before, now) {
			before = now
			n.out.own.ForgetSTUN()
			n.out.moved()
			n.pool.LinkChanged()
			n.seek.linkChanged()
			n.tellReach()
		}
	})
	if err != nil && ctx.Err() == nil {
		n.log.Warn("watch links", "err", err)
	}
}
