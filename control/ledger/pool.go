package ledger

import (
	"maps"
	"slices"

	"github.com/meshnet/meshnet/identity"
)

// pool holds what cannot count yet because something it names has not come. It is bounded: when it is full the oldest
// leave, since what never gets its parent must not keep the others out. They come again with the next exchange.
// Owned by a Ledger.
type pool[T any] struct {
	items   map[identity.Hash]*pooled[T]
	waiting map[identity.Hash]map[identity.Hash]struct{} // what is missing → who waits for it
	age     []identity.Hash                              // oldest first; may name some that left
	size    int
	maxSize int // bytes
}

type pooled[T any] struct {
	value T
	size  int
	waits identity.Hash // zero: for nothing in particular
}

// perItem is what an item costs beside its own bytes.
const perItem = 256

func newPool[T any](maxSize int) *pool[T] {
	return &pool[T]{
		items: map[identity.Hash]*pooled[T]{}, waiting: map[identity.Hash]map[identity.Hash]struct{}{}, maxSize: maxSize,
	}
}

func (p *pool[T]) get(id identity.Hash) (T, bool) {
	if it := p.items[id]; it != nil {
		return it.value, true
	}
	var none T
	return none, false
}

func (p *pool[T]) add(id identity.Hash, value T, size int) {
	size += perItem
	p.items[id] = &pooled[T]{value: value, size: size}
	p.size += size
	p.age = append(p.age, id)
	for p.size > p.maxSize {
		p.remove(p.age[0])
		p.age = p.age[1:]
	}
	if len(p.age) > 2*len(p.items)+64 {
		p.age = slices.DeleteFunc(p.age, func(id identity.Hash) bool { return p.items[id] == nil })
	}
}

func (p *pool[T]) remove(id identity.Hash) {
	it := p.items[id]
	if it == nil {
		return
	}
	p.unwait(id, it)
	p.size -= it.size
	delete(p.items, id)
}

// wait notes that id waits for missing, and for nothing else any more.
func (p *pool[T]) wait(id, missing identity.Hash) {
	it := p.items[id]
	if it == nil {
		return
	}
	p.unwait(id, it)
	if it.waits = missing; missing.IsZero() {
		return
	}
	if p.waiting[missing] == nil {
		p.waiting[missing] = map[identity.Hash]struct{}{}
	}
	p.waiting[missing][id] = struct{}{}
}

func (p *pool[T]) unwait(id identity.Hash, it *pooled[T]) {
	set := p.waiting[it.waits]
	if delete(set, id); len(set) == 0 {
		delete(p.waiting, it.waits)
	}
}

// waiters are those that wait for what, in the order of their ids.
func (p *pool[T]) waiters(what identity.Hash) []identity.Hash {
	return slices.SortedFunc(maps.Keys(p.waiting[what]), compareHash)
}
