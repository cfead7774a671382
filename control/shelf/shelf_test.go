package shelf

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

func key(i int) Key { return sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i))) }

// TestSameEntriesSameRoot puts entries in and takes some out in random order.
func TestSameEntriesSameRoot(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var a, b Set
	empty := a.Root()
	for i := range 2000 {
		a.Put(key(i), uint64(i))
	}
	order := rng.Perm(2500)
	for _, i := range order {
		b.Put(key(i), uint64(i%7))
	}
	if a.Root() == b.Root() {
		t.Fatal("different sets have one root")
	}
	for _, i := range order {
		if i >= 2000 {
			b.Remove(key(i))
		} else {
			b.Put(key(i), uint64(i))
		}
	}
	if a.Root() != b.Root() || !slices.Equal(a.Sums(), b.Sums()) || b.Len() != 2000 {
		t.Fatalf("equal sets differ; %d entries", b.Len())
	}
	for i := range 2000 {
		a.Remove(key(i))
	}
	if a.Root() != empty || a.Len() != 0 {
		t.Fatal("an emptied set is not the empty one")
	}
}

// TestDiffering finds exactly the buckets in which something differs.
func TestDiffering(t *testing.T) {
	var a, b Set
	for i := range 10_000 {
		a.Put(key(i), 1)
		b.Put(key(i), 1)
	}
	if got := a.Differing(b.Sums()); got != (Part{}) {
		t.Fatalf("equal sets differ in %x", got)
	}
	b.Put(key(17), 2)
	b.Put(key(20_000), 1)
	a.Put(key(30_000), 1)
	var want Part
	for _, i := range []int{17, 20_000, 30_000} {
		want.Add(key(i)[0])
	}
	got := a.Differing(b.Sums())
	if got != want || b.Differing(a.Sums()) != want {
		t.Fatalf("got %x, want %x", got, want)
	}
	listed := 0
	for e := range a.Of(got) {
		if !want.Has(e.Key[0]) {
			t.Fatal("an entry of another bucket")
		}
		listed++
	}
	if listed == 0 || listed > 250 {
		t.Fatalf("%d entries listed", listed)
	}
	if v, ok := b.Version(key(17)); !ok || v != 2 {
		t.Fatal("version lost")
	}
	if _, ok := b.Version(key(30_000)); ok {
		t.Fatal("version of somebody unknown")
	}
}

func TestBucketOrder(t *testing.T) {
	var s Set
	for i := range 3000 {
		s.Put(key(i), 0)
	}
	all := slices.Collect(s.Of(Whole()))
	if len(all) != 3000 || !slices.IsSortedFunc(all, func(a, b Entry) int { return slices.Compare(a.Key[:], b.Key[:]) }) {
		t.Fatalf("%d entries, or not in order", len(all))
	}
}
