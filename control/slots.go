package control

import (
	"net/netip"
	"sync"
)

const (
	maxOpening     = 128 // control streams that others are opening
	maxOpeningEach = 4   // of one address
)

// slots bounds the streams that are being opened, in all and for each address, so that nobody shuts others out. Safe
// for concurrent use.
type slots struct {
	mu    sync.Mutex
	total int                // guarded by mu
	each  map[netip.Addr]int // guarded by mu
}

func newSlots() *slots { return &slots{each: make(map[netip.Addr]int)} }

// take takes a slot. release gives it back, once, however often it is called.
func (s *slots) take(from netip.Addr) (release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxOpening || s.each[from] >= maxOpeningEach {
		return nil, false
	}
	s.total++
	s.each[from]++
	return sync.OnceFunc(func() { s.give(from) }), true
}

func (s *slots) give(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.each[from]--; s.each[from] == 0 {
		delete(s.each, from)
	}
}
