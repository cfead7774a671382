//go:build !race

package hop

import (
	"testing"
	"time"
)

func TestForwardAllocatesNothing(t *testing.T) {
	table, a, _ := bound(t, Config{Rate: 1000})
	train := framed(a.SID(), make([]byte, 100), make([]byte, 100))
	now := start
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Millisecond)
		sid, n := Run(train, 108)
		table.Forward(now, atAlice.Addr, sid, n, 108)
		table.Forward(now, elsewhere.Addr, sid, n, 108)
		table.Forward(now, atAlice.Addr, sid+1, n, 108)
	}); n != 0 {
		t.Fatalf("%v allocations a train", n)
	}
}
