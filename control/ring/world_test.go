package ring

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// world is a simulated mesh of routers in virtual time. Frames take 10 to 50 ms; what goes to the dead is lost.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	now   time.Time
	queue events
	turn  int
	nodes map[identity.PeerID]*node
	order []*node
	ring  *Ring
	valid map[[32]byte]bool // signatures that were checked
	log   func(from, to identity.PeerID, frame []byte)
}

type node struct {
	id     *identity.Identity
	router *Router
	dead   bool
	lies   func(from identity.PeerID, frame []byte) []Send // instead of the router
	got    map[ID]int
	at     map[ID]time.Time
	failed map[ID]int
}

type event struct {
	at   time.Time
	turn int // those of one moment stay in order
	do   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].turn < e[j].turn
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }

func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func seeded(n int) *identity.Identity {
	var seed identity.Secret
	binary.BigEndian.PutUint32(seed[:], uint32(n)+1)
	return identity.FromSeed(seed)
}

// newWorld makes n nodes that all know each other and keep the sessions that the ring asks for.
func newWorld(t testing.TB, seed uint64, n int) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, seed)), now: time.Unix(1_000_000, 0), nodes: make(map[identity.PeerID]*node),
		valid: make(map[[32]byte]bool), log: func(_, _ identity.PeerID, _ []byte) {},
	}
	t.Logf("seed %d", seed)
	var members []identity.PeerID
	for i := range n {
		id := seeded(i)
		x := &node{id: id, got: make(map[ID]int), at: make(map[ID]time.Time), failed: make(map[ID]int)}
		x.router = NewRouter(Config{Self: id, Network: testNetwork, Rand: rand.New(rand.NewPCG(seed, uint64(i))), Verify: w.verify})
		w.nodes[id.ID()], w.order, members = x, append(w.order, x), append(members, id.ID())
	}
	w.ring = New(testNetwork, members)
	w.view(except(nil))
	return w
}

// view has everybody keep sessions among those who are up.
func (w *world) view(up func(identity.PeerID) bool) {
	mode := Full.Next(w.ring.Len())
	of, _ := sessionsOf(w.ring, mode, up)
	for _, x := range w.order {
		var sessions []identity.PeerID
		for o := range of[x.id.ID()] {
			sessions = append(sessions, o)
		}
		slices.SortFunc(sessions, identity.PeerID.Compare)
		x.router.SetView(View{Ring: w.ring, Mode: mode, Sessions: sessions})
	}
}

// verify is the real check, made once for all.
func (w *world) verify(origin identity.PeerID, body, sig []byte) bool {
	key := sha256.Sum256(slices.Concat(origin[:], sig, body))
	ok, known := w.valid[key]
	if !known {
		ok = identity.Verify(origin, identity.PurposeRing, testNetwork, body, sig) == nil
		w.valid[key] = ok
	}
	return ok
}

