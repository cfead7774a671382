package ring

import (
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// skew is how far a signal's time may be from the mesh's.
const skew = 2 * time.Minute

// Handle takes a frame of a neighbour in. borrowed: data is only used during the call. What costs least is checked first,
// signatures last:
//
//	muted? neighbour's quota, form, origin a member, origin's quota, time, seen before, checks left, signature
func (r *Router) Handle(now, mesh time.Time, from identity.PeerID, data []byte) Actions {
	var a Actions
	n := r.neighbour(now, from)
	if n == nil {
		r.counts[limited]++
		return a
	}
	if now.Before(n.muted) {
		r.counts[muted]++
		return a
	}
	switch kindOf(data) {
	case kindSignal:
		r.handleSignal(now, mesh, from, n, data, &a)
	case kindTaken, kindNoRoute:
		r.handleAnswer(now, from, n, data, &a)
	case 0:
		r.bad(now, n, malformed, &a)
	default: // of a newer version
		r.counts[unknown]++
	}
	return a
}

// bad notes a breach of the rules. Honest neighbours check all that they pass on.
func (r *Router) bad(now time.Time, n *neighbour, why count, a *Actions) {
	r.counts[why]++
	n.muted, a.Bad = now.Add(muteFor), true
}

func (r *Router) handleSignal(now, mesh time.Time, from identity.PeerID, n *neighbour, data []byte, a *Actions) {
	if !n.signals.Take(now, rateNeighbour, rateNeighbour) {
		r.counts[limited]++
		return
	}
	f, s, newer, err := parseSignalFrame(data)
	if err != nil {
		r.bad(now, n, malformed, a)
		return
	}
	key := wayKey{signalKey{s.Origin, s.ID}, f.Way}
	if !r.admit(now, mesh, n, f, s) {
		return
	}
	if r.seen.has(key.signalKey, f.Way) {
		r.counts[duplicate]++
		r.answer(a, from, kindTaken, key)
		return
	}
	if !n.verify.Take(now, rateVerifyEach, burstVerifyEach) && !r.budget.Take(now, rateVerify, rateVerify) {
		r.counts[unverified]++
		return
	}
	if !r.cfg.Verify(s.Origin, f.Body, f.Sig) {
		r.bad(now, n, forged, a)
		return
	}
	again := r.seen.known(key.signalKey)
	if !r.seen.add(now, key.signalKey, f.Way) {
		r.counts[limited]++
		return
	}
	if s.Target != r.self {
		r.pass(now, from, f, s, a)
		return
	}
	r.answer(a, from, kindTaken, key)
	switch {
	case again:
		r.counts[duplicate]++
	case newer:
		r.counts[unknown]++
	default:
		r.counts[delivered]++
		a.Deliver = s
	}
}

// admit makes the checks that need no signature. What it refuses is not answered, and so tried by others.
func (r *Router) admit(now, mesh time.Time, n *neighbour, f *signalFrame, s *Signal) bool {
	why := limited
	switch off := s.Time.Sub(mesh); {
	case s.Origin == r.self || !r.view.Ring.Has(s.Origin):
		why = strangers
	case !n.fromOrigin(now, s.Origin):
	case off > skew || off < -skew:
		why = late
	default:
		return true
	}
	r.counts[why]++
	return false
}

// pass sends a signal of others on.
func (r *Router) pass(now time.Time, from identity.PeerID, f *signalFrame, s *Signal, a *Actions) {
	key := wayKey{signalKey{s.Origin, s.ID}, f.Way}
	if f.TTL <= 1 { // not a dead end: others need not try
		r.counts[exhausted]++
		r.answer(a, from, kindTaken, key)
		return
	}
	p := &pending{key: key, target: s.Target, from: from, ttl: f.TTL - 1, body: f.Body, sig: f.Sig}
	if !r.view.Ring.Has(s.Target) || !r.launch(now, p, a) {
		r.counts[deadEnd]++
		r.answer(a, from, kindNoRoute, key)
		return
	}
	r.counts[forwarded]++
	r.memory.add(now, p)
	r.answer(a, from, kindTaken, key)
}

// handleAnswer takes in what became of a signal that this neighbour was given. Nobody else has a say in it.
func (r *Router) handleAnswer(now time.Time, from identity.PeerID, n *neighbour, data []byte, a *Actions) {
	if !n.answers.Take(now, rateAnswers, rateAnswers) {
		r.counts[limited]++
		return
	}
	f, err := parseAnswerFrame(data)
	if err != nil {
		r.bad(now, n, malformed, a)
		return
	}
	p := r.memory.by[wayKey{signalKey{f.Origin, f.ID}, f.Way}]
	if p == nil || !slices.Contains(p.avoid, from) {
		r.counts[astray]++
		return
	}
	n.slow = time.Time{}
	if p.next != from { // it was given up for another
		return
	}
	p.retryAt = time.Time{}
	if f.Kind == kindNoRoute {
		if p.own() {
			r.noted.deadEnd(now, from, p.target)
		}
		r.fail(now, p, a)
		return
	}
	if !p.own() || p.both {
		p.body, p.sig = nil, nil
	}
}
