package meshsim

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestBars runs small networks; the larger ones are a benchmark.
func TestBars(t *testing.T) {
	for _, tt := range []struct {
		nodes       int
		card        time.Duration
		idle, quiet float64
	}{
		{10, time.Second, 500, 170},
		{100, 3 * time.Second, 500, 170},
	} {
		r, err := Run(t.Context(), tt.nodes, rand.Uint64(), func(s string) { t.Logf("%d nodes: %s", tt.nodes, s) })
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if r.NewCard > tt.card || r.Idle > tt.idle || r.Quiet > tt.quiet || r.RestartAll > 30*time.Second ||
			tt.nodes > 32 && r.RestartPeak > 80<<10 { // the bar is 64 KiB at 1000; seeds differ
			t.Errorf("%+v", *r)
		}
	}
}
