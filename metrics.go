package meshnet

import (
	"context"
	"fmt"

	"github.com/meshnet/meshnet/internal/prom"
	"github.com/meshnet/meshnet/magicsock"
)

// The groups of the parts' counters.
var (
	socketMetrics = []prom.Group{
		{Prefix: "dial_attempts", Name: "meshnet_dial_attempts_total", Help: "Members that were looked for."},
		{Prefix: "dial_failures", Name: "meshnet_dial_failures_total", Help: "Members that no path was found to."},
		{Prefix: "dial_", Name: "meshnet_dial_successes_total", Label: "mode", Help: "Members that were found, by the kind of path that answered first."},
		{Prefix: "punch_attempts", Name: "meshnet_punch_attempts_total", Help: "Times that two nodes told each other where to send to."},
		{Prefix: "punch_successes", Name: "meshnet_punch_successes_total", Help: "Those after which a direct path answered."},
		{Prefix: "punch_failures", Name: "meshnet_punch_failures_total", Help: "Those after which none did."},
		{Prefix: "drop_", Name: "meshnet_socket_dropped_packets_total", Label: "reason", Help: "Datagrams that the socket threw away."},
		{Prefix: "", Name: "meshnet_socket_events_total", Label: "event", Help: "What else the socket counts."},
	}
	tunnelMetrics = []prom.Group{
		{Prefix: "", Name: "meshnet_tunnel_dropped_packets_total", Label: "reason", Help: "Packets that the tunnel did not carry."},
	}
	controlMetrics = []prom.Group{
		{Prefix: "", Name: "meshnet_control_events_total", Label: "event", Help: "What control counts: sessions, dials, Intros, signals."},
	}
	relayMetrics = []prom.Group{
		{Prefix: "open_", Name: "meshnet_relay_opens_total", Label: "result", Help: "Connections to relay servers that were tried."},
		{Prefix: "", Name: "meshnet_relay_client_events_total", Label: "event", Help: "What else is counted of relay servers."},
	}
)

// Metrics are the node's counters and gauges.
func (n *Node) Metrics() []prom.Family {
	families := prom.Gather(n.conn.Counters(), socketMetrics)
	families = append(families, prom.Gather(n.tun.Counters(), tunnelMetrics)...)
	families = append(families, prom.Gather(n.mesh.Counters(), controlMetrics)...)
	families = append(families, prom.Gather(n.pool.Counters(), relayMetrics)...)
	families = append(families, n.stunMetrics()...)
	families = append(families, n.findMetrics()...)
	families = append(families, n.memberRelayMetrics()...)
	if r := n.relay.Load(); r != nil {
		families = append(families, prom.Gather(r.server.Counters(), prom.RelayServer)...)
		families = append(families, prom.Gather(r.front.Counters(), prom.RelayFront)...)
	}
	return append(families, n.peerMetrics()...)
}

// stunMetrics count questions to STUN servers, and what came back.
func (n *Node) stunMetrics() []prom.Family {
	c := n.out.reporter.Counters()
	return []prom.Family{
		{Name: "meshnet_stun_queries_total", Help: "STUN requests sent.", Type: prom.Counter, Samples: []prom.Sample{prom.Of(float64(c.Sent))}},
		{Name: "meshnet_stun_results_total", Help: "STUN messages that came, by what became of them.", Type: prom.Counter, Samples: []prom.Sample{
			prom.Of(float64(c.Late), "result", "late"), prom.Of(float64(c.Malformed), "result", "malformed"),
			prom.Of(float64(c.Taken), "result", "ok"), prom.Of(float64(c.Spoofed), "result", "spoofed"),
			prom.Of(float64(c.Unknown), "result", "unknown"),
		}},
	}
}

// findMetrics count what the sources of other members' addresses do.
func (n *Node) findMetrics() []prom.Family {
	l := n.seek.lists.Counters()
	families := prom.Gather(map[string]uint64{
		"rounds": l.Rounds, "lookups": l.Lookups, "failures": l.Failures, "handed_out": l.HandedOut, "unfit": l.Unfit,
	}, []prom.Group{{
		Prefix: "", Name: "meshnet_bootstrap_events_total", Label: "event", Help: "What is counted of bootstrap entries, files and DNS lists.",
	}})
	if n.seek.lan != nil {
		c := n.seek.lan.Counters()
		families = append(families, prom.Gather(map[string]uint64{
			"sent": c.Sent, "send_errors": c.SendErrors, "unrelated": c.Unrelated, "overflow": c.Overflow,
			"over_budget": c.OverBudget, "off_link": c.OffLink, "malformed": c.Malformed, "other_network": c.OtherNetwork,
			"refused": c.Refused, "full": c.Full, "conflicts": c.Conflicts,
		}, []prom.Group{{
			Prefix: "", Name: "meshnet_mdns_events_total", Label: "event", Help: "Datagrams of mDNS, and what was in them.",
		}})...)
	}
	if n.seek.dht != nil {
		s := n.seek.dht.Status()
		families = append(families, prom.Gather(map[string]uint64{"queries": s.Queries, "dropped": s.Dropped}, []prom.Group{{
			Prefix: "", Name: "meshnet_dht_events_total", Label: "event", Help: "Queries to nodes of the DHT, and packets of no use.",
		}})...)
	}
	return families
}

