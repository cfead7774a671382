package relay

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// Errors that end Run, besides those of the stream and of its context.
var (
	ErrRestarting = errors.New("relay restarts")
	ErrReplaced   = errors.New("another connection uses this node's key")
	ErrSilent     = errors.New("relay is silent")
)

// read hands on what comes, until the stream ends.
func (c *Client) read() error {
	for {
		for f, ok := c.reader.Next(); ok; f, ok = c.reader.Next() {
			if err := c.handle(f); err != nil {
				return err
			}
		}
		c.deliver()
		if _, err := c.reader.Fill(); err != nil {
			return err
		}
		c.chunk.buf = c.reader.Buffer()
		c.heard.Store(int64(time.Since(c.began)))
	}
}

// handle takes one frame. Datagrams are collected in the chunk's batch.
func (c *Client) handle(f Frame) error {
	p := f.Payload()
	switch f.Type {
	case TypeRecv, TypeRecvUrgent, TypeRecvTrain:
		c.collect(f.Type, p)
	case TypeKeepAlive:
		c.keepAlive()
	case TypePing:
		if len(p) == 8 {
			c.sendOwn(AppendFrame(nil, TypePong, p))
		}
	case TypePong:
		c.pong(p)
	case TypeRefused:
		return refusal(p)
	case TypeGone, TypeRestarting, TypeHealth:
		return c.notice(f.Type, p)
	default:
		c.count.skipped.Add(1)
	}
	return nil
}

// collect takes the datagrams of a Recv frame into the batch.
func (c *Client) collect(t Type, p []byte) {
	data, size, err := Datagrams(t, p)
	if err != nil {
		c.count.malformed.Add(1)
		return
	}
	from := identity.PeerID(p[:AddrLen])
	for len(data) > size {
		c.chunk.batch = append(c.chunk.batch, datagram.Relayed{From: from, Data: data[:size:size]})
		data = data[size:]
	}
	c.chunk.batch = append(c.chunk.batch, datagram.Relayed{From: from, Data: data})
}

// deliver lends the batch, and the chunk with it.
func (c *Client) deliver() {
	n := len(c.chunk.batch)
	if n == 0 {
		return
	}
	size := 0
	for i := range c.chunk.batch {
		size += len(c.chunk.batch[i].Data)
	}
	if c.cfg.Deliver == nil || c.pool.full() {
		c.count.undelivered.Add(uint64(n))
		c.chunk.batch = c.chunk.batch[:0]
		return
	}
	c.count.received.Add(uint64(n))
	c.count.receivedBytes.Add(uint64(size))
	c.chunk.lend()
	c.cfg.Deliver(c.chunk.batch, c.chunk.done)
	if c.chunk.keep() {
		c.chunk.batch = c.chunk.batch[:0]
		return
	}
	c.chunk = c.pool.take()
	if _, ok := c.reader.SetBuffer(c.chunk.buf); !ok { // the beginning of a greater frame
		c.chunk.buf = make([]byte, len(c.reader.Buffer()))
		c.reader.SetBuffer(c.chunk.buf)
	}
}

// notice hands on what the relay says about itself and others.
func (c *Client) notice(t Type, p []byte) error {
	switch t {
	case TypeGone:
		node, reason, err := ParseGone(p)
		if err != nil {
			return err
		}
		if node == c.cfg.Identity.ID() && reason == GoneReplaced {
			return ErrReplaced
		}
		if c.cfg.Gone != nil {
			c.cfg.Gone(node, reason)
		}
	case TypeRestarting:
		in, try, err := ParseRestarting(p)
		if err != nil {
			return err
		}
		if c.cfg.Restarting != nil {
			c.cfg.Restarting(in, try)
		}
		return ErrRestarting // nothing comes after it
	case TypeHealth:
		if c.cfg.Health != nil {
			c.cfg.Health(foreignText(p))
		}
	}
	return nil
}

// pong takes the answer to a ping, which bears the time it was asked at.
func (c *Client) pong(p []byte) {
	if len(p) != 8 {
		c.count.malformed.Add(1)
		return
	}
	asked := time.Duration(binary.BigEndian.Uint64(p))
	if rtt := time.Since(c.began) - asked; asked >= 0 && rtt > 0 && rtt < time.Hour {
		c.rtt.Store(int64(rtt))
	}
}
