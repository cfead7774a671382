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
			{at: livelyBeat - 1, nextWithin: 1},
			{at: livelyBeat, ask: true, nextWithin: answerFor},
			{at: livelyBeat + answerFor - 1},
			{at: livelyBeat + answerFor, dead: true},
		},
		"answers": {
			{at: livelyBeat, ask: true},
			{at: livelyBeat + 1, what: "heard", nextWithin: livelyBeat},
			{at: 2 * livelyBeat},
			{at: 2*livelyBeat + 1, ask: true},
		},
		"asks itself": {
			{at: livelyBeat / 2, what: "heard"},
			{at: livelyBeat, nextWithin: livelyBeat / 2},
		},
		"told": {
			{at: time.Second, what: "told", nextWithin: askAfter},
			{at: 2 * time.Second, what: "told", nextWithin: askAfter - time.Second},
			{at: time.Second + askAfter, ask: true},
			{at: time.Second + askAfter + answerFor, dead: true},
		},
		"told and heard": {
			{at: time.Second, what: "told"},
			{at: 2 * time.Second, what: "heard", nextWithin: livelyBeat},
			{at: time.Second + askAfter},
		},
		"quiet for long": {
			{at: quietAfter, what: "heard", nextWithin: quietBeat},
			{at: quietAfter + livelyBeat, nextWithin: quietBeat - livelyBeat},
			{at: quietAfter + quietBeat, ask: true, nextWithin: answerFor},
			{at: quietAfter + quietBeat + 1, what: "heard"},
			{at: quietAfter + quietBeat + 2, what: "told", nextWithin: askAfter},
			{at: quietAfter + quietBeat + 3, what: "heard", nextWithin: livelyBeat},
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			p := newPulse(begun, half, nil)
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

// With packets that tell, empty ones go out and the peer is asked only when none comes.
func TestPulseOfPackets(t *testing.T) {
	begun := time.Now()
	now, heard := begun, begun
	signs := 0
	p := newPulse(begun, half, &life{sign: func() { signs++ }, heard: func() time.Time { return heard }})
	asks := 0
	for now.Before(begun.Add(time.Hour)) {
		now = p.next(now)
		heard = now.Add(-time.Second)
		ask, dead := p.due(now)
		if dead {
			t.Fatal("given up")
		}
		if ask {
			asks++
		}
	}
	if want := int(quietAfter/livelyBeat + (time.Hour-quietAfter)/quietBeat); signs < want-1 || signs > want+1 || asks != 0 {
		t.Errorf("%d signs of life, want %d; %d questions", signs, want, asks)
	}
	p.told(now)
	heard = now
	silent := now
	for {
		now = p.next(now)
		ask, dead := p.due(now)
		if ask && now.Sub(silent) != livelySilence {
			t.Errorf("asked after %v", now.Sub(silent))
		}
		if dead {
			break
		}
	}
	if took := now.Sub(silent); took != livelySilence+answerFor {
		t.Errorf("given up after %v", took)
	}
}