// peerMetrics are the traffic by kind of path, and how many peers are reached how.
func (n *Node) peerMetrics() []prom.Family {
	kinds := []magicsock.PathKind{magicsock.PathDirect, magicsock.PathMember, magicsock.PathRelay, magicsock.PathNone}
	bytes := make(map[magicsock.PathKind]magicsock.Traffic)
	peers := make(map[magicsock.PathKind]int)
	connected := 0
	m, stats := n.mesh.Map(), n.tun.Stats()
	for i := range m.Peers {
		info, _ := n.conn.Peer(m.Peers[i].ID)
		peers[info.Path.Kind]++
		for kind, t := range info.ByKind {
			sum := bytes[kind]
			bytes[kind] = magicsock.Traffic{Rx: sum.Rx + t.Rx, Tx: sum.Tx + t.Tx}
		}
		if n.peerState(&m.Peers[i], info, stats[m.Peers[i].ID]) == PeerConnected {
			connected++
		}
	}
	traffic := prom.Family{
		Name: "meshnet_path_bytes", Type: prom.Gauge,
		Help: "WireGuard datagrams of the peers that are remembered, in bytes, by kind of path.",
	}
	paths := prom.Family{Name: "meshnet_paths", Type: prom.Gauge, Help: "Peers, by the kind of path that the next packet takes."}
	for _, kind := range kinds {
		paths.Samples = append(paths.Samples, prom.Of(float64(peers[kind]), "kind", string(kind)))
		if kind == magicsock.PathNone {
			continue
		}
		traffic.Samples = append(traffic.Samples,
			prom.Of(float64(bytes[kind].Rx), "kind", string(kind), "direction", "rx"),
			prom.Of(float64(bytes[kind].Tx), "kind", string(kind), "direction", "tx"))
	}
	return []prom.Family{
		traffic, paths,
		{Name: "meshnet_peers", Help: "Other members.", Type: prom.Gauge, Samples: []prom.Sample{prom.Of(float64(len(m.Peers)))}},
		{Name: "meshnet_peers_connected", Help: "Members that a packet of was authenticated in the last 180 s.", Type: prom.Gauge, Samples: []prom.Sample{prom.Of(float64(connected))}},
	}
}

// memberRelayMetrics count what was relayed between members.
func (n *Node) memberRelayMetrics() []prom.Family {
	c := n.conn.RelayCounters()
	return prom.Gather(map[string]uint64{
		"opened": c.Opened, "closed": c.Closed, "bytes": c.Passed,
		"drop_unbound": c.Unbound, "drop_waiting": c.Waiting, "drop_rate": c.OverRate, "drop_gone": c.Gone,
	}, []prom.Group{
		{Prefix: "opened", Name: "meshnet_member_relay_sessions_opened_total", Help: "Sessions between two other members that were opened here."},
		{Prefix: "closed", Name: "meshnet_member_relay_sessions_closed_total", Help: "Those that ended."},
		{Prefix: "bytes", Name: "meshnet_member_relay_forwarded_bytes_total", Help: "Bytes of datagrams passed on between members."},
		{Prefix: "drop_", Name: "meshnet_member_relay_dropped_bytes_total", Label: "reason", Help: "Bytes of datagrams between members that were thrown away."},
	})
}

// serveMetrics serves them on an address of their own, if one is given, and returns it.
func (n *Node) serveMetrics(ctx context.Context) (*string, error) {
	if n.cfg.Metrics == "" {
		return nil, nil
	}
	s, err := prom.Listen(n.cfg.Metrics, n.Metrics)
	if err != nil {
		return nil, &Hinted{err, "choose another address with --metrics"}
	}
	n.wg.Go(func() {
		if err := s.Serve(ctx); err != nil {
			n.log.Error("metrics ended", "err", fmt.Sprint(err))
		}
	})
	return optional(s.Addr().String()), nil
}
