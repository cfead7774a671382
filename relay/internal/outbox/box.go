package outbox

import "sync"

// Class tells signals from data.
type Class uint8

// The classes. Urgent leaves first.
const (
	Urgent Class = iota
	Data
	classes
)

const (
	flowCount = 8
	// batchBytes is about what Take gives at once.
	batchBytes = 64 << 10
	// urgentBytes is the most of it that signals get while data waits.
	urgentBytes = 32 << 10
	// MaxBatch is how many blocks Take gives at most.
	MaxBatch = batchBytes/BlockSize + 2
)

// Limits bounds a lane.
type Limits struct {
	Bytes  int
	Frames int
}

// Box is the queue of one connection. Safe for concurrent use; guarded by mu.
type Box struct {
	mu     sync.Mutex
	lanes  [classes]lane
	taking bool // a writer was told to come and did not yet find the box empty
	closed bool
}

// lane is what waits of one class.
type lane struct {
	limits Limits
	bytes  int
	frames int
	turn   int // the flow that is next to leave
	flows  [flowCount]flow
}

// flow is what waits of the senders of one hash, oldest first.
type flow struct {
	head, tail *Block
	bytes      int
}

// Init sets the bounds, before anything else.
func (b *Box) Init(urgent, data Limits) {
	b.lanes[Urgent].limits = urgent
	b.lanes[Data].limits = data
}

// Load is what Append is given: whole frames, one behind the other, in Head and the parts together.
type Load struct {
	Head    []byte
	Parts   [][]byte
	Frames  int
	Packets int
	Payload int
}

func (l *Load) size() int {
	n := len(l.Head)
	for _, p := range l.Parts {
		n += len(p)
	}
	return n
}

// Append puts frames last in their flow, a number of the sender, and drops older ones that they leave no room for.
// It returns whether a writer has to be told to Take, and how many datagrams were dropped: those of the load where it
// does not fit at all, or the box is closed. borrowed: the load is copied.
func (b *Box) Append(class Class, flowOf uint32, load *Load) (wake bool, dropped int) {
	n := load.size()
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &b.lanes[class]
	if b.closed || n > l.limits.Bytes {
		return false, load.Packets
	}
	for l.bytes+n > l.limits.Bytes || l.frames+load.Frames > l.limits.Frames {
		packets, any := l.dropOldest()
		if !any {
			break
		}
		dropped += packets
	}
	l.append(&l.flows[flowOf%flowCount], n, load)
	wake = !b.taking
	b.taking = true
	return wake, dropped
}

func (l *lane) append(f *flow, n int, load *Load) {
	block := f.tail
	if block == nil || block.room() < n {
		block = newBlock(n)
		if f.tail == nil {
			f.head = block
		} else {
			f.tail.next = block
		}
		f.tail = block
	}
	block.end += copy(block.buf[block.end:], load.Head)
	for _, p := range load.Parts {
		block.end += copy(block.buf[block.end:], p)
	}
	block.frames += load.Frames
	block.Packets += load.Packets
	block.Payload += load.Payload
	f.bytes += n
	l.bytes += n
	l.frames += load.Frames
}

// dropOldest drops the first frame of the flow that holds most.
func (l *lane) dropOldest() (packets int, dropped bool) {
	f := &l.flows[0]
	for i := range l.flows {
		if l.flows[i].bytes > f.bytes {
			f = &l.flows[i]
		}
	}
	if f.head == nil {
		return 0, false
	}
	n, packets := f.head.dropFirst()
	f.bytes -= n
	l.bytes -= n
	l.frames--
	if f.head.frames == 0 {
		f.pop().free()
	}
	return packets, true
}

func (f *flow) pop() *Block {
	block := f.head
	f.head, block.next = block.next, nil
	if f.head == nil {
		f.tail = nil
	}
	return block
}

// next takes the first block of the flow whose turn it is; nil: nothing waits.
func (l *lane) next() *Block {
	for range flowCount {
		f := &l.flows[l.turn%flowCount]
		l.turn++
		if f.head == nil {
			continue
		}
		block := f.pop()
		n := block.end - block.start
		f.bytes -= n
		l.bytes -= n
		l.frames -= block.frames
		return block
	}
	return nil
}

// Take appends what is to be written next, signals first, to an empty slice: at most MaxBatch blocks. When there is
// nothing, the writer goes, and the next Append says to wake one; closed: none will.
func (b *Box) Take(batch []*Block) (taken []*Block, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	urgent, data := &b.lanes[Urgent], &b.lanes[Data]
	limit := batchBytes
	if data.bytes > 0 {
		limit = urgentBytes
	}
	batch, n := urgent.take(batch, 0, limit)
	batch, _ = data.take(batch, n, batchBytes)
	b.taking = len(batch) > 0
	return batch, b.closed
}

// take appends blocks until n bytes have become limit or more. Small ones join the one before.
func (l *lane) take(batch []*Block, n, limit int) ([]*Block, int) {
	for n < limit && len(batch) < MaxBatch {
		block := l.next()
		if block == nil {
			break
		}
		size := block.end - block.start
		n += size
		if k := len(batch); k > 0 && batch[k-1].room() >= size {
			batch[k-1].swallow(block)
			continue
		}
		batch = append(batch, block)
	}
	return batch, n
}

// Release takes blocks back that were written.
func Release(batch []*Block) {
	for i, block := range batch {
		block.free()
		batch[i] = nil
	}
}

// Close drops everything that waits and refuses what comes later. It returns how many datagrams that were, and whether
// a writer is still to Take that it is closed.
func (b *Box) Close() (dropped int, writing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for i := range b.lanes {
		l := &b.lanes[i]
		for block := l.next(); block != nil; block = l.next() {
			dropped += block.Packets
			block.free()
		}
	}
	return dropped, b.taking
}

// Waiting is how many bytes wait.
func (b *Box) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lanes[Urgent].bytes + b.lanes[Data].bytes
}
