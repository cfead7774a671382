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
	lateSignal, replayedSignal, signalLimited   atomic.Uint64
	refusedAddr, sessionUnknown, tooLarge       atomic.Uint64
	callsSent, callsReceived, callsCarried      atomic.Uint64
	dialAttempts, dialFailures                  atomic.Uint64
	punchAttempts, punchSuccesses               atomic.Uint64
	punchFailures                               atomic.Uint64
	relayAsked, relayOpened, relayFailed        atomic.Uint64
	guessAttempts, guessSuccesses               atomic.Uint64
	guessPings, guessLimited                    atomic.Uint64

	dialed [ranks]atomic.Uint64 // successes by the kind of path
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
		"drop_late_signal":   c.lateSignal.Load(),
		"drop_replayed_call": c.replayedSignal.Load(), // nearly all of them came by a second carrier
		"drop_call_limit":    c.signalLimited.Load(),
		"drop_session":       c.sessionUnknown.Load(), // at a relaying member, which no path is known by
		"drop_too_large":     c.tooLarge.Load(),       // batches with datagrams larger than a link of this host
		"refused_endpoints":  c.refusedAddr.Load(),    // that calls named
		"paths_full":         c.pathsFull.Load(),
		"calls_sent":         c.callsSent.Load(),
		"calls_received":     c.callsReceived.Load(),
		"calls_carried":      c.callsCarried.Load(), // by control; the rest by paths and relay servers
		"dial_attempts":      c.dialAttempts.Load(),
		"dial_direct":        c.dialed[rankDirect].Load(),
		"dial_member":        c.dialed[rankMember].Load(),
		"dial_relay":         c.dialed[rankRelay].Load(),
		"dial_failures":      c.dialFailures.Load(),
		"punch_attempts":     c.punchAttempts.Load(),
		"punch_successes":    c.punchSuccesses.Load(),
		"punch_failures":     c.punchFailures.Load(),
		"member_asked":       c.relayAsked.Load(), // RelayOpens sent, repetitions too
		"member_opened":      c.relayOpened.Load(),
		"member_failed":      c.relayFailed.Load(),
		"guess_attempts":     c.guessAttempts.Load(),
		"guess_successes":    c.guessSuccesses.Load(),
		"guess_pings":        c.guessPings.Load(),
		"guess_limited":      c.guessLimited.Load(),
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
