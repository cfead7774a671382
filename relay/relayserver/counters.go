package relayserver

import "sync/atomic"

// counters are totals since New. Every dropped datagram is in one of them.
type counters struct {
	opened, closed, homes                        atomic.Uint64
	packets, bytes                               atomic.Uint64
	queueFull, unknown, malformed, left          atomic.Uint64
	skipped, goneLimited, tooLong, idle, stalled atomic.Uint64
	refusedVersion, refusedProof, refusedPass    atomic.Uint64
	refusedFull, refusedProtocol, halfOpen       atomic.Uint64
	replaced, takeovers, limited                 atomic.Uint64
}

// Stats is how many sessions there are, and what passed.
type Stats struct {
	Opened, Closed uint64 // sessions since New; the difference is live
	Live           int
	Packets, Bytes uint64 // datagrams given to the queue of the client they are for, and their bytes
	Dropped        uint64 // datagrams, for whatever reason
}

// Stats is the sum of what Counters tells.
func (s *Server) Stats() Stats {
	n := &s.count
	closed := n.closed.Load() // first: live is never negative
	opened := n.opened.Load()
	return Stats{
		Opened: opened, Closed: closed, Live: int(opened - closed),
		Packets: n.packets.Load(), Bytes: n.bytes.Load(),
		Dropped: n.queueFull.Load() + n.unknown.Load() + n.malformed.Load() + n.left.Load(),
	}
}

// Counters are totals since New, by name; sessions_live and homes_live are those that also fall.
func (s *Server) Counters() map[string]uint64 {
	n := &s.count
	closed := n.closed.Load()
	opened := n.opened.Load()
	return map[string]uint64{
		"sessions_opened":   opened,
		"sessions_closed":   closed,
		"sessions_live":     opened - closed,
		"homes_live":        n.homes.Load(),
		"forwarded_packets": n.packets.Load(), // given to the queue of the client they are for
		"forwarded_bytes":   n.bytes.Load(),

		"drop_queue_full":   n.queueFull.Load(),
		"drop_unknown_node": n.unknown.Load(),
		"drop_malformed":    n.malformed.Load(),
		"drop_node_left":    n.left.Load(), // waited for a client that disconnected
		"skip_unknown_type": n.skipped.Load(),
		"gone_limited":      n.goneLimited.Load(), // unknown destinations that were not answered

		"close_too_long":   n.tooLong.Load(),
		"close_idle":       n.idle.Load(),
		"close_stalled":    n.stalled.Load(), // no progress in writing
		"close_replaced":   n.replaced.Load(),
		"active_takeovers": n.takeovers.Load(), // of one key's connections, another became the active one
		"rate_limited":     n.limited.Load(),   // times a client was not read for a while

		"refused_version":   n.refusedVersion.Load(),
		"refused_proof":     n.refusedProof.Load(),
		"refused_pass":      n.refusedPass.Load(),
		"refused_full":      n.refusedFull.Load(),
		"refused_protocol":  n.refusedProtocol.Load(),
		"refused_half_open": n.halfOpen.Load(), // pushed out of their handshake by newer ones
	}
}
