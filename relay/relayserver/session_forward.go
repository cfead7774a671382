package relayserver

import (
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/internal/outbox"
)

// maxKnown is how many destinations a session remembers. Of more, any is forgotten.
const maxKnown = 1024

// Answers for destinations that are not here, per session.
const (
	goneRate  = 1 // per second
	goneBurst = 3
)

// forwarder collects frames that go one way into runs. Owned by the session's reader.
type forwarder struct {
	dst      identity.PeerID
	class    outbox.Class
	from, to int // the run in the reader's buffer; empty when they are equal
	load     outbox.Load
	known    map[identity.PeerID]*place // destinations that were sent to; nil while there were none

	packets, bytes uint64 // handed on, not yet counted
}

// take adds a Send frame to the run, which then ends with it. Send and Recv frames have one layout: type and address are
// rewritten where they lie.
func (w *forwarder) take(c *session, f relay.Frame) {
	data, size, err := relay.Datagrams(f.Type, f.Payload())
	if err != nil {
		c.server.count.malformed.Add(1)
		return
	}
	class, becomes := outbox.Data, relay.TypeRecv
	switch f.Type {
	case relay.TypeSendUrgent:
		class, becomes = outbox.Urgent, relay.TypeRecvUrgent
	case relay.TypeSendTrain:
		becomes = relay.TypeRecvTrain
	}
	address := f.Raw[relay.HeaderLen:][:relay.AddrLen]
	end := c.in.Offset()
	begin := end - len(f.Raw)
	if begin != w.to || end-w.from > outbox.BlockSize || class != w.class || [relay.AddrLen]byte(address) != w.dst {
		w.flush(c)
		w.from, w.class = begin, class
		w.dst = identity.PeerID(address)
	}
	f.Raw[0] = byte(becomes)
	copy(address, c.id[:])
	w.to = end
	w.load.Frames++
	w.load.Packets += (len(data) + size - 1) / size
	w.load.Payload += len(data)
}

// flush puts the run into its destination's outbox.
func (w *forwarder) flush(c *session) {
	if w.load.Frames == 0 {
		return
	}
	if to := w.find(c); to != nil {
		w.load.Head = c.in.Span(w.from, w.to)
		to.put(w.class, c.flow, &w.load)
		w.packets += uint64(w.load.Packets)
		w.bytes += uint64(w.load.Payload)
	} else {
		w.unknown(c)
	}
	w.load = outbox.Load{}
	w.from, w.to = 0, 0
}

// find is the active session of the run's destination; nil: not here.
func (w *forwarder) find(c *session) *session {
	p := w.known[w.dst]
	if p != nil {
		if to := p.active.Load(); to != nil {
			return to
		}
		delete(w.known, w.dst)
	}
	if p = c.server.places.find(w.dst, c); p == nil {
		return nil
	}
	if w.known == nil {
		w.known = make(map[identity.PeerID]*place)
	}
	if len(w.known) >= maxKnown {
		for id, other := range w.known {
			c.server.places.unwatch(id, other, c)
			delete(w.known, id)
			break
		}
	}
	w.known[w.dst] = p
	return p.active.Load()
}

// unknown answers for a destination that is not here.
func (w *forwarder) unknown(c *session) {
	c.server.count.unknown.Add(uint64(w.load.Packets))
	if !c.gone.Take(time.Now(), goneRate, goneBurst) {
		c.server.count.goneLimited.Add(1)
		return
	}
	c.urgent(relay.AppendGone(nil, w.dst, relay.GoneUnknown))
}

// settle counts what was handed on since the last time, and lets a session that sends be the active one.
func (w *forwarder) settle(c *session, now time.Time) {
	if w.packets == 0 {
		return
	}
	c.server.count.packets.Add(w.packets)
	c.server.count.bytes.Add(w.bytes)
	w.packets, w.bytes = 0, 0
	c.spoke.Store(now.UnixNano())
	if c.place.active.Load() != c {
		c.takeOver(now)
	}
}

// forget tells all destinations that the session is gone.
func (w *forwarder) forget(c *session) {
	for id, p := range w.known {
		c.server.places.unwatch(id, p, c)
	}
	w.known = nil
}
