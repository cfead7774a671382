package control

import "github.com/meshnet/meshnet/control/wire"

// The five steps of a session's start. Every pair of state and message has an entry; what is not listed is out of
// order and closes the session.
//
//	dialer                                     acceptor
//	init    ── Hello INITIAL ──────────────▶   wait
//	wait    ◀────────────── Hello INITIAL ──   confirm
//	confirm ── Hello FINAL ────────────────▶
//	peers   ◀──────── Hello FINAL, Facts* ──   peers
//	        ── Facts, Have ────────────────▶
//	done                                       done
//
// A side that has nothing to send sends an empty Facts: it is the step, not the content, that moves the other on.
type state uint8

const (
	stateWait    state = iota // for the other's INITIAL
	stateConfirm              // for its FINAL
	statePeers                // for its first Facts
	stateDone
	stateClosed
	states
)

// role of a side in its session.
type role uint8

const (
	dialer role = iota
	acceptor
	roles
)

// input is a message as the state machine sees it.
type input uint8

const (
	inInitial input = iota
	inFinal
	inFacts
	inTraffic // ping, pong, digest, sums, have, want, offer, ask, ring
	inClose
	inUnknown // a type from a newer version
	inputs
)

// action is what a step calls for.
type action uint8

const (
	actNone      action = iota
	actInitial          // check the Hello, answer with our INITIAL
	actFinal            // check the Hello, answer with our FINAL
	actConfirmed        // check the FINAL; the acceptor answers with its own
	actFacts            // merge
	actTraffic
	actClose  // the other side ends the session
	actRefuse // out of order: close with a reason
)

// step is the whole state table.
func step(r role, s state, in input) (state, action) {
	if s == stateClosed {
		return stateClosed, actNone
	}
	if in == inClose {
		return stateClosed, actClose
	}
	switch {
	case s == stateWait && in == inInitial && r == dialer:
		return stateConfirm, actFinal
	case s == stateWait && in == inInitial && r == acceptor:
		return stateConfirm, actInitial
	case s == stateConfirm && in == inFinal:
		return statePeers, actConfirmed
	case s == statePeers && in == inFacts:
		return stateDone, actFacts
	case s == stateDone && in == inFacts:
		return stateDone, actFacts
	case s == stateDone && in == inTraffic:
		return stateDone, actTraffic
	case s == stateDone && in == inUnknown:
		return stateDone, actNone
	}
	return stateClosed, actRefuse
}

// inputOf classifies a message; a Hello by its stage.
func inputOf(t wire.Type, st stage) input {
	switch t {
	case typeHello:
		switch st {
		case stageInitial:
			return inInitial
		case stageFinal:
			return inFinal
		}
		return inUnknown
	case typeFacts:
		return inFacts
	case typePing, typePong, typeDigest, typeSums, typeHave, typeWant, typeOffer, typeAsk, typeRing:
		return inTraffic
	case typeClose:
		return inClose
	}
	return inUnknown
}
