package ring

import (
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshnet/meshnet/identity"
)

var testNetwork = identity.NetworkID{1, 2, 3}

// ids are n made-up members, always the same ones for a seed.
func ids(seed uint64, n int) []identity.PeerID {
	all := make([]identity.PeerID, n)
	for i := range all {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], seed)
		binary.BigEndian.PutUint64(b[8:], uint64(i))
		all[i] = sha256.Sum256(b[:])
	}
	return all
}

func except(gone map[identity.PeerID]bool) func(identity.PeerID) bool {
	return func(id identity.PeerID) bool { return !gone[id] }
}

// naive is the ring worked out with big numbers and without any order kept.
type naive []identity.PeerID

var whole = new(big.Int).Lsh(big.NewInt(1), 128)

func naivePosition(id identity.PeerID) *big.Int {
	sum := sha256.Sum256(slices.Concat(testNetwork[:], id[:]))
	return new(big.Int).SetBytes(sum[:16])
}

// up is the distance from a to b.
func up(a, b identity.PeerID) *big.Int {
	d := new(big.Int).Sub(naivePosition(b), naivePosition(a))
	return d.Mod(d, whole)
}

// after are all others for whom ok holds, by distance.
func (n naive) after(id identity.PeerID, ok func(identity.PeerID) bool) []identity.PeerID {
	var all []identity.PeerID
	for _, o := range n {
		if o != id && ok(o) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b identity.PeerID) int { return up(id, a).Cmp(up(id, b)) })
	return all
}

func (n naive) fingers(id identity.PeerID, ok func(identity.PeerID) bool) []identity.PeerID {
	doublings := 0
	for 1<<doublings < len(n) {
		doublings++
	}
	var fingers []identity.PeerID
	for k := 127; k >= 128-doublings; k-- {
		var in []identity.PeerID
		for _, o := range n.after(id, func(identity.PeerID) bool { return true }) {
			if d := up(id, o); d.BitLen() == k+1 { // from 2^k to below 2^(k+1)
				in = append(in, o)
			}
		}
		if len(in) == 0 {
			continue
		}
		first := PositionOf(testNetwork, id).draw(k, len(in))
		for n := range in {
			if o := in[(first+n)%len(in)]; ok == nil || ok(o) {
				fingers = append(fingers, o)
				break
			}
		}
	}
	return fingers
}

func TestAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 2, 3, 4, 5, 17, 33, 60} {
		members := ids(uint64(n), n)
		r := New(testNetwork, members)
		gone := map[identity.PeerID]bool{}
		for _, id := range members {
			gone[id] = rng.IntN(4) == 0
		}
		for _, id := range append(ids(99, 2), members...) { // strangers have a place too
			all := naive(members).after(id, except(gone))
			back := slices.Clone(all)
			slices.Reverse(back)
			first := func(ids []identity.PeerID) []identity.PeerID { return ids[:min(3, len(ids))] }
			if got := r.Successors(id, 3, except(gone)); !slices.Equal(got, first(all)) {
				t.Errorf("N=%d: successors %v, want %v", n, got, first(all))
			}
			if got := r.Predecessors(id, 3, except(gone)); !slices.Equal(got, first(back)) {
				t.Errorf("N=%d: predecessors %v, want %v", n, got, first(back))
			}
			if got, want := r.Fingers(id, except(gone)), naive(members).fingers(id, except(gone)); !slices.Equal(got, want) {
				t.Errorf("N=%d: fingers %v, want %v", n, got, want)
			}
			if r.Has(id) != slices.Contains(members, id) {
				t.Errorf("N=%d: membership is wrong", n)
			}
		}
	}
}

func TestWith(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	all := ids(3, 200)
	r, have := New(testNetwork, nil), map[identity.PeerID]bool{}
	for range 300 {
		var added, removed []identity.PeerID
		for range rng.IntN(4) {
			added = append(added, all[rng.IntN(len(all))])
		}
		for range rng.IntN(3) {
			removed = append(removed, all[rng.IntN(len(all))])
		}
		for _, id := range added {
			have[id] = true
		}
		for _, id := range removed {
			delete(have, id)
		}
		var members []identity.PeerID
		for id := range have {
			members = append(members, id)
		}
		before, size := r, r.Len()
		r = r.With(added, removed)
		if want := New(testNetwork, members); !slices.Equal(r.members, want.members) {
			t.Fatalf("%d members after %d added and %d removed, want %d", r.Len(), len(added), len(removed), want.Len())
		}
		if before.Len() != size {
			t.Fatal("the ring before was changed")
		}
	}
	if r.With(nil, ids(4, 1)) != r || r.With([]identity.PeerID{r.members[0].id}, nil) != r {
		t.Error("nothing to do made another ring")
	}
	if got := slices.Collect(r.All()); len(got) != r.Len() || got[0] != r.members[0].id {
		t.Error("All is not everybody")
	}
}

func TestMode(t *testing.T) {
	m := Full
	for _, step := range []struct {
		count int
		want  Mode
	}{{1, Full}, {32, Full}, {33, Ringed}, {32, Ringed}, {29, Ringed}, {28, Full}, {32, Full}, {10000, Ringed}, {0, Full}} {
		if m = m.Next(step.count); m != step.want {
			t.Fatalf("mode %d at %d members, want %d", m, step.count, step.want)
		}
	}
}

