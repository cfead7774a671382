package control

import (
	"sync/atomic"
	"time"
)

const (
	// livelyBeat is how often a session's peer gets a sign of life, and quietBeat when there was nothing to tell for
	// quietAfter. Either is spread by a quarter. The first keeps alive what a NAT remembers for 30 s.
	livelyBeat = 20 * time.Second
	quietBeat  = 60 * time.Second
	quietAfter = 10 * time.Minute
	// livelySilence is how long a peer may be silent before it is asked whether it is there, and quietSilence after
	// quietAfter: it may have begun to be quiet before we did.
	livelySilence = 45 * time.Second
	quietSilence  = 110 * time.Second
	// askAfter is when a peer is asked to whom something was sent, and who said nothing since.
	askAfter = 5 * time.Second
	// answerFor is how long it may take then.
	answerFor = 10 * time.Second
	// deadAfter ends the session of somebody of whom no message came for so long, other signs of life or not.
	deadAfter = time.Hour
)

// life is how the packets below a session tell of its peer.
type life struct {
	sign  func()           // sends an empty packet
	heard func() time.Time // when the last packet came
}

// pulse knows whether a session's peer is still there. Signs of life are packets without content; without a life they
// are questions, which are answered. The reader calls hear; all else is the writer's.
type pulse struct {
	begun  time.Time
	spread func() float64
	life   *life        // nil: there is none
	heard  atomic.Int64 // nanoseconds since begun

	silence time.Duration // how long the peer may be silent; drawn anew after each time that it was heard
	since   time.Time     // heard, when silence was drawn
	beatAt  time.Time     // the next sign of life
	lull    time.Time     // since when there was nothing to tell
	sent    time.Time     // the first frame since the peer was heard; zero: none
	asked   time.Time     // zero: no answer is due
}

func newPulse(now time.Time, spread func() float64, l *life) *pulse {
	p := &pulse{begun: now, lull: now, since: now, spread: spread, life: l}
	p.draw(now)
	p.rest(now)
	return p
}

// hear notes that the peer is there.
func (p *pulse) hear(now time.Time) { p.heard.Store(int64(now.Sub(p.begun))) }

// told notes that something was sent that the peer ought to have.
func (p *pulse) told(now time.Time) {
	p.look(now)
	if p.sent.IsZero() {
		p.sent = now
	}
	p.lull = now
	p.rest(now)
}

// of is a time for lively sessions or one for quiet ones, spread by a part.
func (p *pulse) of(now time.Time, lively, quiet time.Duration, part float64) time.Duration {
	d := lively
	if now.Sub(p.lull) >= quietAfter {
		d = quiet
	}
	return d + time.Duration((p.spread()-0.5)*2*part*float64(d))
}

// draw decides how long the peer may be silent from now on.
func (p *pulse) draw(now time.Time) {
	if p.life == nil {
		p.silence = p.of(now, livelyBeat, quietBeat, 0.25)
	} else {
		p.silence = p.of(now, livelySilence, quietSilence, 0.1)
	}
}

// rest puts the next sign of life off: something was sent.
func (p *pulse) rest(now time.Time) { p.beatAt = now.Add(p.of(now, livelyBeat, quietBeat, 0.25)) }

// look takes account of what was heard.
func (p *pulse) look(now time.Time) {
	at := p.begun.Add(time.Duration(p.heard.Load()))
	if p.life != nil {
		if packet := p.life.heard(); packet.After(at) {
			at = packet
		}
	}
	if at.After(p.since) {
		p.since = at
		p.draw(now)
	}
	if !at.Before(p.sent) {
		p.sent = time.Time{}
	}
	if !at.Before(p.asked) {
		p.asked = time.Time{}
	}
}

// due says what to do now: ask the peer, or give it up. Signs of life it gives itself.
func (p *pulse) due(now time.Time) (ask, dead bool) {
	p.look(now)
	if p.life != nil && !now.Before(p.beatAt) {
		p.life.sign()
		p.rest(now)
	}
	if now.Before(p.limit()) {
		return false, false
	}
	if !p.asked.IsZero() {
		return false, true
	}
	p.asked = now
	return true, false
}

// limit is when to ask, or to give up.
func (p *pulse) limit() time.Time {
	if !p.asked.IsZero() {
		return p.asked.Add(answerFor)
	}
	limit := p.since.Add(p.silence)
	if !p.sent.IsZero() && p.sent.Add(askAfter).Before(limit) {
		limit = p.sent.Add(askAfter)
	}
	return limit
}

// next is when there is something to do.
func (p *pulse) next(now time.Time) time.Time {
	p.look(now)
	next := p.limit()
	if p.life != nil && p.beatAt.Before(next) {
		next = p.beatAt
	}
	return next
}
