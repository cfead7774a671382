package relayserver

import (
	"io"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/meshnet/meshnet/internal/bucket"
)

// halfOpen bounds the streams that did not yet prove anything. One too many pushes out the oldest of the prefix that has
// most: so clients that say nothing (slowloris) make room for each other, and nobody else for them. Guarded by mu.
type halfOpen struct {
	mu      sync.Mutex
	n       int
	closed  bool
	streams map[netip.Prefix][]io.Closer // oldest first
}

// add takes a stream in and returns another that has to go, or nil. It fails after closeAll.
func (h *halfOpen) add(c io.Closer, from netip.Addr) (out io.Closer, ok bool) {
	prefix := bucket.PrefixOf(from)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false
	}
	if h.streams == nil {
		h.streams = make(map[netip.Prefix][]io.Closer)
	}
	if h.n >= maxHalfOpen {
		out = h.pushOut()
	}
	h.streams[prefix] = append(h.streams[prefix], c)
	h.n++
	return out, true
}

// pushOut removes the oldest of the prefix that has most.
func (h *halfOpen) pushOut() io.Closer {
	var most netip.Prefix
	for prefix, of := range h.streams {
		if len(of) > len(h.streams[most]) {
			most = prefix
		}
	}
	out := h.streams[most][0]
	h.drop(most, 0)
	return out
}

func (h *halfOpen) drop(prefix netip.Prefix, i int) {
	h.n--
	of := slices.Delete(h.streams[prefix], i, i+1)
	if len(of) == 0 {
		delete(h.streams, prefix)
		return
	}
	h.streams[prefix] = of
}

// remove lets a stream go, if it was not pushed out.
func (h *halfOpen) remove(c io.Closer, from netip.Addr) {
	prefix := bucket.PrefixOf(from)
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.streams[prefix], c); i >= 0 {
		h.drop(prefix, i)
	}
}

// closeAll ends them all, and lets none in any more.
func (h *halfOpen) closeAll() {
	h.mu.Lock()
	h.closed = true
	all := slices.Concat(slices.Collect(maps.Values(h.streams))...)
	h.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}
