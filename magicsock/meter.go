package magicsock

import "sync/atomic"

// meter counts the WireGuard datagrams of one path, in bytes with their headers. Safe for concurrent use.
type meter struct{ rx, tx atomic.Uint64 }

// meters are those of the paths that carried data, for what comes by another one than the route. A snapshot: replaced as
// a whole.
type meters map[way]*meter

// count adds bytes that came by a way: to the total of its kind, and to its own.
func (h *handle) count(from way, r *route, size int) {
	h.kinds[from.rank()].rx.Add(uint64(size))
	if r != nil && r.first.way == from {
		r.first.meter.rx.Add(uint64(size))
		return
	}
	if all := h.meters.Load(); all != nil {
		if m := (*all)[from]; m != nil {
			m.rx.Add(uint64(size))
		}
	}
}

// show adds a path's meter to the snapshot.
func (h *handle) show(path *path) {
	old := h.meters.Load()
	if old != nil && (*old)[path.way] == path.meter {
		return
	}
	next := make(meters)
	if old != nil {
		for by, m := range *old {
			if len(next) < maxPaths {
				next[by] = m
			}
		}
	}
	next[path.way] = path.meter
	h.meters.Store(&next)
}

// hide takes it out again.
func (h *handle) hide(path *path) {
	old := h.meters.Load()
	if old == nil || (*old)[path.way] == nil {
		return
	}
	next := make(meters)
	for by, m := range *old {
		if by != path.way {
			next[by] = m
		}
	}
	h.meters.Store(&next)
}

// Traffic is how many bytes went either way.
type Traffic struct{ Rx, Tx uint64 }

func (m *meter) traffic() Traffic { return Traffic{Rx: m.rx.Load(), Tx: m.tx.Load()} }
