package magicsock

import (
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/sim"
)

// TestSimFoundElsewhere finds a member by an Intro at an address that nothing else names.
func TestSimFoundElsewhere(t *testing.T) {
	w, _, a, b := pair(t, sim.Link{Delay: 10 * time.Millisecond})
	nobody := netip.MustParseAddrPort("198.51.100.77:41820")
	a.know(b.peer(nobody))
	b.know(a.peer(nobody))
	a.contact(b)
	w.RunFor(3 * time.Second)
	if a.reaches(b)() {
		t.Fatal("contact without an address: the test proves nothing")
	}
	a.core.found(a.now(), b.id.ID(), way{addr: b.addr}, 0)
	b.core.found(b.now(), a.id.ID(), way{addr: a.addr}, 0)
	b.know(a.peer(nobody)) // a map that still does not name it
	a.contact(b)
	if !w.RunUntil(a.reaches(b), 2*time.Second) {
		t.Fatal("no contact where the member was found")
	}
}