func (w *world) after(d time.Duration, do func()) {
	w.turn++
	heap.Push(&w.queue, event{w.now.Add(d), w.turn, do})
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

func (w *world) do(x *node, a Actions) {
	for _, s := range a.Sends {
		w.send(x, s)
	}
	if a.Deliver != nil {
		if a.Deliver.Target != x.id.ID() {
			w.t.Error("a signal was delivered to another")
		}
		x.got[a.Deliver.ID]++
		x.at[a.Deliver.ID] = w.now
	}
	for _, id := range a.Failed {
		x.failed[id]++
	}
	if at := x.router.Next(); !at.IsZero() {
		w.after(at.Sub(w.now), func() {
			if !x.dead && !x.router.Next().IsZero() && !w.now.Before(x.router.Next()) {
				w.do(x, x.router.Tick(w.now))
			}
		})
	}
}

func (w *world) send(x *node, s Send) {
	from := x.id.ID()
	if len(s.Frame) > MaxFrame {
		w.t.Errorf("a frame of %d bytes", len(s.Frame))
	}
	if s.To == from || x.router.sessions[s.To] == (Position{}) && x.lies == nil {
		w.t.Error("a frame for somebody without a session")
	}
	w.log(from, s.To, s.Frame)
	y := w.nodes[s.To]
	w.after(10*time.Millisecond+time.Duration(w.rng.Int64N(int64(40*time.Millisecond))), func() {
		switch {
		case y.dead || x.dead:
		case y.lies != nil:
			for _, s := range y.lies(from, s.Frame) {
				w.send(y, s)
			}
		default:
			w.do(y, y.router.Handle(w.now, w.now, from, s.Frame))
		}
	})
}

// signal sends one from x to y, nil if x knows no way.
func (w *world) signal(x, y *node) *Signal {
	s := x.router.Draft(w.now, y.id.ID(), Call)
	s.Payload = []byte("sealed")
	a, err := x.router.Originate(w.now, s)
	if err != nil {
		return nil
	}
	w.do(x, a)
	return s
}

// trip is a signal on its way.
type trip struct {
	s        *Signal
	from, to *node
	at       time.Time
}

func (w *world) pick(ok func(*node) bool) *node {
	for {
		if x := w.order[w.rng.IntN(len(w.order))]; ok(x) {
			return x
		}
	}
}

// total adds up a counter.
func (w *world) total(c count) (sum uint64) {
	for _, x := range w.order {
		sum += x.router.counts[c]
	}
	return sum
}

// TestEveryPair has everybody signal everybody.
func TestEveryPair(t *testing.T) {
	w := newWorld(t, 1, 200)
	type hop struct {
		from, to identity.PeerID
		key      wayKey
	}
	crossed, frames := map[hop]bool{}, 0
	w.log = func(from, to identity.PeerID, frame []byte) {
		frames++
		if kindOf(frame) != kindSignal {
			return
		}
		f, s, _, err := parseSignalFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		h := hop{from, to, wayKey{signalKey{s.Origin, s.ID}, f.Way}}
		if crossed[h] {
			t.Error("a signal went the same way twice")
		}
		crossed[h] = true
	}
	stride := 1
	if raceEnabled {
		stride = 23
	}
	var trips []trip
	for d := 1; d < 200; d += stride {
		for i, x := range w.order {
			y := w.order[(i+d)%200]
			w.after(time.Duration(w.rng.Int64N(int64(200*time.Millisecond))), func() {
				trips = append(trips, trip{w.signal(x, y), x, y, w.now})
			})
		}
		w.run(200 * time.Millisecond)
	}
	w.run(10 * time.Second)
	for _, p := range trips {
		if p.s == nil || p.to.got[p.s.ID] != 1 {
			t.Fatal("a signal did not arrive once")
		}
	}
	for _, c := range []count{noWay, lost, malformed, muted, limited, strangers, late, unverified, forged, exhausted, astray} {
		if n := w.total(c); n > 0 {
			t.Errorf("%d %s", n, countNames[c])
		}
	}
	t.Logf("%d signals, %.2f frames each with answers, %d forwarded, %d duplicate", len(trips), float64(frames)/float64(len(trips)), w.total(forwarded), w.total(duplicate))
}

// TestDeadNeighbours has a fifth of all die without anybody noticing. What the dead should have passed on goes round them.
func TestDeadNeighbours(t *testing.T) {
	for _, tt := range []struct{ n, seeds, signals int }{{50, 10, 200}, {200, 5, 400}, {1000, 2, 1000}} {
		if raceEnabled && tt.n > 200 {
			continue
		}
		arrived, soon, total := 0, 0, 0
		for seed := range tt.seeds {
			a, s := deadNeighbours(newWorld(t, uint64(seed)+10, tt.n), tt.signals)
			arrived, soon, total = arrived+a, soon+s, total+tt.signals
		}
		share := func(n int) float64 { return 100 * float64(n) / float64(total) }
		t.Logf("N=%d: of %d signals %.2f%% arrived, %.2f%% within a second", tt.n, total, share(arrived), share(soon))
		if share(arrived) < 99 {
			t.Errorf("N=%d: %d of %d signals arrived", tt.n, arrived, total)
		}
	}
}

// deadNeighbours counts the signals that arrive, and those that do within a second.
func deadNeighbours(w *world, signals int) (arrived, soon int) {
	alive := func(x *node) bool { return !x.dead }
	for range len(w.order) / 5 {
		w.pick(alive).dead = true
	}
	var trips []trip
	for range signals {
		x := w.pick(alive)
		y := w.pick(func(y *node) bool { return !y.dead && y != x })
		if s := w.signal(x, y); s != nil {
			trips = append(trips, trip{s, x, y, w.now})
		}
		w.run(25 * time.Millisecond)
	}
	w.run(20 * time.Second)
	for _, p := range trips {
		if p.to.got[p.s.ID] > 1 {
			w.t.Fatal("a signal arrived twice")
		}
		at, ok := p.to.at[p.s.ID]
		if !ok {
			continue
		}
		if arrived++; at.Sub(p.at) <= time.Second {
			soon++
		}
	}
	return arrived, soon
}

// TestLiars has some answer no-route to all, or take all and pass nothing on. That costs what went their way: a no-route
// at once sends a signal the other way round, and who gets no sign goes the other way when it asks again.
func TestLiars(t *testing.T) {
	for _, tt := range []struct {
		name         string
		says         kind
		liars        int
		first, twice int // of 1000 signals must arrive, and when asked once again
	}{
		{"one says no route", kindNoRoute, 1, 1000, 1000},
		{"twenty say no route", kindNoRoute, 20, 940, 980},
		{"one keeps all", kindTaken, 1, 970, 1000},
		{"twenty keep all", kindTaken, 20, 750, 950},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 30, 200)
			lie := func(from identity.PeerID, frame []byte) []Send {
				if kindOf(frame) != kindSignal {
					return nil
				}
				f, s, _, err := parseSignalFrame(frame)
				if err != nil {
					t.Fatal(err)
				}
				return []Send{{from, (&answerFrame{tt.says, s.ID, s.Origin, f.Way}).encode()}}
			}
			for range tt.liars {
				w.pick(func(x *node) bool { return x.lies == nil }).lies = lie
			}
			honest := func(x *node) bool { return x.lies == nil }
			first, twice := 0, 0
			for range 1000 {
				x := w.pick(honest)
				y := w.pick(func(y *node) bool { return honest(y) && y != x })
				s := w.signal(x, y)
				w.run(2 * time.Second)
				if s != nil && y.got[s.ID] == 1 {
					first++
					twice++
					continue
				}
				s = w.signal(x, y)
				w.run(20 * time.Second)
				if s != nil && y.got[s.ID] == 1 {
					twice++
				}
			}
			t.Logf("of 1000 signals %d arrived at once, %d when asked again", first, twice)
			if first < tt.first || twice < tt.twice {
				t.Error("too few arrived")
			}
		})
	}
}

