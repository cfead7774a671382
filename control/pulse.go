package control

import (
	"sync/atomic"
	"time"
)

const (
	// livelyPulse is how long a session may be silent before its peer is asked whether it is there, and quietPulse that
	// of one that had nothing to tell for quietAfter. Either is spread by a quarter, so that mostly one of the two asks:
	// whoever hears anything need not. The first keeps alive what a NAT remembers for 30 s.
	livelyPulse = 20 * time.Second
	quietPulse  = 60 * time.Second
	quietAfter  = 10 * time.Minute
	// askAfter is when a peer is asked to whom something was sent, and who said nothing since.
	askAfter = 5 * time.Second
	// answerFor is how long it may take then.
	answerFor = 10 * time.Second
	// deadAfter ends the session of somebody who asks less often than anybody should.
	deadAfter = 2 * quietPulse
)

// pulse knows whether a session's peer is still there. The reader calls hear; all else is the writer's.
type pulse struct {
	begun  time.Time
	spread func() float64
	heard  atomic.Int64 // nanoseconds since begun

	idle  time.Duration // how long it may be silent; drawn anew after each time that the peer was heard
	since time.Duration // heard, when idle was drawn
	lull  time.Time     // since when there was nothing to tell
	sent  time.Time     // the first frame since the peer was heard; zero: none
	asked time.Time     // zero: no answer is due
}

func newPulse(now time.Time, spread func() float64) *pulse {
	return &pulse{begun: now, lull: now, spread: spread}
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
}

// look takes account of what was heard.
func (p *pulse) look(now time.Time) {
	heard := time.Duration(p.heard.Load())
	at := p.begun.Add(heard)
	if p.idle == 0 || p.since != heard {
		p.idle, p.since = livelyPulse, heard
		if now.Sub(p.lull) >= quietAfter {
			p.idle = quietPulse
		}
		p.idle += time.Duration((p.spread() - 0.5) * float64(p.idle) / 2)
	}
	if !at.Before(p.sent) {
		p.sent = time.Time{}
	}
	if !at.Before(p.asked) {
		p.asked = time.Time{}
	}
}

// due says what to do now: ask the peer, or give it up.
func (p *pulse) due(now time.Time) (ask, dead bool) {
	if now.Before(p.next(now)) {
		return false, false
	}
	if !p.asked.IsZero() {
		return false, true
	}
	p.asked = now
	return true, false
}

// next is when there is something to do.
func (p *pulse) next(now time.Time) time.Time {
	p.look(now)
	if !p.asked.IsZero() {
		return p.asked.Add(answerFor)
	}
	next := p.begun.Add(p.since + p.idle)
	if !p.sent.IsZero() && p.sent.Add(askAfter).Before(next) {
		next = p.sent.Add(askAfter)
	}
	return next
}
