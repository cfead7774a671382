package tunnel

import (
	"testing"
)

// TestVerdict: a remembered verdict is for the same ends, members and policy, and for nothing else.
func TestVerdict(t *testing.T) {
	a, b := sidePair(t)
	self, table := a.tap.self.Load(), a.tap.table.Load()
	p := a.entry(b.node)
	there, _ := ends(udpPacket(a.ip4, b.ip4, 10))
	back, _ := ends(udpPacket(b.ip4, a.ip4, 10))
	six, _ := ends(udpPacket(a.ip6, b.ip6, 10))
	var j verdict
	if j.holds(self, table, there) {
		t.Error("holds before anything was judged")
	}
	j.remember(self, table, p, there)
	if !j.holds(self, table, there) || j.peer != p {
		t.Error("forgot")
	}
	if j.holds(self, table, back) || j.holds(self, table, six) || j.holds(self, table, nil) {
		t.Error("other ends")
	}
	other, _ := table.next(nil, a.machine.Notes())
	if j.holds(self, other, there) {
		t.Error("other members")
	}
	strict := *self
	strict.filter = func(Direction, []byte, *Member) bool { return false }
	if j.holds(&strict, table, there) {
		t.Error("another policy")
	}
	j.remember(&strict, table, p, there)
	if j.holds(&strict, table, there) {
		t.Error("a policy looks at every packet")
	}
}

func TestEnds(t *testing.T) {
	a, b := sidePair(t)
	for _, whole := range [][]byte{udpPacket(a.ip4, b.ip4, 10), udpPacket(a.ip6, b.ip6, 10)} {
		if _, size := ends(append(whole, 1, 2, 3)); size != len(whole) {
			t.Errorf("size %d of %d", size, len(whole))
		}
		for n := range whole {
			if both, _ := ends(whole[:n]); both != nil {
				t.Errorf("%d of %d bytes have ends", n, len(whole))
			}
		}
	}
	if both, _ := ends(make([]byte, 100)); both != nil {
		t.Error("no IP packet has ends")
	}
}
