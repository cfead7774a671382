package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay/internal/outbox"
)

const (
	// pulse is how often the writer looks whether the relay is alive.
	pulse = time.Second
	// quiet is how long the relay may say nothing while something is sent, before it is asked.
	quiet = 2 * time.Second
	// silence is how long it may then not answer.
	silence = 3 * time.Second
	// writeTime is how long a block of 16 KiB may take to be written, or an eighth less.
	writeTime = 5 * time.Second
)

// ErrDatagram is returned by Send for a datagram that fits no frame: empty, or too long.
var ErrDatagram = errors.New("relay: datagram does not fit a frame")

// ErrQueueFull is returned by Send when older datagrams had to be dropped to make room, or these did not fit.
var ErrQueueFull = errors.New("relay: queue is full")

// Run carries datagrams until the context or the stream ends, and closes the stream. Errors: ErrRestarting, ErrReplaced,
// ErrSilent, those of the context or of the stream.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { c.stream.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() {
		cancel(c.write(ctx))
	})
	cancel(c.read())
	wg.Wait()
	c.over.Store(true)
	dropped, _ := c.box.Close()
	c.count.unsent.Add(uint64(dropped))
	c.stream.Close()
	return context.Cause(ctx)
}

// Send queues datagrams for a node: signals (urgent) or data. It never blocks: where there is no room, the oldest of what
// waits is dropped and counted. Errors: ErrDatagram, of which none was queued; ErrQueueFull, of which some were dropped;
// net.ErrClosed after Run. borrowed: pkts are only used during the call and not changed.
func (c *Client) Send(to identity.PeerID, pkts [][]byte, urgent bool) error {
	if c.over.Load() {
		return net.ErrClosed
	}
	greatest := min(c.hello.MaxFrame-AddrLen, MaxDatagram)
	for _, p := range pkts {
		if len(p) == 0 || len(p) > greatest {
			return ErrDatagram
		}
	}
	class, t := outbox.Data, TypeSend
	if urgent {
		class, t = outbox.Urgent, TypeSendUrgent
	}
	dropped := 0
	for len(pkts) > 0 {
		n := 1
		if !urgent {
			n = c.train(pkts)
		}
		dropped += c.put(class, t, to, pkts[:n])
		pkts = pkts[n:]
	}
	if dropped > 0 {
		c.count.unsent.Add(uint64(dropped))
		return ErrQueueFull
	}
	return nil
}

// train is how many of the first datagrams fit one train: all of one size but the last, in a record.
func (c *Client) train(pkts [][]byte) int {
	size := len(pkts[0])
	room := min(c.hello.MaxFrame, outbox.BlockSize-HeaderLen) - AddrLen - TrainLen
	n := 0
	for _, p := range pkts {
		if len(p) > size || len(p) > room {
			break
		}
		room -= len(p)
		n++
		if len(p) < size {
			break
		}
	}
	return max(n, 1)
}

// put queues one frame with one datagram, or a train of several.
func (c *Client) put(class outbox.Class, t Type, to identity.PeerID, pkts [][]byte) (dropped int) {
	payload := 0
	for _, p := range pkts {
		payload += len(p)
	}
	var space [HeaderLen + AddrLen + TrainLen]byte
	head := space[:0]
	if len(pkts) > 1 {
		head = AppendTrainHeader(head, TypeSendTrain, to, len(pkts[0]), payload)
	} else {
		head = AppendHeader(head, t, AddrLen+payload)
		head = append(head, to[:]...)
	}
	load := outbox.Load{Head: head, Parts: pkts, Frames: 1, Packets: len(pkts), Payload: payload}
	wake, dropped := c.box.Append(class, binary.BigEndian.Uint32(to[:]), &load)
	if wake {
		c.wakeWriter()
	}
	return dropped
}

// sendOwn queues a frame of the protocol.
func (c *Client) sendOwn(frame []byte) {
	if wake, _ := c.box.Append(outbox.Urgent, 0, &outbox.Load{Head: frame, Frames: 1}); wake {
		c.wakeWriter()
	}
}

func (c *Client) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ping asks for a pong. It bears the time, which is nobody's business but this client's and says nothing to others.
func (c *Client) ping(now time.Time) {
	frame := AppendHeader(make([]byte, 0, HeaderLen+8), TypePing, 8)
	c.sendOwn(binary.BigEndian.AppendUint64(frame, uint64(now.Sub(c.began))))
	c.count.pings.Add(1)
}

// keepAlive answers the relay's, unless something was said lately.
func (c *Client) keepAlive() {
	if time.Since(c.began)-time.Duration(c.wrote.Load()) > c.hello.KeepAlive/4 {
		c.sendOwn(AppendHeader(nil, TypeKeepAlive, 0))
	}
}

// write empties the outbox into the stream and keeps the connection alive.
func (c *Client) write(ctx context.Context) error {
	heart := heart{keepAlive: jitter(c.hello.KeepAlive)}
	ticks := time.NewTimer(pulse)
	defer ticks.Stop()
	soon := true // the timer fires within a pulse
	c.ping(time.Now())
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-ticks.C:
			switch heart.beat(now, c.Heard(), c.lastWrote()) {
			case ask:
				c.ping(now)
			case dead:
				return ErrSilent
			}
			next := heart.next(now, c.Heard(), c.lastWrote())
			soon = next <= pulse
			ticks.Reset(next)
		case <-c.wake:
			if err := c.flush(); err != nil {
				return err
			}
			if !soon {
				soon = true
				ticks.Reset(pulse)
			}
		}
	}
}

// lastWrote is when something was last written.
func (c *Client) lastWrote() time.Time { return c.began.Add(time.Duration(c.wrote.Load())) }

// flush writes all there is.
func (c *Client) flush() error {
	var space [outbox.MaxBatch]*outbox.Block
	for {
		batch, _ := c.box.Take(space[:0])
		if len(batch) == 0 {
			return nil
		}
		for _, block := range batch {
			if err := c.writeBlock(block); err != nil {
				return err
			}
		}
		outbox.Release(batch)
	}
}

// writeBlock writes frames as one record.
func (c *Client) writeBlock(block *outbox.Block) error {
	now := time.Now()
	if now.Sub(c.writeArmed) >= writeTime/8 { // not for every write
		c.writeArmed = now
		if err := c.stream.SetWriteDeadline(now.Add(writeTime)); err != nil {
			return err
		}
	}
	if _, err := c.stream.Write(block.Bytes()); err != nil {
		return err
	}
	c.wrote.Store(int64(now.Sub(c.began)))
	c.count.sent.Add(uint64(block.Packets))
	c.count.sentBytes.Add(uint64(block.Payload))
	return nil
}
