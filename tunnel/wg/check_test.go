package wg

// check holds a machine to what must always be true.
func (n *node) check() {
	n.w.t.Helper()
	m, t := n.m, n.w.t
	owner := make(map[uint32]string) // of each slot
	own := func(index uint32, who string) {
		slot := m.table.slot(index)
		if was, taken := owner[slot]; taken {
			t.Fatalf("%s: slot %d belongs to %s and %s", n.name, slot, was, who)
		}
		owner[slot] = who
	}
	live := func(s *Session, who string) {
		own(s.local, who)
		if m.table.find(s.local) != s || s.dead.Load() || s.send.AEAD == nil {
			t.Fatalf("%s: %s session is not in the table, or dead", n.name, who)
		}
	}
	inHeap := 0
	for _, p := range m.peers {
		a := p.active
		if a == nil {
			if p.current.Load() != nil {
				t.Fatalf("%s: an inactive peer has a session", n.name)
			}
			continue
		}
		for _, i := range a.pending {
			own(i.index, "pending")
			if m.table.waiting(i.index) != i || i.peer != p {
				t.Fatalf("%s: a pending initiation is not in the table", n.name)
			}
		}
		if s := p.current.Load(); s != nil {
			live(s, "current")
		}
		for _, s := range a.previous {
			live(s, "previous")
		}
		for _, s := range a.next {
			live(s, "next")
		}
		if len(a.pending) > maxPending || len(a.next) > maxPending || len(a.previous) > maxPrevious {
			t.Fatalf("%s: pending %d next %d previous %d", n.name, len(a.pending), len(a.next), len(a.previous))
		}
		if a.heapAt >= 0 {
			inHeap++
			if m.timers[a.heapAt] != p {
				t.Fatalf("%s: wrong place in the heap", n.name)
			}
		} else {
			t.Fatalf("%s: an active peer without a deadline", n.name)
		}
	}
	if inHeap != len(m.timers) {
		t.Fatalf("%s: heap has %d, peers %d", n.name, len(m.timers), inHeap)
	}
	for i := 1; i < len(m.timers); i++ {
		if m.timers.Less(i, (i-1)/2) {
			t.Fatalf("%s: heap out of order", n.name)
		}
	}
	for _, slot := range m.table.free {
		if who, taken := owner[slot]; taken {
			t.Fatalf("%s: slot %d of %s is free", n.name, slot, who)
		}
		owner[slot] = "free"
	}
	if len(owner) != len(m.table.uses) {
		t.Fatalf("%s: %d slots, %d owned or free", n.name, len(m.table.uses), len(owner))
	}
	for _, s := range m.dying {
		if !s.dead.Load() || m.table.find(s.local) == s {
			t.Fatalf("%s: a dying session is found", n.name)
		}
	}
	if !m.Next(n.w.now).IsZero() && len(m.out) > 0 {
		t.Fatalf("%s: actions left behind", n.name)
	}
}
