package wg

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
)

const (
	slotBits  = 18
	slotMask  = 1<<slotBits - 1
	firstSize = 64
)

// Table finds sessions by the index in a datagram. The packet path reads it, the machine changes it.
//
// An index is the number of a slot and that of the slot's use, mixed with a secret so that onlookers cannot count
// handshakes. Slots are used in turn: an index comes again after 2^14 uses of all free ones.
type Table struct {
	slots atomic.Pointer[[]atomic.Pointer[Session]]
	veil  veil

	// Owned by the machine.
	uses    []uint32 // of each slot
	pending []*initiation
	free    []uint32 // longest free first
}

func newTable(rng *rand.Rand) *Table {
	t := &Table{veil: newVeil(rng)}
	t.grow(firstSize)
	return t
}

// Acquire finds the session that a transport datagram is for and keeps it until Release; nil: none, or it is too old.
func (t *Table) Acquire(datagram []byte, at int64) *Session {
	s := t.find(binary.LittleEndian.Uint32(datagram[4:]))
	if s == nil || at-s.born >= int64(RejectAfterTime) || !s.acquire() {
		return nil
	}
	return s
}

// find returns the session of an index, without keeping it; nil: none.
func (t *Table) find(index uint32) *Session {
	slots := *t.slots.Load()
	slot := t.slot(index)
	if int(slot) >= len(slots) {
		return nil
	}
	if s := slots[slot].Load(); s != nil && s.local == index {
		return s
	}
	return nil
}

func (t *Table) slot(index uint32) uint32 { return t.veil.lift(index) & slotMask }

// grow makes room for size slots. Readers of the old slice still find what was there.
func (t *Table) grow(size int) {
	var old []atomic.Pointer[Session]
	if p := t.slots.Load(); p != nil {
		old = *p
	}
	slots := make([]atomic.Pointer[Session], size)
	for i := range old {
		slots[i].Store(old[i].Load())
	}
	for i := len(old); i < size; i++ {
		t.free = append(t.free, uint32(i))
	}
	t.uses = append(t.uses, make([]uint32, size-len(old))...)
	t.pending = append(t.pending, make([]*initiation, size-len(old))...)
	t.slots.Store(&slots)
}

// reserve takes a slot and returns its index; false: there are too many sessions.
func (t *Table) reserve() (index uint32, ok bool) {
	if len(t.free) == 0 {
		size := len(t.uses)
		if size > slotMask {
			return 0, false
		}
		t.grow(2 * size)
	}
	slot := t.free[0]
	t.free = t.free[1:]
	t.uses[slot]++
	return t.veil.put(slot | t.uses[slot]<<slotBits), true
}

// release gives a slot back.
func (t *Table) release(index uint32) {
	slot := t.slot(index)
	(*t.slots.Load())[slot].Store(nil)
	t.pending[slot] = nil
	t.free = append(t.free, slot)
}

// put makes a session found by its index.
func (t *Table) put(s *Session) {
	slot := t.slot(s.local)
	t.pending[slot] = nil
	(*t.slots.Load())[slot].Store(s)
}

// wait notes that the answer to an initiation comes to its index.
func (t *Table) wait(i *initiation) { t.pending[t.slot(i.index)] = i }

// waiting finds the own initiation that an index names.
func (t *Table) waiting(index uint32) *initiation {
	slot := t.slot(index)
	if int(slot) >= len(t.pending) {
		return nil
	}
	if i := t.pending[slot]; i != nil && i.index == index {
		return i
	}
	return nil
}
