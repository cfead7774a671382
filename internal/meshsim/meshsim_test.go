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
		if r.NewCard > tt.card || r.Idle > tt.idle || r.Quiet > tt.quiet {
			t.Errorf("%+v", *r)
		}
	}
}
