package magicsock

import (
	"maps"
	"sync/atomic"
)

// counters are totals since New. Every dropped packet is in one of them.
type counters struct {
	pingsSent, pongsReceived                    atomic.Uint64
	malformed, unknownTag, replayed, strayPong  atomic.Uint64
	probeLimited, pongLimited                   atomic.Uint64
	foreign, stun, noRoute, sendFail            atomic.Uint64
	relayFull, relayUnknown, pathsFull, delayed atomic.Uint64
}

func (c *counters) snapshot() map[string]uint64 {
	return map[string]uint64{
		"pings_sent":         c.pingsSent.Load(),
		"pongs_received":     c.pongsReceived.Load(),
		"drop_malformed":     c.malformed.Load(),
		"drop_unknown_tag":   c.unknownTag.Load(),
		"drop_replayed_ping": c.replayed.Load(),
		"drop_stray_pong":    c.strayPong.Load(),
		"drop_probe_limit":   c.probeLimited.Load(),
		"drop_pong_limit":    c.pongLimited.Load(),
		"drop_foreign":       c.foreign.Load(),
		"drop_stun":          c.stun.Load(),
		"drop_no_route":      c.noRoute.Load(),
		"drop_send_error":    c.sendFail.Load(),
		"drop_relay_full":    c.relayFull.Load(),
		"drop_relay_unknown": c.relayUnknown.Load(),
		"drop_delayed":       c.delayed.Load(), // stood in the socket's queue
		"paths_full":         c.pathsFull.Load(),
	}
}

// Counters are totals since New, by name.
func (c *Conn) Counters() map[string]uint64 {
	all := c.core.count.snapshot()
	for i := range c.sockets {
		s := c.sockets[i].Load()
		if s == nil {
			continue
		}
		n := s.Counters()
		maps.Copy(all, map[string]uint64{
			"drop_rx_overflow": all["drop_rx_overflow"] + n.RxOverflow,
			"drop_rx_too_long": all["drop_rx_too_long"] + n.RxTooLong + n.RxEmpty,
			"drop_tx_full":     all["drop_tx_full"] + n.TxFull,
			"drop_tx_too_long": all["drop_tx_too_long"] + n.TxTooLarge,
		})
	}
	return all
}
