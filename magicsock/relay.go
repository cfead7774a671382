package magicsock

import (
	"context"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	// relayQueue is how many datagrams of the relay leg wait to be read. When full, the newest is dropped.
	relayQueue = 512
	// relayBatch is how many of them are handed on at once.
	relayBatch = 64
)

// relayLeg carries datagrams to a peer when no direct path does. Send must not block; a full queue drops.
type relayLeg interface {
	Send(to identity.PeerID, pkt []byte) error
}

// relayPacket is a datagram that the relay leg brought.
type relayPacket struct {
	from identity.PeerID
	pkt  []byte
}

// DeliverRelayed takes a datagram of a peer from the relay leg. It keeps pkt.
func (c *Conn) DeliverRelayed(from identity.PeerID, pkt []byte) {
	select {
	case c.relayed <- relayPacket{from, pkt}:
	default:
		c.core.count.relayFull.Add(1)
	}
}

// receiveRelayed reads the relay leg.
func (in *intake) receiveRelayed(ctx context.Context) {
	c := in.conn
	batch := make([]relayPacket, 0, relayBatch)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.ended:
			return
		case first := <-c.relayed:
			batch = append(batch[:0], first)
		}
		for more := true; more && len(batch) < relayBatch; {
			select {
			case next := <-c.relayed:
				batch = append(batch, next)
			default:
				more = false
			}
		}
		now := time.Now()
		in.out = in.out[:0]
		in.name(now, batch)
		in.sortRelayed(now)
		in.handOn(now)
		clear(batch)
		clear(in.out[:cap(in.out)]) // the datagrams are not ours to keep alive
	}
}

// name makes trains of relayed datagrams, with the handles of the members that the relay names as their senders.
func (in *intake) name(now time.Time, batch []relayPacket) {
	in.conn.doAt(now, func(core *core) {
		for _, r := range batch {
			p := core.peer(now, r.from)
			if p == nil || len(r.pkt) == 0 {
				core.count.relayUnknown.Add(1)
				continue
			}
			in.out = append(in.out, datagram.Train{Data: r.pkt, Size: len(r.pkt), From: datagram.Source{Relay: p.handle}})
		}
	})
}

// sortRelayed keeps WireGuard's datagrams and handles the others.
func (in *intake) sortRelayed(now time.Time) {
	kept := in.out[:0]
	for i := range in.out {
		if t := &in.out[i]; isWireGuard(t.Data) {
			kept = append(kept, *t)
		} else {
			in.conn.handleOwn(now, &t.From, t.Data)
		}
	}
	in.out = kept
}