func TestWanted(t *testing.T) {
	small := ids(1, 20)
	r := New(testNetwork, small)
	nobody := func(identity.PeerID) bool { return false }
	if got := r.Wanted(Full, small[3], nobody); len(got) != 19 || slices.Contains(got, small[3]) {
		t.Errorf("%d wanted in a full mesh of 20", len(got))
	}
	if got := r.Surplus(Full, small[3], small, nil); got != nil {
		t.Errorf("surplus %v in a full mesh", got)
	}
	if got := r.Wanted(Ringed, small[3], nobody); len(got) != 0 {
		t.Errorf("%d wanted of whom none is reachable", len(got))
	}
	for _, n := range []int{0, 1, 2, 3} {
		members := ids(1, n)
		want := max(0, n-1)
		for _, id := range members {
			if got := New(testNetwork, members).Wanted(Ringed, id, nil); len(got) != want {
				t.Errorf("%d wanted among %d", len(got), n)
			}
		}
	}
}

// TestSurplus has a full mesh of 60 let go: what stays is what either end wants, and both ends agree.
func TestSurplus(t *testing.T) {
	members := ids(5, 60)
	r := New(testNetwork, members)
	gone := map[identity.PeerID]bool{members[7]: true, members[20]: true}
	surplus := map[[2]identity.PeerID]bool{}
	for _, a := range members {
		others := slices.DeleteFunc(slices.Clone(members), func(id identity.PeerID) bool { return id == a })
		up := func(id identity.PeerID) bool { return id != a && !gone[id] } // whether one reaches itself must not matter
		for _, b := range r.Surplus(Ringed, a, append(others, ids(6, 1)...), up) {
			surplus[[2]identity.PeerID{a, b}] = true
		}
	}
	kept := 0
	for _, a := range members {
		for _, b := range members {
			if a == b || gone[a] || gone[b] {
				continue
			}
			got := surplus[[2]identity.PeerID{a, b}]
			if got != surplus[[2]identity.PeerID{b, a}] {
				t.Fatal("the two ends do not agree")
			}
			wanted := slices.Contains(r.Wanted(Ringed, a, except(gone)), b) || slices.Contains(r.Wanted(Ringed, b, except(gone)), a)
			if got && wanted {
				t.Fatal("a wanted session is surplus")
			}
			if !got {
				kept++
			}
		}
	}
	if kept == 0 || kept > 60*20 {
		t.Errorf("%d ends of sessions kept", kept)
	}
	if surplus[[2]identity.PeerID{members[0], ids(6, 1)[0]}] {
		t.Error("a stranger is surplus")
	}
}

// sessionsOf are all sessions there are, when everybody alive keeps those that it wants.
func sessionsOf(r *Ring, mode Mode, alive func(identity.PeerID) bool) (of map[identity.PeerID]map[identity.PeerID]Position, wanted []int) {
	of = make(map[identity.PeerID]map[identity.PeerID]Position, r.Len())
	for id := range r.All() {
		of[id] = make(map[identity.PeerID]Position)
	}
	for id := range r.All() {
		if !alive(id) {
			continue
		}
		all := r.Wanted(mode, id, alive)
		wanted = append(wanted, len(all))
		for _, o := range all {
			if alive(o) {
				of[id][o], of[o][id] = PositionOf(testNetwork, o), PositionOf(testNetwork, id)
			}
		}
	}
	return of, wanted
}

// reached counts whom a graph leads to from one member.
func reached(of map[identity.PeerID]map[identity.PeerID]Position, from identity.PeerID) int {
	seen, todo := map[identity.PeerID]bool{from: true}, []identity.PeerID{from}
	for len(todo) > 0 {
		id := todo[0]
		todo = todo[1:]
		for o := range of[id] {
			if !seen[o] {
				seen[o] = true
				todo = append(todo, o)
			}
		}
	}
	return len(seen)
}

// hops is the length of the way that routers find, 0 if it ends before.
func hops(of map[identity.PeerID]map[identity.PeerID]Position, w way, from, to identity.PeerID) int {
	p := &pending{target: to, key: wayKey{signalKey{origin: from}, w}}
	for n := 1; n <= maxTTL; n++ {
		node := &Router{cfg: Config{Network: testNetwork}, here: PositionOf(testNetwork, from), sessions: of[from], view: View{Mode: Ringed}}
		next, ok := node.best(p, func(id identity.PeerID) bool { return id != p.from })
		if !ok {
			return 0
		}
		if next == to {
			return n
		}
		p.from, from = from, next
	}
	return 0
}

func mean(all []int) float64 {
	sum := 0
	for _, n := range all {
		sum += n
	}
	return float64(sum) / float64(len(all))
}

func log2(n int) int {
	k := 0
	for 1<<k < n {
		k++
	}
	return k
}

