package relayserver

import (
	"errors"
	"os"
	"time"

	"github.com/meshnet/meshnet/relay/internal/outbox"
)

// writeTime is how long a block of 16 KiB may take to be written, or an eighth less.
const writeTime = 2 * time.Second

// put queues frames for the client. It never blocks.
func (c *session) put(class outbox.Class, flow uint32, load *outbox.Load) {
	wake, dropped := c.box.Append(class, flow, load)
	if dropped > 0 {
		c.server.count.queueFull.Add(uint64(dropped))
	}
	if wake {
		c.wake()
	}
}

// urgent queues a frame of the server's own.
func (c *session) urgent(frame []byte) {
	c.put(outbox.Urgent, 0, &outbox.Load{Head: frame, Frames: 1})
}

// wake starts the writer. It is called once for every time that the outbox stops being empty, so there is never a second.
func (c *session) wake() {
	go c.start()
}

// write empties the outbox into the stream and ends. After an error it goes on, without writing.
func (c *session) write() {
	var space [outbox.MaxBatch]*outbox.Block
	var failed bool
	for {
		batch, closed := c.box.Take(space[:0])
		if len(batch) == 0 {
			if closed {
				close(c.written)
			}
			return
		}
		if !failed {
			if err := c.writeAll(batch); err != nil {
				failed = true
				c.end(c.stall(err))
			}
		}
		if failed {
			c.lose(batch)
		}
		outbox.Release(batch)
	}
}

// stall makes an own error of a deadline that passed.
func (c *session) stall(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.server.count.stalled.Add(1)
	return errStalled
}

// lose counts what was not written.
func (c *session) lose(batch []*outbox.Block) {
	for _, block := range batch {
		c.server.count.left.Add(uint64(block.Packets))
	}
}

// writeAll writes blocks, each as one record.
func (c *session) writeAll(batch []*outbox.Block) error {
	for _, block := range batch {
		now := time.Now()
		c.wrote.Store(now.UnixNano())
		if now.Sub(c.writeArmed) >= writeTime/8 { // not for every write
			c.writeArmed = now
			if err := c.conn.SetWriteDeadline(now.Add(writeTime)); err != nil {
				return err
			}
		}
		if _, err := c.conn.Write(block.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// end closes the stream, which ends the reader. The first err is why.
func (c *session) end(err error) {
	if err != nil {
		c.why.CompareAndSwap(nil, &err)
	}
	if c.closing.CompareAndSwap(false, true) {
		close(c.ended)
		c.conn.Close()
	}
}

// leaveWith writes a last frame, unless there was one. The client then closes the stream; if it does not in time, the
// server does. Closing at once might destroy the frame, when there is something of the client that was not read.
func (c *session) leaveWith(frame []byte, why error) bool {
	if !c.leaving.CompareAndSwap(false, true) {
		return false
	}
	if why != nil {
		c.why.CompareAndSwap(nil, &why)
	}
	c.urgent(frame)
	c.timer.Reset(farewell)
	return true
}
