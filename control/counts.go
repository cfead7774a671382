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
	signalsRefused, signalsLost       atomic.Uint64
	reachesAsked, reachesTold         atomic.Uint64
	reachesLimited                    atomic.Uint64
	reachesLearnt, reachesRefused     atomic.Uint64
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
//	signals_lost        frames of signals that left a full queue for newer ones
//	signals_no_way      signals of this node that no session took, or that came to dead ends by every way
//	signals_no_route    signals of others that no session leads on from here
//	signals_given_up    signals that several sessions stayed silent on
//	signals_*           what else the router counts, by its names (ring.Router.Counters)
//	reaches_asked       members that were asked where they are
//	reaches_told        members that asked and were told where this node is
//	reaches_limited     questions that came too soon after another of the same member
//	reaches_learnt      reaches that came by signal and were new
//	reaches_refused     those that were not in order
func (m *Mesh) Counters() map[string]uint64 {
	c := &m.counts
	all := map[string]uint64{
		"intros_dropped": c.introsDropped.Load(),
		"dials":          c.dials.Load(), "dials_failed": c.dialsFailed.Load(),
		"sessions": c.sessions.Load(), "session_errors": c.sessionErrors.Load(), "bad_peers": c.badPeers.Load(),
		"notes_lost":    m.ear.dropped(),
		"reaches_asked": c.reachesAsked.Load(), "reaches_told": c.reachesTold.Load(),
		"reaches_limited": c.reachesLimited.Load(),
		"reaches_learnt":  c.reachesLearnt.Load(), "reaches_refused": c.reachesRefused.Load(),
	}
	for name, n := range m.signals.counters() {
		all["signals_"+name] = n
	}
	all["signals_lost"] = c.signalsLost.Load()
	all["signals_no_way"] += c.signalsRefused.Load()
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

// counters are the router's, some by the names that they have in all.
func (x *signals) counters() map[string]uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := x.router.Counters()
	for was, name := range map[string]string{"lost": "given_up", "dead_end": "no_route"} {
		all[name] = all[was]
		delete(all, was)
	}
	return all
}
