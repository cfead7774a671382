package control

import (
	"sync/atomic"

	"github.com/meshnet/meshnet/control/join"
)

// counts are totals since the start.
type counts struct {
	introsDropped                     atomic.Uint64
	sessions, sessionErrors, badPeers atomic.Uint64
	dials, dialsFailed                atomic.Uint64
	signalsSent, signalsForwarded     atomic.Uint64
	signalsDelivered                  atomic.Uint64
	signalsLimited, signalsLost       atomic.Uint64
	signalsNoWay, signalsNoRoute      atomic.Uint64
}

// Counters are totals since the start, by name:
//
//	intros_dropped      datagrams of joining that came while too many waited
//	intros_malformed, intros_unknown, intros_cookies, intros_cookie_limited, intros_relay_limited, intros_sealed,
//	intros_limited, intros_bad_signature, intros_answered, intros_resent
//	                    what became of the others
//	dials, dials_failed attempts to open a control session
//	sessions            sessions established
//	session_errors      sessions and attempts that ended without anybody's fault
//	bad_peers           those that ended because the other side broke the rules
//	notes_lost          what the packet side told while too much waited
//	signals_sent        signals of this node that a session took, one for each
//	signals_no_way      those that no session took
//	signals_forwarded   signals of others that were passed on to their target
//	signals_delivered   signals for this node
//	signals_limited     signals of others beyond their quota
//	signals_lost        signals that left a full queue for newer ones
//	signals_no_route    signals of others whose target has no session here
func (m *Mesh) Counters() map[string]uint64 {
	c := &m.counts
	all := map[string]uint64{
		"intros_dropped": c.introsDropped.Load(),
		"dials":          c.dials.Load(), "dials_failed": c.dialsFailed.Load(),
		"sessions": c.sessions.Load(), "session_errors": c.sessionErrors.Load(), "bad_peers": c.badPeers.Load(),
		"notes_lost":   m.ear.dropped(),
		"signals_sent": c.signalsSent.Load(), "signals_no_way": c.signalsNoWay.Load(),
		"signals_forwarded": c.signalsForwarded.Load(), "signals_delivered": c.signalsDelivered.Load(),
		"signals_limited": c.signalsLimited.Load(), "signals_lost": c.signalsLost.Load(),
		"signals_no_route": c.signalsNoRoute.Load(),
	}
	intros := m.answered.Load()
	if intros == nil {
		intros = new(join.Counters)
	}
	for name, n := range map[string]uint64{
		"malformed": intros.Malformed, "unknown": intros.Unknown, "cookies": intros.Cookies,
		"cookie_limited": intros.CookieLimited, "relay_limited": intros.RelayLimited, "sealed": intros.Sealed,
		"limited": intros.Limited, "bad_signature": intros.BadSignature, "answered": intros.Requests, "resent": intros.Resent,
	} {
		all["intros_"+name] = n
	}
	return all
}
