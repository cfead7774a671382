package sim

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Epoch is when every world begins, which is also when testing/synctest bubbles do.
var Epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// World is a clock and what will happen on it. Owned by one goroutine.
type World struct {
	seed   uint64
	now    time.Time
	order  uint64 // of scheduling, so that simultaneous events have one
	queue  queue
	rand   *rand.Rand
	drawn  uint64 // random streams handed out
	events uint64
}

// New makes a world in which nothing is going to happen yet.
func New(seed uint64) *World {
	w := &World{seed: seed, now: Epoch}
	w.rand = w.stream()
	return w
}

// Seed is what it was made with.
func (w *World) Seed() uint64 { return w.seed }

// Now is the world's time.
func (w *World) Now() time.Time { return w.now }

// Events is the number of events that have happened.
func (w *World) Events() uint64 { return w.events }

// Rand is the source of all random choices of what runs in the world. The networks have their own, so that their
// losses do not change with how often it is used.
func (w *World) Rand() *rand.Rand { return w.rand }

// stream makes a source of its own for one part of the world.
func (w *World) stream() *rand.Rand {
	w.drawn++
	return rand.New(rand.NewPCG(w.seed, w.drawn))
}

// After calls fn when d has passed; a negative d counts as 0.
func (w *World) After(d time.Duration, fn func()) *Timer { return w.At(w.now.Add(d), fn) }

// At calls fn at t, or as soon as the world runs when t has passed. fn is never called from within At. Events of the
// same time happen in the order in which they were scheduled.
func (w *World) At(t time.Time, fn func()) *Timer {
	if t.Before(w.now) {
		t = w.now
	}
	w.order++
	e := &Timer{world: w, at: t, order: w.order, fn: fn}
	heap.Push(&w.queue, e)
	return e
}

// Run lets everything happen up to and including until, which is then the world's time.
func (w *World) Run(until time.Time) {
	for w.due(until) {
		w.step()
	}
	if w.now.Before(until) {
		w.now = until
	}
}

// RunFor lets d pass.
func (w *World) RunFor(d time.Duration) { w.Run(w.now.Add(d)) }

// RunUntil lets events happen until cond holds, and reports whether it came to that within limit. It asks before the
// first event and after each.
func (w *World) RunUntil(cond func() bool, limit time.Duration) bool {
	end := w.now.Add(limit)
	for !cond() {
		if !w.due(end) {
			w.now = end
			return false
		}
		w.step()
	}
	return true
}

func (w *World) due(until time.Time) bool { return len(w.queue) > 0 && !w.queue[0].at.After(until) }

func (w *World) step() {
	e := heap.Pop(&w.queue).(*Timer)
	w.now = e.at
	w.events++
	e.fn()
}

// Timer is something that is going to happen.
type Timer struct {
	world *World
	at    time.Time
	order uint64
	index int // in the queue; -1 when it is not there any more
	fn    func()
}

// Stop prevents it, and reports whether it still could.
func (t *Timer) Stop() bool {
	if t.index < 0 {
		return false
	}
	heap.Remove(&t.world.queue, t.index)
	return true
}

// queue is a heap by (at, order).
type queue []*Timer

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].order < q[j].order
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	t := x.(*Timer)
	t.index = len(*q)
	*q = append(*q, t)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	t.index = -1
	return t
}
