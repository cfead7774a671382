package lists

import (
	"testing"
	"time"
)

func TestPause(t *testing.T) {
	for n, want := range []time.Duration{1, 2, 4, 8, 16, 60, 60} {
		want *= time.Second
		least, most := time.Hour, time.Duration(0)
		for range 2000 {
			d := pause(n)
			least, most = min(least, d), max(most, d)
		}
		if least < want*8/10 || most > want*12/10 || least > want*85/100 || most < want*115/100 {
			t.Errorf("after %d rounds %v to %v, want %v ±20 %%", n, least, most, want)
		}
	}
}

func TestSchedule(t *testing.T) {
	now := time.Unix(1000, 0)
	var s schedule
	round := func(lacking, want bool) {
		t.Helper()
		if got := s.look(now, lacking); got != want {
			t.Fatalf("a round is due: %v, want %v, at %v", got, want, now)
		} else if got {
			s.begin(now)
		}
	}
	for range 4 { // 0, 1, 3, 7 s
		round(true, true)
		round(true, false)
		now = s.next()
	}
	if s.rounds != 4 {
		t.Fatalf("%d rounds", s.rounds)
	}
	round(false, false) // connected, shortly
	if got := s.next(); !got.Equal(now.Add(steady)) {
		t.Errorf("looks again at %v, want %v", got, now.Add(steady))
	}
	now = now.Add(settled - 1)
	round(true, true) // it was due meanwhile
	if s.rounds != 5 {
		t.Errorf("%d rounds: a short connection begins anew", s.rounds)
	}
	round(false, false)
	now = now.Add(settled)
	round(false, false)
	if got := s.next(); !got.Equal(now.Add(steady)) {
		t.Errorf("looks again at %v, want %v", got, now.Add(steady))
	}
	round(true, true)
	if s.rounds != 1 {
		t.Errorf("%d rounds after a long connection, want 1", s.rounds)
	}
	s.restart(now)
	if got := s.next(); !got.Equal(now.Add(time.Second)) {
		t.Errorf("begins anew at %v, want a second after the last round, %v", got, now)
	}
	now = now.Add(time.Hour)
	s.restart(now)
	if !s.look(now, true) {
		t.Error("does not begin anew at once")
	}
}
