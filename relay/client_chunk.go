package relay

import (
	"sync"
	"sync/atomic"

	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	// chunkSize holds the greatest frame that is usual.
	chunkSize = 66 << 10
	// maxLent is how many chunks may be away: about 4 MiB for a consumer that stalls.
	maxLent = 64
)

// chunk is a read buffer, with the datagrams found in it. It belongs to the reader, or to Deliver's side until done.
type chunk struct {
	buf   []byte
	batch []datagram.Relayed
	done  func() // the chunk's own, made once
	away  atomic.Bool
	pool  *chunkPool
}

var chunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, chunkSize)} }}

// chunkPool counts the chunks of one client that are away. The chunks themselves are everybody's.
type chunkPool struct {
	lent atomic.Int64
}

func (p *chunkPool) take() *chunk {
	c := chunks.Get().(*chunk)
	if c.done == nil {
		c.done = c.giveBack
	}
	c.pool = p
	return c
}

// full reports whether no further chunk may be lent.
func (p *chunkPool) full() bool { return p.lent.Load() >= maxLent }

// lend marks the chunk as away, until done is called.
func (c *chunk) lend() {
	c.away.Store(true)
	c.pool.lent.Add(1)
}

// giveBack is done. Whoever of the reader and the borrower is last to let the chunk go puts it back.
func (c *chunk) giveBack() {
	pool := c.pool
	if c.away.CompareAndSwap(true, false) {
		pool.lent.Add(-1)
		return
	}
	pool.lent.Add(-1)
	c.free()
}

// keep reports whether the reader may go on with the chunk. If not, it is the borrower's alone.
func (c *chunk) keep() bool {
	return !c.away.CompareAndSwap(true, false)
}

func (c *chunk) free() {
	if len(c.buf) != chunkSize {
		c.buf = make([]byte, chunkSize)
	}
	clear(c.batch)
	c.batch = c.batch[:0]
	c.pool = nil
	chunks.Put(c)
}