// TestRouting looks at whole rings: that they hang together, and that anybody reaches anybody greedily, upwards and
// downwards.
func TestRouting(t *testing.T) {
	for _, tt := range []struct {
		n, pairs int
		dead     float64
	}{{33, 2000, 0}, {100, 4000, 0}, {1000, 6000, 0}, {10000, 8000, 0}, {33, 2000, 0.2}, {100, 4000, 0.2}, {1000, 6000, 0.2}, {10000, 8000, 0.2}} {
		if raceEnabled && tt.n > 1000 {
			continue
		}
		rng := rand.New(rand.NewPCG(uint64(tt.n), 7))
		members := ids(uint64(tt.n), tt.n)
		gone, live := map[identity.PeerID]bool{}, []identity.PeerID(nil)
		for _, id := range members {
			if gone[id] = rng.Float64() < tt.dead; !gone[id] {
				live = append(live, id)
			}
		}
		r := New(testNetwork, members)
		of, wanted := sessionsOf(r, Ringed, except(gone))
		if got := reached(of, live[0]); got != len(live) {
			t.Errorf("N=%d: %d of %d members hang together", tt.n, got, len(live))
		}
		if most := slices.Max(wanted); most > 2*neighbours+log2(tt.n) {
			t.Errorf("N=%d: %d wanted", tt.n, most)
		}
		var degrees []int
		for _, id := range live {
			degrees = append(degrees, len(of[id]))
		}
		slices.Sort(degrees)
		for w := range ways {
			var lengths []int
			arrived := 0
			for range tt.pairs {
				from, to := live[rng.IntN(len(live))], live[rng.IntN(len(live))]
				if from == to {
					to = r.Successors(from, 1, except(gone))[0]
				}
				if n := hops(of, w, from, to); n > 0 {
					arrived++
					lengths = append(lengths, n)
				}
			}
			t.Logf("N=%5d dead=%.0f%% way=%d: arrived %.3f%%, hops mean %.2f max %d; wanted mean %.1f max %d; sessions median %d p99 %d max %d",
				tt.n, 100*tt.dead, w, 100*float64(arrived)/float64(tt.pairs), mean(lengths), slices.Max(lengths), mean(wanted), slices.Max(wanted),
				degrees[len(degrees)/2], degrees[len(degrees)*99/100], degrees[len(degrees)-1])
			if arrived < tt.pairs {
				t.Errorf("N=%d way=%d: %d of %d arrived", tt.n, w, arrived, tt.pairs)
			}
			if mean(lengths) > float64(log2(tt.n)) {
				t.Errorf("N=%d way=%d: %.2f hops", tt.n, w, mean(lengths))
			}
		}
	}
}

// TestCapped lets members be full: those who come later take the next, and signals still arrive.
func TestCapped(t *testing.T) {
	if raceEnabled {
		return // slow; .ci/run runs this without it too
	}
	const most = 64
	members := ids(8, 10000)
	r := New(testNetwork, members)
	of := make(map[identity.PeerID]map[identity.PeerID]Position, len(members))
	for _, id := range members {
		of[id] = make(map[identity.PeerID]Position)
	}
	join := func(a, b identity.PeerID) {
		of[a][b], of[b][a] = PositionOf(testNetwork, b), PositionOf(testNetwork, a)
	}
	for _, id := range members { // neighbours have a place with everybody
		for _, o := range r.Successors(id, neighbours, nil) {
			join(id, o)
		}
	}
	for _, id := range members {
		for _, o := range r.Fingers(id, func(o identity.PeerID) bool { return len(of[o]) < most }) {
			join(id, o)
		}
	}
	degrees, lengths := []int(nil), []int(nil)
	rng := rand.New(rand.NewPCG(9, 9))
	for _, id := range members {
		degrees = append(degrees, len(of[id]))
		to := members[rng.IntN(len(members))]
		if to == id {
			continue
		}
		n := hops(of, wayBefore, id, to)
		if lengths = append(lengths, n); n == 0 {
			t.Error("a signal did not arrive")
		}
	}
	t.Logf("sessions mean %.1f max %d; hops mean %.2f max %d", mean(degrees), slices.Max(degrees), mean(lengths), slices.Max(lengths))
	if slices.Max(degrees) > most+log2(len(members)) {
		t.Errorf("%d sessions", slices.Max(degrees))
	}
}

func BenchmarkNew(b *testing.B) {
	members := ids(1, 10000)
	b.ReportAllocs()
	for b.Loop() {
		New(testNetwork, members)
	}
}

func BenchmarkWith(b *testing.B) {
	r, more := New(testNetwork, ids(1, 10000)), ids(2, 3)
	b.ReportAllocs()
	for b.Loop() {
		r.With(more, nil)
	}
}

func BenchmarkWanted(b *testing.B) {
	members := ids(1, 10000)
	r := New(testNetwork, members)
	b.ReportAllocs()
	for b.Loop() {
		r.Wanted(Ringed, members[17], nil)
	}
}

func BenchmarkSurplus(b *testing.B) {
	members := ids(1, 10000)
	r := New(testNetwork, members)
	b.ReportAllocs()
	for b.Loop() {
		r.Surplus(Ringed, members[17], members[100:164], nil)
	}
}
