package wg

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func header(index uint32) []byte {
	b := make([]byte, HeaderSize)
	binary.LittleEndian.PutUint32(b, 4)
	binary.LittleEndian.PutUint32(b[4:], index)
	return b
}

func TestTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 1))
	table := newTable(rng)
	live := make(map[uint32]*Session)
	var order []uint32
	stale := make(map[uint32]bool)
	for n := range 60_000 {
		if len(live) < 12_000 && (n < 20_000 || rng.IntN(2) == 0) {
			index, ok := table.reserve()
			if !ok || live[index] != nil || stale[index] {
				t.Fatalf("index %x given out again", index)
			}
			s := &Session{local: index}
			table.put(s)
			live[index] = s
			order = append(order, index)
			continue
		}
		i := rng.IntN(len(order))
		index := order[i]
		order[i] = order[len(order)-1]
		order = order[:len(order)-1]
		table.release(index)
		live[index].dead.Store(true)
		delete(live, index)
		stale[index] = true
	}
	if len(live) < 10_000 {
		t.Fatalf("%d sessions", len(live))
	}
	for index, s := range live {
		got := table.Acquire(header(index), 0)
		if got != s {
			t.Fatalf("index %x finds another session", index)
		}
		got.Release()
	}
	for index := range stale {
		if table.Acquire(header(index), 0) != nil {
			t.Fatalf("stale index %x finds a session", index)
		}
	}
	for range 100_000 { // nothing panics, and chance finds little
		if s := table.Acquire(header(rng.Uint32()), 0); s != nil {
			s.Release()
		}
		table.waiting(rng.Uint32())
	}
}

// One slot in use, over and over, goes round all slots before an index comes again.
func TestTableReuse(t *testing.T) {
	table := newTable(rand.New(rand.NewPCG(1, 1)))
	seen := make(map[uint32]bool)
	for range firstSize << (32 - slotBits) {
		index, _ := table.reserve()
		if seen[index] {
			t.Fatalf("index %x came again after %d others", index, len(seen))
		}
		seen[index] = true
		table.release(index)
	}
	if len(table.uses) != firstSize {
		t.Error("the table grew")
	}
}

func TestTableFull(t *testing.T) {
	if testing.Short() {
		t.Skip("fills the whole table")
	}
	w, a, b := pair(t, 1)
	w.checks = false
	var taken []uint32
	for {
		index, ok := a.m.table.reserve()
		if !ok {
			break
		}
		taken = append(taken, index)
	}
	if len(taken) != slotMask+1 {
		t.Errorf("%d slots", len(taken))
	}
	a.send(b)
	id := b.send(a)
	w.run(hop)
	w.run(hop)
	if n := a.m.Counters().NoSlot; n == 0 || w.arrived[id] != 0 {
		t.Errorf("NoSlot %d", n)
	}
	for _, index := range taken {
		a.m.table.release(index)
	}
	w.run(3e9)
	if w.arrived[id] != 1 || w.lost() != 0 {
		t.Error("no session after slots came free")
	}
}

func TestVeil(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 1))
	for range 1000 {
		v := newVeil(rng)
		for range 100 {
			if x := rng.Uint32(); v.lift(v.put(x)) != x {
				t.Fatalf("%+v does not lift %x", v, x)
			}
		}
	}
}