// TestFullMesh has 30 members, some sessions down and some members off: a signal arrives whenever one of those asked has
// a session with its target, and nobody passes it on twice.
func TestFullMesh(t *testing.T) {
	w := newWorld(t, 40, 30)
	for _, x := range w.order { // each way of one session in five is down
		var sessions []identity.PeerID
		for _, y := range w.order {
			a, b := PositionOf(testNetwork, x.id.ID()), PositionOf(testNetwork, y.id.ID())
			if x != y && (a.lo^b.lo)%5 > 0 {
				sessions = append(sessions, y.id.ID())
			}
		}
		x.router.SetView(View{Ring: w.ring, Mode: Full, Sessions: sessions})
	}
	w.order[3].dead, w.order[8].dead = true, true
	arrived, total := 0, 0
	for _, x := range w.order {
		for _, y := range w.order {
			if x == y || x.dead || y.dead {
				continue
			}
			s := w.signal(x, y)
			w.run(3 * time.Second)
			if total++; s != nil && y.got[s.ID] == 1 {
				arrived++
			}
		}
	}
	t.Logf("%d of %d arrived", arrived, total)
	if arrived < total*97/100 {
		t.Errorf("%d of %d arrived", arrived, total)
	}
	s := w.signal(w.order[0], w.order[3])
	if w.run(3 * time.Second); s == nil || w.order[0].failed[s.ID] != 1 {
		t.Error("nobody heard that a signal to the dead failed")
	}
}

// TestFloodInMesh has one member send as fast as it can: who gets it is bounded, and the others' signals arrive.
func TestFloodInMesh(t *testing.T) {
	w := newWorld(t, 50, 100)
	flooder := w.order[0]
	flooder.lies = func(identity.PeerID, []byte) []Send { return nil }
	load := map[identity.PeerID]int{}
	w.log = func(from, to identity.PeerID, frame []byte) {
		if from != flooder.id.ID() && kindOf(frame) == kindSignal {
			if _, s, _, _ := parseSignalFrame(frame); s.Origin == flooder.id.ID() {
				load[to]++
			}
		}
	}
	var trips []trip
	const seconds = 10
	number := uint64(0)
	for range seconds * 20 {
		for _, to := range flooder.router.view.Sessions {
			for range 20 { // 400 a second over each session
				number++
				s := &Signal{Origin: flooder.id.ID(), Target: w.pick(func(y *node) bool { return y != flooder }).id.ID(), Type: Call, Time: w.now}
				binary.BigEndian.PutUint64(s.ID[:], number)
				body := s.encode()
				sig := make([]byte, 64)
				binary.BigEndian.PutUint64(sig, number)
				w.valid[sha256.Sum256(slices.Concat(s.Origin[:], sig, body))] = true
				w.send(flooder, Send{to, (&signalFrame{kindSignal, body, sig, maxTTL, wayBefore}).encode()})
			}
		}
		x := w.pick(func(x *node) bool { return x != flooder })
		y := w.pick(func(y *node) bool { return y != flooder && y != x })
		trips = append(trips, trip{w.signal(x, y), x, y, w.now})
		w.run(50 * time.Millisecond)
	}
	w.run(5 * time.Second)
	arrived := 0
	for _, p := range trips {
		if p.s != nil && p.to.got[p.s.ID] == 1 {
			arrived++
		}
	}
	most := 0
	for _, n := range load {
		most = max(most, n)
	}
	sessions := len(flooder.router.view.Sessions)
	t.Logf("%d of %d others' signals arrived; the flood of %d frames/s made at most %.0f/s for one, %d/s let in", arrived, len(trips), 400*sessions, float64(most)/seconds, rateOrigin*sessions)
	if arrived < len(trips)*98/100 {
		t.Error("others were starved")
	}
	if most > seconds*rateOrigin*sessions*2 {
		t.Errorf("%d frames of a flood at one member", most)
	}
}
