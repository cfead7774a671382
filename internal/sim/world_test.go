package sim

import (
	"slices"
	"testing"
	"time"
)

func TestWorldOrder(t *testing.T) {
	w := New(1)
	var got []string
	note := func(s string) func() { return func() { got = append(got, s) } }
	w.After(2*time.Second, note("c"))
	w.After(time.Second, func() {
		got = append(got, "a")
		w.At(w.Now().Add(-time.Hour), note("b")) // in the past: now, but not from within
		got = append(got, "a'")
	})
	w.After(2*time.Second, note("d"))
	stopped := w.After(2*time.Second, note("never"))
	late := w.After(time.Hour, note("late"))
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop does not report whether it could")
	}
	w.RunFor(2 * time.Second)
	if want := []string{"a", "a'", "b", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if want := Epoch.Add(2 * time.Second); !w.Now().Equal(want) || w.Events() != 4 {
		t.Errorf("now %v after %d events, want %v after 4", w.Now(), w.Events(), want)
	}
	w.Run(Epoch) // the past changes nothing
	w.RunFor(time.Hour)
	if late.Stop() || got[len(got)-1] != "late" {
		t.Error("the last event did not happen")
	}
}

func TestRunUntil(t *testing.T) {
	w := New(1)
	n := 0
	var tick func()
	tick = func() { n++; w.After(time.Second, tick) }
	w.After(time.Second, tick)
	if !w.RunUntil(func() bool { return n == 3 }, time.Minute) || !w.Now().Equal(Epoch.Add(3*time.Second)) {
		t.Errorf("n %d at %v, want 3 after 3 s", n, w.Now())
	}
	if w.RunUntil(func() bool { return false }, 10*time.Second) || !w.Now().Equal(Epoch.Add(13*time.Second)) || n != 13 {
		t.Errorf("n %d at %v, want the limit", n, w.Now())
	}
}

func TestWorldRandomStreams(t *testing.T) {
	draw := func(seed uint64, network bool) uint64 {
		w := New(seed)
		if network {
			w.Network(Link{}).rand.Uint64()
		}
		return w.Rand().Uint64()
	}
	if draw(1, false) != draw(1, true) {
		t.Error("a network's choices change the world's")
	}
	if draw(1, false) == draw(2, false) {
		t.Error("the seed does not matter")
	}
	if w := New(7); w.Seed() != 7 {
		t.Errorf("seed %d, want 7", w.Seed())
	}
}
