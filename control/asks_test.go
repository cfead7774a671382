package control

import (
	"testing"
	"time"
)

// TestAsks: a fact is asked for once, of somebody else when it does not come, and given up in the end.
func TestAsks(t *testing.T) {
	const most = 2
	x := newAsks()
	a, b, c := new(session), new(session), new(session)
	now := time.Now()
	gone := map[*session]bool{}
	lives := func(s *session) bool { return !gone[s] }
	// due runs until something is asked for.
	due := func(limit time.Duration) (asked map[*session][]tag, after time.Duration) {
		begun := now
		for now.Sub(begun) <= limit {
			next := x.next()
			if next.IsZero() {
				return nil, now.Sub(begun)
			}
			if now.Before(next) {
				now = next
			}
			if asked = x.due(now, lives, most); len(asked) > 0 {
				return asked, now.Sub(begun)
			}
		}
		return nil, now.Sub(begun)
	}
	if !x.offered(now, 1, a, most) {
		t.Fatal("not asked for at once")
	}
	for _, s := range []*session{a, b, c, b} {
		if x.offered(now, 1, s, most) {
			t.Fatal("asked for twice")
		}
	}
	asked, after := due(time.Minute)
	if len(asked) != 1 || len(asked[a]) != 0 || after < askAgainAfter || after > askAgainAfter+askLater {
		t.Fatalf("after %v asked %v", after, asked)
	}
	if a.asking != 0 || b.asking+c.asking != 1 {
		t.Fatalf("asking %d, %d, %d", a.asking, b.asking, c.asking)
	}
	x.came(1)
	if a.asking+b.asking+c.asking != 0 || len(x.all) != 0 {
		t.Fatal("it came, and is waited for")
	}
	now = now.Add(time.Hour)
	for i := range tag(6) { // of which a may be asked for two
		x.offered(now, 10+i, a, most)
		now = now.Add(askLater)
	}
	if a.asking != most {
		t.Fatalf("%d asked of one partner, want %d", a.asking, most)
	}
	for i := range tag(most) {
		x.came(10 + i)
	}
	if asked, _ = due(time.Minute); len(asked[a]) != most {
		t.Fatalf("then asked %v", asked)
	}
	gone[a] = true // with all that it offered
	for i := 0; len(x.all) > 0; i++ {
		if due(time.Minute); i == 100 {
			t.Fatalf("%d are asked for without end", len(x.all))
		}
	}
}

// TestAsksGiveUp: who offers and does not send is asked askTries times.
func TestAsksGiveUp(t *testing.T) {
	x := newAsks()
	s := new(session)
	now := time.Now()
	tries := 0
	if x.offered(now, 1, s, 1) {
		tries++
	}
	for range 1000 {
		next := x.next()
		if next.IsZero() {
			break
		}
		now = next
		tries += len(x.due(now, func(*session) bool { return true }, 1)[s])
	}
	if tries != askTries || len(x.all) != 0 || s.asking != 0 {
		t.Errorf("%d tries, %d left, %d asked", tries, len(x.all), s.asking)
	}
}

// TestServing: in a larger network what is asked for goes out at a bounded rate, all of it.
func TestServing(t *testing.T) {
	c := newCrowd(t, 40)
	m := c.mesh(t, nothing)
	now := time.Now()
	m.wall = func() time.Time { return now }
	m.organise()
	s := m.newSession(c.ids[0].ID(), dialer, func() {})
	s.done = true
	m.sessions[s.peer] = s
	var all []fact
	bytes := 0
	for range 200 {
		f := fact{kind: factCard, raw: make([]byte, 500)}
		all, bytes = append(all, f), bytes+len(f.raw)
	}
	m.mu.Lock()
	m.supply(s, all)
	m.mu.Unlock()
	begun, sent, most := now, 0, 0
	for now.Sub(begun) < time.Minute {
		frames, _ := s.out.take()
		size := 0
		for _, f := range frames {
			size += len(f.body)
		}
		sent, most = sent+size, max(most, size)
		next := m.spread.serve.next()
		if next.IsZero() {
			break
		}
		now = next
		m.mu.Lock()
		m.goOnServing(now)
		m.mu.Unlock()
	}
	took := now.Sub(begun)
	if sent < bytes || most > serveBurst+1000 || took < time.Duration(float64(bytes-serveBurst)/serveRate*0.9*float64(time.Second)) {
		t.Errorf("%d bytes of %d in %v, %d at once", sent, bytes, took, most)
	}
}
