package ledger

import (
	"crypto/sha256"
	"sync"

	"github.com/meshnet/meshnet/identity"
)

// Shared keeps what was parsed and verified once, for the several nodes of one process: a network of thousands in one
// simulation is bound by signatures otherwise. The zero value is empty, nil keeps nothing. Safe for concurrent use.
type Shared struct {
	mu   sync.Mutex
	seen map[identity.Hash]any
}

// Share is what parse makes of raw, or made of it before. The result must never be changed, and kind must tell apart
// what is made of the same bytes.
func Share[T any](s *Shared, kind string, raw []byte, parse func() (T, error)) (T, error) {
	if s == nil {
		return parse()
	}
	h := sha256.New()
	h.Write([]byte(kind))
	h.Write(raw)
	key := identity.Hash(h.Sum(nil))
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.seen[key]; ok {
		return v.(T), nil
	}
	v, err := parse()
	if err == nil {
		if s.seen == nil {
			s.seen = make(map[identity.Hash]any)
		}
		s.seen[key] = v
	}
	return v, err
}
