package aqm

import (
	"testing"
	"time"
)

// feed gives c packets every 100 µs, which waited as wait says, and counts the drops.
func feed(c *Control, from time.Time, count int, wait func(i int) time.Duration) (drops int) {
	for i := range count {
		if c.Drop(from.Add(time.Duration(i)*100*time.Microsecond), wait(i)) {
			drops++
		}
	}
	return drops
}

func constant(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

func TestControl(t *testing.T) {
	start := time.Unix(1000, 0)
	swings := func(i int) time.Duration { // 4 ms down to nothing, again and again
		return time.Duration(40-i%40) * 100 * time.Microsecond
	}
	stall := func(i int) time.Duration { // 5 ms of waiting once in 200 ms
		if i%2000 < 50 {
			return 5 * time.Millisecond
		}
		return 20 * time.Microsecond
	}
	for _, tt := range []struct {
		name        string
		wait        func(int) time.Duration
		least, most int
	}{
		{"read in time", constant(200 * time.Microsecond), 0, 0},
		{"standing", constant(3 * time.Millisecond), 40, 50},
		{"swinging", swings, 35, 50},
		{"a stall now and then", stall, 0, 0},
	} {
		var c Control
		c.Drop(start.Add(-time.Second), 0)
		if got := feed(&c, start, 10_000, tt.wait); got < tt.least || got > tt.most {
			t.Errorf("%s: %d drops in a second, want %d to %d", tt.name, got, tt.least, tt.most)
		}
	}
}

// A queue that was emptied is left alone at once, whatever its mean.
func TestControlAfterwards(t *testing.T) {
	var c Control
	start := time.Unix(1000, 0)
	feed(&c, start, 1000, constant(5*time.Millisecond))
	if got := feed(&c, start.Add(time.Second), 1000, constant(10*time.Microsecond)); got != 0 {
		t.Errorf("%d drops from an empty queue", got)
	}
}
