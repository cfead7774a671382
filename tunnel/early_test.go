package tunnel

import "testing"

// TestAnswerUsesNewSession: a lost its session with b, which still has it. The answer to a's first packet must not go
// under it.
func TestAnswerUsesNewSession(t *testing.T) {
	lost := 0
	for range 50 {
		a, b, _ := pair(t)
		a.Disconnect(b.id.ID())
		a.sync(t)
		ping(t, a, b, 8)
		lost += int(a.Counters()["in_no_session"])
		a.stop()
		b.stop()
	}
	if lost > 0 {
		t.Errorf("%d of 50 answers were lost", lost)
	}
}
