package magicsock

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// route is where a peer's packets go right now. Immutable but for the budget.
type route struct {
	to        netip.AddrPort
	src       udp.Source
	relay     bool
	shaky     bool // in doubt, dead, or nothing ever came by it: an authenticated packet is news
	double    bool // also send by the second path, until the budget is used up
	also      netip.AddrPort
	alsoSrc   udp.Source
	alsoRelay bool
	budget    atomic.Int64 // bytes
}

// handle is a peer as the data path knows it, a datagram.Peer: the same object for every path. It outlives what core
// knows of the peer: one that was forgotten meanwhile sends by the peer that has its key then. All its fields are
// immutable, atomic or safe for concurrent use.
type handle struct {
	conn  *Conn
	id    identity.PeerID
	wg    identity.WGKey
	epoch time.Time // before which nothing was: stamps count from there
	route atomic.Pointer[route]

	trusted atomic.Int64 // stamp of the last pong or authenticated packet on the best path
	kicked  atomic.Int64 // stamp of the last time core was asked to verify the path
	told    atomic.Int64 // stamp of the last time core was told of packets by another path
	used    atomic.Int64 // stamp of the last packet either way, usedStep behind at most
	rx, tx  atomic.Uint64
}

func newHandle(now time.Time, c *Conn, id identity.PeerID, wg identity.WGKey) *handle {
	return &handle{conn: c, id: id, wg: wg, epoch: now.Add(-time.Hour)}
}

// stamp is a time as the atomic fields keep it, in nanoseconds by a clock that does not jump; 0 for never.
func (h *handle) stamp(t time.Time) int64 { return max(int64(t.Sub(h.epoch)), 0) }

// at is the time of a stamp; zero for never.
func (h *handle) at(stamp int64) time.Time {
	if stamp > 0 {
		return h.epoch.Add(time.Duration(stamp))
	}
	return time.Time{}
}

// usedStep is how coarse the time of the last packet is.
const usedStep = time.Second

// use notes that packets go or come.
func (h *handle) use(stamp int64) {
	if stamp-h.used.Load() >= int64(usedStep) {
		h.used.Store(stamp)
	}
}

// stale reports, at most every 100 ms, that the path carries data and nothing vouched for it within trustFor.
func (h *handle) stale(stamp int64) bool {
	if stamp-h.trusted.Load() < int64(trustFor) {
		return false
	}
	last := h.kicked.Load()
	return stamp-last > int64(100*time.Millisecond) && h.kicked.CompareAndSwap(last, stamp)
}
