package meshnet

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/discovery"
	"github.com/meshnet/meshnet/magicsock"
	"github.com/meshnet/meshnet/netmap"
)

// natNames are the words for kinds of NAT.
var natNames = map[netmap.NAT]string{
	netmap.NATNone: "none", netmap.NATEasy: "easy", netmap.NATHard: "hard", netmap.NATBlocked: "blocked",
}

func natName(nat netmap.NAT) *string { return optional(natNames[nat]) }

// Netcheck finds out what the networks around this node let through, within 5 s.
func (n *Node) Netcheck(ctx context.Context) (*Netcheck, error) {
	began := time.Now()
	r, err := n.out.reporter.Check(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("netcheck: %w", ctx.Err())
	}
	c := &Netcheck{
		UDP: r.UDP || n.heardDirectly(), IPv4: optionalAddr(r.IPv4), IPv6: optionalAddr(r.IPv6), NAT: natName(n.out.findNAT()),
		Mapping: optional(string(r.Mapping)), Filtering: optional(string(r.Filtering)), Hairpin: r.Hairpin,
		STUN: []NetcheckServer{}, Relays: []NetcheckRelay{}, Took: float64(time.Since(began)) / float64(time.Millisecond),
	}
	if n.out.mapper != nil {
		s := n.out.mapper.Status()
		c.PortMap = NetcheckPortMap{
			PCP: s.PCP, NATPMP: s.NATPMP, UPnP: s.UPnP, External: optionalAddr(s.External), Protocol: optional(string(s.Protocol)),
		}
	}
	for _, s := range r.STUN {
		c.STUN = append(c.STUN, NetcheckServer{
			Server: s.Server, Mapped: optionalAddr(s.Mapped), LatencyMs: millis(s.Latency), Error: optional(s.Err),
		})
	}
	for _, s := range n.pool.Status() {
		c.Relays = append(c.Relays, NetcheckRelay{
			URL: s.URL, Connected: s.Connected, Home: s.Home, LatencyMs: millis(s.Latency), Error: optional(errorText(s.Err)),
		})
	}
	return c, nil
}

func optionalAddr(a netip.AddrPort) *netip.AddrPort {
	if !a.IsValid() {
		return nil
	}
	return &a
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Why explains the path to a peer.
func (n *Node) Why(peer string) (*Why, error) {
	p, err := n.find(peer)
	if err != nil {
		return nil, err
	}
	if p.ID == n.id.ID() {
		return nil, fmt.Errorf("%w: %q is this node", ErrUnknownPeer, peer)
	}
	info, _ := n.conn.Peer(p.ID)
	w := &Why{
		Peer: n.whoIs(p), Path: n.pathStatus(info), Rule: info.Reason, Probes: []WhyProbe{},
		Ours:   WhySide{NAT: natName(n.out.kind()), Candidates: n.ownEndpoints(), Homes: n.homeNames(n.out.homed())},
		Theirs: WhySide{NAT: natName(p.NAT), Candidates: peerEndpoints(p), Homes: n.homeNames(p.Homes)},
	}
	for _, c := range info.Candidates {
		w.Probes = append(w.Probes, WhyProbe{
			Path: n.pathStatus(magicsock.PeerInfo{Path: c}), Pings: c.Pings, Pongs: c.Pongs,
			LastPing: optionalTime(c.LastPing), LastPong: optionalTime(c.LastPong), Size: c.Size,
			RxBytes: c.Rx, TxBytes: c.Tx, Verdict: c.Verdict,
		})
	}
	return w, nil
}

func (n *Node) ownEndpoints() []EndpointStatus {
	all := []EndpointStatus{}
	for _, e := range n.out.own.Endpoints() {
		all = append(all, EndpointStatus{Addr: e.Addr, Source: string(e.Source)})
	}
	return all
}

func peerEndpoints(p *netmap.Peer) []EndpointStatus {
	all := []EndpointStatus{}
	for _, a := range p.Endpoints {
		all = append(all, EndpointStatus{Addr: a, Source: string(netmap.SourcePeer)})
	}
	return all
}

// Approve allows or forbids what a member offers: "relay", the relay server that it runs. Admins only.
func (n *Node) Approve(_ context.Context, peer, what string, allow bool) error {
	p, err := n.find(peer)
	if err != nil {
		return fmt.Errorf("approve: %w", err)
	}
	return adminError("approve", n.mesh.Approve(p.ID, ledger.Offer(what), "", allow))
}

// filteringOpen reports whether a report says that everybody's packets come in.
func filteringOpen(r discovery.Report) bool { return r.Filtering == discovery.FilteringIndependent }
