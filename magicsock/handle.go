package magicsock

import (
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// route is where a peer's packets go right now. Immutable but for the budget.
type route struct {
	first  leg
	second leg          // of data while the first is in doubt
	shaky  bool         // in doubt, dead, or nothing ever came by it: an authenticated packet is news
	double bool         // also send by the second, until the budget is used up; by that alone from then on
	budget atomic.Int64 // bytes
}

// leg is one of the ways of a route. Immutable.
type leg struct {
	line
	whole int // larger datagrams are fragmented; 0: none are
	most  int // larger ones do not pass in one piece; 0: nothing is known against any
	meter *meter
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
	begun   atomic.Int64 // stamp of the first packet sent since then
	kicked  atomic.Int64 // stamp of the last time core was asked to verify the path
	told    atomic.Int64 // stamp of the last time core was told of packets by another path
	used    atomic.Int64 // stamp of the last packet either way, usedStep behind at most
	largest atomic.Int64 // datagram sent since the path was last verified, in bytes

	kinds  [ranks]meter // by the rank of the way
	meters atomic.Pointer[meters]
}

func newHandle(now time.Time, c *Conn, id identity.PeerID, wg identity.WGKey) *handle {
	return &handle{conn: c, id: id, wg: wg, epoch: now.Add(-time.Hour)}
}

// MaxSize is how long a datagram may be for the route to carry it in one piece, in bytes; 0: nothing is known against any.
func (h *handle) MaxSize() int {
	if r := h.route.Load(); r != nil {
		return r.first.most
	}
	return 0
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

// stale reports, at most every 100 ms, that the path has carried data for trustFor and nothing vouched for it since, or
// that nothing has for so long that it may be gone.
func (h *handle) stale(stamp int64) bool {
	trusted, begun := h.trusted.Load(), h.begun.Load()
	switch {
	case stamp-trusted >= int64(coldAfter):
	case begun <= trusted:
		h.begun.Store(stamp)
		return false
	case stamp-begun < int64(trustFor):
		return false
	}
	last := h.kicked.Load()
	return stamp-last > int64(100*time.Millisecond) && h.kicked.CompareAndSwap(last, stamp)
}

// sum is the traffic by all ways.
func (h *handle) sum() (total Traffic) {
	for i := range h.kinds {
		t := h.kinds[i].traffic()
		total.Rx += t.Rx
		total.Tx += t.Tx
	}
	return total
}
