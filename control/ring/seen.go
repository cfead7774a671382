package ring

import (
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	seenFor  = 5 * time.Minute
	maxSeen  = 8192
	seenEach = 1024 // of one origin
)

// signalKey names a signal. Ids are their origins' choice, so one alone is not enough.
type signalKey struct {
	origin identity.PeerID
	id     ID
}

// seen remembers which signals came by which way. Of one origin it holds an eighth of what it holds in all: who sends
// more waits until older ones are forgotten, and nobody makes it forget what others sent. The zero value is empty.
type seen struct {
	by    map[signalKey]byte // bits of ways
	each  map[identity.PeerID]int
	order []seenEntry // oldest first
}

type seenEntry struct {
	key signalKey
	at  time.Time
}

// has reports whether a signal came by a way.
func (s *seen) has(k signalKey, w way) bool { return s.by[k]&(1<<w) != 0 }

// known reports whether it came by any.
func (s *seen) known(k signalKey) bool { return s.by[k] != 0 }

// add notes a signal, or reports that its origin has no room left.
func (s *seen) add(now time.Time, k signalKey, w way) bool {
	for len(s.order) > 0 && now.Sub(s.order[0].at) > seenFor {
		s.forget()
	}
	if !s.known(k) {
		if s.each[k.origin] >= seenEach {
			return false
		}
		if len(s.order) >= maxSeen {
			s.forget()
		}
		if s.by == nil {
			s.by, s.each = make(map[signalKey]byte), make(map[identity.PeerID]int)
		}
		s.each[k.origin]++
		s.order = append(s.order, seenEntry{k, now})
	}
	s.by[k] |= 1 << w
	return true
}

// forget drops the oldest.
func (s *seen) forget() {
	k := s.order[0].key
	s.order = s.order[1:]
	delete(s.by, k)
	if s.each[k.origin]--; s.each[k.origin] == 0 {
		delete(s.each, k.origin)
	}
}
