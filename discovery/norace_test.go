//go:build !race

package discovery

import (
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// The race detector allocates.
func TestForeignAllocs(t *testing.T) {
	r := NewReporter(Config{})
	r.round = NewBehaviour(time.Now(), Round{Targets: []Target{{"s", ap("203.0.113.1:3478")}}})
	r.round.Tick(time.Now())
	from := ap("192.0.2.66:1")
	pkt := reply(newTxID(), stun.BindingSuccess, xored("192.0.2.1:1"))
	if n := testing.AllocsPerRun(100, func() { r.HandleSTUN(from, pkt) }); n != 0 {
		t.Errorf("%v allocations per foreign packet", n)
	}
}
