package tunnel

import (
	"sync"
	"time"
)

// The queue's bounds. In bytes, since a limit in packets is loss with small ones and standing delay with large ones.
const (
	queueBytes = 2 << 20
	// fairTurns is how many batches the queue gives before the OS TUN has a turn, of at most fairWait.
	fairTurns = 4
	fairWait  = 200 * time.Microsecond
)

// queue holds packets on their way to the device: from the netstack and from the lot.
//
// Its one reader is either blocked in wait (no OS TUN), or in a Read of the TUN's file, which a writer interrupts with
// a read deadline in the past. armed tells that a deadline is set; it and the file's deadline change together under
// mu, so a wake-up is never lost and at most one is paid per visit of the reader. Setting a deadline is a call into
// the runtime's poller, not I/O.
type queue struct {
	deadline func(time.Time) error // of the OS TUN's file; nil: the reader uses wait

	mu     sync.Mutex
	cond   sync.Cond // over mu
	items  []*packet // items[head:] are waiting
	head   int
	bytes  int
	armed  bool
	closed bool
}

func newQueue(deadline func(time.Time) error) *queue {
	q := &queue{deadline: deadline}
	q.cond.L = &q.mu
	return q
}

// past is any time before now; the poller looks at nothing else.
var past = time.Unix(1, 0)

// push takes over p, or returns false when the queue is full or closed.
func (q *queue) push(p *packet) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.bytes+len(p.bytes()) > queueBytes {
		return false
	}
	q.compact()
	q.items = append(q.items, p)
	q.bytes += len(p.bytes())
	switch {
	case q.deadline == nil:
		q.cond.Signal()
	case !q.armed:
		q.armed = true
		_ = q.deadline(past)
	}
	return true
}

// compact moves what waits to the front once most of the slice is spent.
func (q *queue) compact() {
	if q.head > 64 && q.head*2 > len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
}

// take copies up to len(bufs) packets out, and makes the TUN's file readable again before it looks.
func (q *queue) take(bufs [][]byte, sizes []int, offset int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.armed {
		q.armed = false
		_ = q.deadline(time.Time{})
	}
	n := 0
	for n < len(bufs) && q.head < len(q.items) {
		p := q.items[q.head]
		q.items[q.head] = nil
		q.head++
		q.bytes -= len(p.bytes())
		sizes[n] = copy(bufs[n][offset:], p.bytes())
		p.free()
		n++
	}
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return n
}

// yield lets the next Read of the OS TUN take what is there already, but wait only shortly, when packets are waiting
// here.
func (q *queue) yield() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head < len(q.items) {
		q.armed = true
		_ = q.deadline(time.Now().Add(fairWait))
	}
}

// forget takes out the packets of p that the lot has copies of.
func (q *queue) forget(p *peer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := q.items[:q.head]
	for _, pkt := range q.items[q.head:] {
		if pkt.kept == p {
			q.bytes -= len(pkt.bytes())
			pkt.free()
			continue
		}
		rest = append(rest, pkt)
	}
	clear(q.items[len(rest):])
	q.items = rest
}

// wait blocks until there is a packet; false means closed.
func (q *queue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.head == len(q.items) && !q.closed {
		q.cond.Wait()
	}
	return !q.closed
}

// close drops what waits. Later pushes fail.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, p := range q.items[q.head:] {
		p.free()
	}
	q.items, q.head, q.bytes = nil, 0, 0
	q.cond.Broadcast()
}
