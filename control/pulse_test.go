package control

import (
	"testing"
	"time"
)

// half is a spread that adds nothing.
func half() float64 { return 0.5 }

// A peer that is silent is asked, sooner when it should have something to say to, and given up when it does not answer.
func TestPulse(t *testing.T) {
	type then struct {
		at         time.Duration
		what       string // heard, told, or nothing
		ask, dead  bool
		nextWithin time.Duration // 0: not looked at
	}
	for name, steps := range map[string][]then{
		"silent": {
			{at: livelyPulse - 1, nextWithin: 1},
			{at: livelyPulse, ask: true, nextWithin: answerFor},
			{at: livelyPulse + answerFor - 1},
			{at: livelyPulse + answerFor, dead: true},
		},
		"answers": {
			{at: livelyPulse, ask: true},
			{at: livelyPulse + 1, what: "heard", nextWithin: livelyPulse},
			{at: 2 * livelyPulse},
			{at: 2*livelyPulse + 1, ask: true},
		},
		"asks itself": {
			{at: livelyPulse / 2, what: "heard"},
			{at: livelyPulse, nextWithin: livelyPulse / 2},
		},
		"told": {
			{at: time.Second, what: "told", nextWithin: askAfter},
			{at: 2 * time.Second, what: "told", nextWithin: askAfter - time.Second},
			{at: time.Second + askAfter, ask: true},
			{at: time.Second + askAfter + answerFor, dead: true},
		},
		"told and heard": {
			{at: time.Second, what: "told"},
			{at: 2 * time.Second, what: "heard", nextWithin: livelyPulse},
			{at: time.Second + askAfter},
		},
		"quiet for long": {
			{at: quietAfter, what: "heard", nextWithin: quietPulse},
			{at: quietAfter + livelyPulse, nextWithin: quietPulse - livelyPulse},
			{at: quietAfter + quietPulse, ask: true, nextWithin: answerFor},
			{at: quietAfter + quietPulse + 1, what: "heard"},
			{at: quietAfter + quietPulse + 2, what: "told", nextWithin: askAfter},
			{at: quietAfter + quietPulse + 3, what: "heard", nextWithin: livelyPulse},
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			p := newPulse(begun, half)
			for _, s := range steps {
				now := begun.Add(s.at)
				switch s.what {
				case "heard":
					p.hear(now)
				case "told":
					p.told(now)
				}
				ask, dead := p.due(now)
				if ask != s.ask || dead != s.dead {
					t.Fatalf("at %v: ask %v, dead %v", s.at, ask, dead)
				}
				if wait := p.next(now).Sub(now); s.nextWithin != 0 && wait != s.nextWithin {
					t.Fatalf("at %v: again in %v, want %v", s.at, wait, s.nextWithin)
				}
			}
		})
	}
}
