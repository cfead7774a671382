package magicsock

import (
	"context"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	// relayQueue is how many batches of the relay leg wait to be read. When full, the newest is dropped.
	relayQueue = 64
	// relayTurn is how many datagrams of them are handed on at once.
	relayTurn = 256
)

// relayLeg carries datagrams to a peer by relay servers, when no better path does. No method blocks, nor calls the Conn:
// Reaches and Via are called with its lock held, and only look at memory.
type relayLeg interface {
	// Send queues datagrams; urgent ones go ahead of others. borrowed: pkts are only used during the call. An error says
	// that some were dropped.
	Send(to identity.PeerID, pkts [][]byte, urgent bool) error
	// Reaches reports whether there is a server by which the peer may be reached. RelayChanged tells that it changed.
	Reaches(to identity.PeerID) bool
	// Via names that server; "" when there is none.
	Via(to identity.PeerID) string
}

// relayBatch is what the relay leg brought at once.
type relayBatch struct {
	datagrams []datagram.Relayed
	done      func()
}

// DeliverRelayed takes datagrams that the relay leg brought. They are the Conn's, to change too, until it calls done, which
// it does once: during the call where there is no room for them, else when the data path is through. A nil done is not
// called.
func (c *Conn) DeliverRelayed(batch []datagram.Relayed, done func()) {
	b := relayBatch{batch, done}
	select {
	case <-c.ended:
		b.end()
		return
	default:
	}
	select {
	case c.relayed <- b:
	default:
		c.core.count.relayFull.Add(uint64(len(batch)))
		b.end()
	}
	select {
	case <-c.ended: // meanwhile: nobody else looks any more
		c.dropRelayed()
	default:
	}
}

// RelayChanged tells that the relay leg reaches others than before: a server, or a peer's home, came or went.
func (c *Conn) RelayChanged() {
	c.do(func(now time.Time, core *core) { core.relayChanged(now) })
}

func (b *relayBatch) end() {
	if b.done != nil {
		b.done()
	}
}

// receiveRelayed reads the relay leg.
func (in *intake) receiveRelayed(ctx context.Context) {
	c := in.conn
	defer c.dropRelayed()
	var batches []relayBatch
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.ended:
			return
		case first := <-c.relayed:
			batches = append(batches[:0], first)
		}
		batches = c.moreRelayed(batches)
		now := time.Now()
		in.out = in.out[:0]
		in.name(now, batches)
		done := 0
		for _, b := range batches {
			in.sortRelayed(now, b.datagrams, in.senders[done:])
			done += len(b.datagrams)
		}
		in.handOn(now)
		clear(in.out[:cap(in.out)]) // the datagrams are not ours to keep alive
		for i := range batches {
			batches[i].end()
		}
		clear(batches)
	}
}

// moreRelayed takes what waits beside the first batch, up to a turn.
func (c *Conn) moreRelayed(batches []relayBatch) []relayBatch {
	for count := len(batches[0].datagrams); count < relayTurn; {
		select {
		case next := <-c.relayed:
			batches = append(batches, next)
			count += len(next.datagrams)
		default:
			return batches
		}
	}
	return batches
}

// dropRelayed gives back what nobody is going to read.
func (c *Conn) dropRelayed() {
	for {
		select {
		case b := <-c.relayed:
			c.core.count.relayFull.Add(uint64(len(b.datagrams)))
			b.end()
		default:
			return
		}
	}
}

// name finds the handles of the members that the server names as senders, one for each datagram; nil: we know none.
func (in *intake) name(now time.Time, batches []relayBatch) {
	in.senders = in.senders[:0]
	in.conn.doAt(now, func(core *core) {
		for i := range batches {
			for j := range batches[i].datagrams {
				var h *handle
				if p := core.peer(now, batches[i].datagrams[j].From); p != nil {
					h = p.handle
				}
				in.senders = append(in.senders, h)
			}
		}
	})
}

// sortRelayed takes out WireGuard's datagrams, and handles the others. Whom we do not know may only ask to be let in, or
// answer that.
func (in *intake) sortRelayed(now time.Time, batch []datagram.Relayed, senders []*handle) {
	c := in.conn
	for i := range batch {
		r, from := &batch[i], datagram.Source{}
		if senders[i] != nil {
			from.Relay = senders[i]
		}
		switch {
		case isRendezvous(r.Data):
			c.rendezvous(datagram.Place{Relay: r.From}, r.Data)
		case from.Relay == nil:
			c.core.count.relayUnknown.Add(1)
		case isWireGuard(r.Data):
			in.out = append(in.out, datagram.Train{Data: r.Data, Size: len(r.Data), From: from})
		default:
			c.handleOwn(now, &from, r.Data)
		}
	}
}
