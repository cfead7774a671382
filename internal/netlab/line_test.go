package netlab

import (
	"math"
	"testing"
	"time"
)

func TestLaneDelay(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLane(Line{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond}, 0)
	var last time.Time
	for i := range 1000 {
		sent := now.Add(time.Duration(i) * 100 * time.Microsecond)
		at, ok := l.admit(sent, 1000)
		if late := at.Sub(sent); !ok || late < 20*time.Millisecond || late > 30*time.Millisecond {
			t.Fatalf("frame %d arrives after %v, %v", i, late, ok)
		}
		if at.Before(last) {
			t.Fatalf("frame %d overtakes the one before", i)
		}
		last = at
	}
}

func TestLaneLoss(t *testing.T) {
	fates := func(seed, direction uint64) (lost int, all string) {
		l := newLane(Line{Loss: 0.1, Seed: seed}, direction)
		for range 10_000 {
			fate := "."
			if _, ok := l.admit(time.Unix(1000, 0), 100); !ok {
				lost++
				fate = "x"
			}
			all += fate
		}
		return lost, all
	}
	lost, first := fates(1, 0)
	if math.Abs(float64(lost)-1000) > 150 {
		t.Errorf("lost %d of 10000, want about 1000", lost)
	}
	if _, again := fates(1, 0); again != first {
		t.Error("the same seed gives another loss")
	}
	for _, other := range [][2]uint64{{2, 0}, {1, 1}} {
		if _, got := fates(other[0], other[1]); got == first {
			t.Errorf("seed and direction %v give the same loss", other)
		}
	}
}

func TestLaneRate(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLane(Line{Rate: 8_000_000, Delay: time.Millisecond, Queue: 10 * time.Millisecond}, 0) // 1 byte per µs
	passed := 0
	var last time.Time
	for range 100 { // at once: what fills the queue passes, and one frame beyond
		if at, ok := l.admit(now, 1000); ok {
			passed++
			last = at
		}
	}
	if want := now.Add(12 * time.Millisecond); passed != 11 || !last.Equal(want) {
		t.Errorf("%d frames pass, the last at %v, want 11 until %v", passed, last.Sub(now), want.Sub(now))
	}
	if at, ok := l.admit(now.Add(time.Second), 1000); !ok || !at.Equal(now.Add(time.Second+2*time.Millisecond)) {
		t.Errorf("after a pause: arrives after %v, %v", at.Sub(now), ok)
	}
}
