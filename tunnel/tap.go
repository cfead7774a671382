package tunnel

import (
	"sync/atomic"

	"github.com/meshnet/meshnet/tunnel/wg"
)

// tap decides where packets go: between the OS TUN, the netstack, the lot and the members. It carries nothing itself;
// outbox and inbox do. Safe for concurrent use.
type tap struct {
	host     host // nil in userspace mode
	mtu      int
	clock    wg.Clock
	counters *counters
	lot      *lot
	inject   func(pkt []byte) // to the netstack; copies
	// injectParts is inject for several packets of a TCP flow that became one: the first with its header, then payload.
	injectParts func(parts [][]byte)
	self        atomic.Pointer[self]
	table       atomic.Pointer[table]
}

// newTap stands before h, which may be nil.
func newTap(h host, mtu int, clock wg.Clock, c *counters) *tap {
	t := &tap{host: h, mtu: mtu, clock: clock, counters: c, lot: newLot(c)}
	t.table.Store(newTable())
	return t
}

// toHost gives one packet, behind headroom in buf, to the OS TUN.
func (t *tap) toHost(buf []byte) {
	if t.host == nil {
		return
	}
	if err := t.host.write(buf); err != nil {
		t.counters.add(inTUNWrite)
	}
}
