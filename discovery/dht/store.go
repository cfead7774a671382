package dht

import (
	"sync"
	"time"

	"github.com/anacrolix/dht/v2/bep44"
)

const (
	maxStored = 1000
	storeFor  = 2 * time.Hour
)

// store keeps items for others: at most 1000, of which the one written longest ago goes first. Their age is watched by
// the library. Guarded by mu.
type store struct {
	mu    sync.Mutex
	items map[bep44.Target]*bep44.Item
	wrote map[bep44.Target]time.Time
}

func newStore() *store {
	return &store{items: make(map[bep44.Target]*bep44.Item), wrote: make(map[bep44.Target]time.Time)}
}

// Put stores an item that the library has checked but for its compare-and-swap (BEP 44): the library would compare with
// what the stored item was compared with.
func (s *store) Put(i *bep44.Item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	target, now := i.Target(), time.Now()
	if old := s.items[target]; old != nil && i.Cas != 0 && old.Seq != i.Cas && old.Seq != i.Seq {
		return bep44.ErrCasHashMismatched
	}
	kept := *i
	kept.Cas = 0
	s.items[target], s.wrote[target] = &kept, now
	s.trim(now)
	return nil
}

// trim makes room: what is too old goes, and else the oldest.
func (s *store) trim(now time.Time) {
	if len(s.items) <= maxStored {
		return
	}
	var oldest bep44.Target
	first := now.Add(time.Hour)
	for target, at := range s.wrote {
		if now.Sub(at) > storeFor {
			s.drop(target)
		} else if at.Before(first) {
			oldest, first = target, at
		}
	}
	if len(s.items) > maxStored {
		s.drop(oldest)
	}
}

// Get finds an item.
func (s *store) Get(t bep44.Target) (*bep44.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.items[t]; i != nil {
		return i, nil
	}
	return nil, bep44.ErrItemNotFound
}

// Del forgets an item.
func (s *store) Del(t bep44.Target) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(t)
	return nil
}

func (s *store) drop(t bep44.Target) {
	delete(s.items, t)
	delete(s.wrote, t)
}
