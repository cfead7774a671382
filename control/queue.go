package control

import "container/heap"

// dialQueue holds the members without a session in the order in which they may be dialled: a heap, the one whose backoff
// ended first on top, the lower PeerID of equal ones. Owned by a book.
type dialQueue []*bookEntry

// add puts an entry in, unless it is there.
func (q *dialQueue) add(e *bookEntry) {
	if e.place == 0 {
		heap.Push(q, e)
	}
}

// moved puts an entry where it belongs after its time changed, if it is in the queue.
func (q *dialQueue) moved(e *bookEntry) {
	if e.place > 0 {
		heap.Fix(q, e.place-1)
	}
}

// remove takes an entry out if it is there.
func (q *dialQueue) remove(e *bookEntry) {
	if e.place > 0 {
		heap.Remove(q, e.place-1)
	}
}

// take takes the first out. The queue must not be empty.
func (q *dialQueue) take() *bookEntry { return heap.Pop(q).(*bookEntry) }

// Len, Less, Swap, Push and Pop are what container/heap calls.
func (q dialQueue) Len() int { return len(q) }

func (q dialQueue) Less(i, j int) bool {
	if c := q[i].next.Compare(q[j].next); c != 0 {
		return c < 0
	}
	return q[i].Node.Compare(q[j].Node) < 0
}

func (q dialQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

func (q *dialQueue) Push(v any) {
	e := v.(*bookEntry)
	*q = append(*q, e)
	e.place = len(*q)
}

func (q *dialQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q, e.place = (*q)[:last], 0
	return e
}
