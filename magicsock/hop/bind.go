package hop

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// End is where one side of a session is. Immutable.
type End struct {
	Addr    netip.AddrPort // of the member, as the relay sees it
	Local   netip.Addr     // the relay's own address that it talks to; invalid where the system does not tell
	IfIndex int            // and the link; 0 where the system does not tell
}

// side is what the relay knows of one side of a session.
//
//	unbound ── hello from X ─▶ challenge to X ── answer from X ─▶ bound to X ── hello, answer from Y ─▶ bound to Y
type side struct {
	keys  [2]sideKey
	count uint64              // bindings so far
	end   atomic.Pointer[End] // nil until bound; also Forward's
}

// sideKey is a nonce of a side, and the proof that its hello carries.
type sideKey struct {
	nonce Nonce
	hello proof
	set   bool
}

// The two nonces that a side may have: the one that it chose when it asked, and the one that it was given in an offer.
const (
	chosen = iota
	given
)

func (s *side) give(sid uint32, which int, n Nonce) {
	s.keys[which] = sideKey{nonce: n, hello: n.prove(purposeHello, sid, proof{}), set: true}
}

// offer is the nonce that the side is told; a side that asked first gets one now.
func (s *side) offer(sid uint32) Nonce {
	if !s.keys[given].set {
		s.give(sid, given, NewNonce())
	}
	return s.keys[given].nonce
}

// HandleBind takes a bind packet from an address, and returns what to answer there; nil: nothing. What it returns is
// never longer than pkt.
func (t *Table) HandleBind(now time.Time, from End, pkt []byte) []byte {
	b, err := parseBind(pkt)
	if err != nil || b.step != stepHello && b.step != stepAnswer {
		t.count.malformed.Add(1)
		return nil
	}
	s := (*t.sessions.Load())[b.sid]
	if s == nil {
		return t.Hint(now, from.Addr, b.sid, Gone)
	}
	greeted := b.step == stepHello && (s.sides[0].greets(b.proof) || s.sides[1].greets(b.proof))
	if b.step == stepHello && !greeted { // that cost nothing yet; the rest takes HMACs
		t.count.unproven.Add(1)
		return nil
	}
	if !t.binds.Take(now, from.Addr.Addr()) {
		t.count.limited.Add(1)
		return nil
	}
	for i := range s.sides {
		switch {
		case greeted && s.sides[i].greets(b.proof):
			ask := challenge(&t.secret, s.sid, i, s.sides[i].count+1, from.Addr)
			return (&bind{step: stepChallenge, sid: s.sid, proof: ask}).encode()
		case !greeted:
			if reply := t.answer(now, s, i, from, b.proof); reply != nil {
				return reply
			}
		}
	}
	t.count.unproven.Add(1)
	return nil
}

// greets reports whether a hello comes from somebody who has a nonce of the side, or who heard it say hello.
func (s *side) greets(said proof) bool {
	for i := range s.keys {
		if k := &s.keys[i]; k.set && k.hello.is(said) {
			return true
		}
	}
	return false
}

// answer binds the side to where the right answer to its challenge came from.
func (t *Table) answer(now time.Time, s *session, i int, from End, said proof) []byte {
	side := &s.sides[i]
	ask := challenge(&t.secret, s.sid, i, side.count+1, from.Addr)
	for _, k := range side.keys {
		if !k.set || !said.is(k.nonce.prove(purposeAnswer, s.sid, ask)) {
			continue
		}
		side.count++
		side.end.Store(&from)
		s.used.Store(max(s.used.Load(), t.stamp(now)))
		t.count.bound.Add(1)
		return (&bind{step: stepBound, sid: s.sid, proof: k.nonce.prove(purposeBound, s.sid, ask)}).encode()
	}
	return nil
}

// Hint answers frames that were not forwarded, for the two verdicts that their sender can do something about; nil:
// nothing is to be said, or it was said often enough.
func (t *Table) Hint(now time.Time, to netip.AddrPort, sid uint32, v Verdict) []byte {
	b := bind{sid: sid}
	switch v {
	case Gone:
		b.step = stepGone
	case Unbound:
		b.step = stepUnbound
	default:
		return nil
	}
	if !t.hints.Take(now, to.Addr()) {
		t.count.limited.Add(1)
		return nil
	}
	return b.encode()
}
