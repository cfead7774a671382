//go:build !race

package noise

import (
	"testing"

	"github.com/meshnet/meshnet/identity"
)

// A handshake allocates what it returns and what the primitives need, two more where those are not in assembly. The
// race detector would count its own.
func TestAllocations(t *testing.T) {
	c := newCouple(t)
	saved := *c.initiate(t)
	c.respond(t)
	psks := []identity.Secret{c.psk}
	packet := make([]byte, 128)
	for _, tt := range []struct {
		name string
		most float64
		f    func()
	}{
		// First, for it needs the response to the initiation above.
		{"finish", 12, func() {
			i := saved
			if _, _, err := i.Finish(c.second[:], psks); err != nil {
				t.Fatal(err)
			}
		}},
		{"initiate", 15, func() { c.initiate(t) }},
		{"respond", 23, func() { c.respond(t) }},
		{"mac1", 2, func() { c.b.CheckMAC1(c.first[:]) }},
		{"data", 0, func() {
			PutDataHeader(packet, 1, Counter(packet)+1)
			if _, ok := ReceiverIndex(packet); !ok || Nonce(Counter(packet)) == Nonce(0) {
				t.Fatal("not what was written")
			}
		}},
	} {
		if got := testing.AllocsPerRun(50, tt.f); got > tt.most {
			t.Errorf("%s: %v allocations, at most %v", tt.name, got, tt.most)
		}
	}
}
