package meshnet

import (
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/magicsock"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/platform"
	"github.com/meshnet/meshnet/tunnel"
)

const (
	connectedFor     = 180 * time.Second
	unreachableAfter = 15 * time.Second
)

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func millis(d time.Duration) *float64 {
	if d == 0 {
		return nil
	}
	ms := float64(d) / float64(time.Millisecond)
	return &ms
}

func roles(p *netmap.Peer) []string {
	all := []string{}
	for _, r := range p.Roles {
		all = append(all, string(r))
	}
	return all
}

func ips(p *netmap.Peer) []netip.Addr {
	all := []netip.Addr{}
	for _, ip := range p.IPs() {
		if ip.IsValid() {
			all = append(all, ip)
		}
	}
	return all
}

func list(s []string) []string { return append([]string{}, s...) }

// Status is a snapshot of the node.
func (n *Node) Status() *Status {
	m := n.mesh.Map()
	s := &Status{Version: Version, State: "running", Health: n.health(), Peers: []PeerStatus{}}
	if n.stopping.Load() {
		s.State = "stopping"
	}
	id, key := m.Network.ID.String(), n.mesh.RelayKey()
	p4, p6, hexKey := m.Network.Prefix4.String(), m.Network.Prefix6.String(), relayKeyText(key)
	s.Network = NetworkStatus{
		ID: &id, Name: optional(m.Network.Name), Suffix: optional(m.Network.Suffix),
		Prefix4: &p4, Prefix6: &p6, Members: len(m.Peers) + 1, RelayKey: &hexKey,
	}
	s.Self = n.selfStatus(m)
	stats := n.tun.Stats()
	for i := range m.Peers {
		p := &m.Peers[i]
		s.Peers = append(s.Peers, n.peerStatus(p, stats[p.ID]))
	}
	return s
}

func (n *Node) selfStatus(m *netmap.Map) SelfStatus {
	s := SelfStatus{
		ID: m.Self.ID.String(), Name: optional(m.Self.Name), FQDN: optional(m.Self.FQDN), IPs: ips(&m.Self),
		Mode: "tun", Interface: optional(n.tun.InterfaceName()), Port: n.conn.Port(),
		Endpoints: n.ownEndpoints(), Homes: n.homeNames(n.out.homed()), RelayURL: optional(n.relay.Load().url()), Roles: roles(&m.Self), Started: n.started.UTC(),
	}
	if n.tun.Userspace() {
		s.Mode, s.Interface = "userspace", nil
	}
	if l := n.listening.Load(); l != nil {
		s.Listen = *l
	}
	return s
}

func (n *Node) peerStatus(p *netmap.Peer, stats tunnel.PeerStats) PeerStatus {
	info, _ := n.conn.Peer(p.ID)
	seen := stats.LastReceive
	if info.Heard.After(seen) {
		seen = info.Heard
	}
	s := PeerStatus{
		ID: p.ID.String(), Name: optional(p.Name), FQDN: optional(p.FQDN), IPs: ips(p), Roles: roles(p),
		Tags: list(p.Tags), Admitted: p.Admitted.UTC(), State: n.peerState(p, info, stats), Path: n.pathStatus(info),
		RTT: rttStatus(info.Path), PQ: "floor", RxBytes: stats.RxBytes, TxBytes: stats.TxBytes,
		LastHandshake: optionalTime(stats.LastHandshake), LastSeen: optionalTime(seen),
		Endpoints: peerEndpoints(p), Routes: []string{}, Services: []string{},
	}
	return s
}

// peerState says what is known of reaching a peer.
func (n *Node) peerState(p *netmap.Peer, info magicsock.PeerInfo, stats tunnel.PeerStats) PeerState {
	n.mu.Lock()
	session, asked := n.sessions[p.ID], n.asked[p.ID]
	n.mu.Unlock()
	authenticated := stats.LastReceive
	if stats.LastHandshake.After(authenticated) {
		authenticated = stats.LastHandshake
	}
	waiting := !asked.IsZero() || info.Seeking
	switch {
	case session || stats.Session && time.Since(authenticated) < connectedFor:
		return PeerConnected
	case waiting && !asked.IsZero() && time.Since(asked) > unreachableAfter:
		return PeerUnreachable
	case waiting:
		return PeerConnecting
	case info.Path.Kind == magicsock.PathDirect || len(p.Endpoints) > 0:
		return PeerIdle
	}
	return PeerUnknown
}

// rttStatus tells of the last pongs on a path; nothing of one that did not answer yet.
func rttStatus(p magicsock.PathInfo) RTTStatus {
	st := p.Stats
	if st.Count == 0 {
		return RTTStatus{}
	}
	s := RTTStatus{LastMs: millis(st.Last), AvgMs: millis(st.Avg), P95Ms: millis(st.P95), Loss: &st.Loss}
	if st.Last > 0 { // a deviation of nothing is one too
		ms := float64(st.Stddev) / float64(time.Millisecond)
		s.StddevMs = &ms
	}
	return s
}

// isDirect reports whether a peer answers by its own address.
func isDirect(info magicsock.PeerInfo) bool {
	return info.Path.Kind == magicsock.PathDirect && !info.Path.LastPong.IsZero()
}

func (n *Node) pathStatus(info magicsock.PeerInfo) PathStatus {
	s := PathStatus{Kind: string(info.Path.Kind), RTTMs: millis(info.Path.RTT), Since: optionalTime(info.Path.Since), Reason: optional(info.Reason)}
	if s.Kind == "" {
		s.Kind = string(magicsock.PathNone)
	}
	if info.Path.Addr.IsValid() {
		addr := info.Path.Addr.String()
		s.Addr = &addr
	}
	switch info.Path.Kind {
	case magicsock.PathMember:
		s.Via = optional(n.nameOf(info.Path.Via))
	case magicsock.PathRelay:
		s.Via = optional(info.Path.Server)
	}
	return s
}

// health lists what stands in the way.
func (n *Node) health() []Health {
	all := []Health{}
	if p := n.problems.Load(); p != nil {
		all = append(all, *p...)
	}
	if n.noTUN != nil {
		all = append(all, Health{
			Code: "no_tun", Severity: platform.SeverityInfo, Text: "userspace mode: " + n.noTUN.Error(),
			Hint: "run as root with /dev/net/tun to be a network interface; programs use the proxies meanwhile",
		})
	}
	if n.noRendezvous() {
		all = append(all, noRendezvous)
	}
	if err := n.mesh.SaveError(); err != nil {
		all = append(all, Health{
			Code: "state_unwritable", Severity: platform.SeverityError, Text: "state cannot be written: " + err.Error(),
			Hint: "free space on the disk of the state folder; what was learnt since is kept in memory",
		})
	}
	return all
}

// lookForProblems asks the host what is in the way, and tells what is new.
func (n *Node) lookForProblems() {
	if !n.member.Load() {
		return
	}
	d := n.desired(n.mesh.Map())
	if n.tun.Userspace() {
		d = platform.Desired{Routes: d.Routes}
	}
	found := []Health{}
	for _, p := range n.sys.Problems(d, n.conn.Port()) {
		if p.Code == "no_tun" {
			continue // known by trying
		}
		found = append(found, Health{Code: p.Code, Severity: p.Severity, Text: p.Text, Hint: p.Hint})
	}
	before := n.problems.Swap(&found)
	for _, h := range found {
		if before == nil || !slices.Contains(*before, h) {
			n.publish(EventHealth, nil, map[string]any{"code": h.Code, "severity": h.Severity, "text": h.Text, "hint": h.Hint})
		}
	}
}
