package relay

import "sync/atomic"

// clientCounters are totals since NewClient. Every dropped datagram is in one of them.
type clientCounters struct {
	sent, sentBytes         atomic.Uint64
	received, receivedBytes atomic.Uint64
	unsent, undelivered     atomic.Uint64
	malformed, skipped      atomic.Uint64
	pings                   atomic.Uint64
}

// Counters are totals since NewClient, by name: datagrams, and bytes of them.
func (c *Client) Counters() map[string]uint64 {
	n := &c.count
	return map[string]uint64{
		"sent_packets":      n.sent.Load(),
		"sent_bytes":        n.sentBytes.Load(),
		"received_packets":  n.received.Load(),
		"received_bytes":    n.receivedBytes.Load(),
		"pings":             n.pings.Load(),
		"drop_queue_full":   n.unsent.Load(),
		"drop_undelivered":  n.undelivered.Load(), // the consumer stalls
		"drop_malformed":    n.malformed.Load(),
		"skip_unknown_type": n.skipped.Load(),
	}
}
