package magicsock

import (
	"context"
	"fmt"
	"time"

	"github.com/meshnet/meshnet/internal/aqm"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/hop"
	"github.com/meshnet/meshnet/magicsock/udp"
)

const (
	// trainBatch is how many trains are asked of a socket at once; it returns fewer when it holds fewer buffers.
	trainBatch = 8
	// retryAfter is the pause after an error of a socket that nobody replaced.
	retryAfter = 50 * time.Millisecond
)

// Legs is how many legs there are to Receive from: the two families, a few extra sockets that nearly always are none,
// and the relay leg where there is one.
func (c *Conn) Legs() int {
	if c.cfg.Relay != nil {
		return len(c.sockets) + 1
	}
	return len(c.sockets)
}

// Receive reads one leg, of 0 to Legs()-1, until ctx is done or the Conn is closed, and returns nil then. WireGuard
// datagrams go to take, whoever sent them: at most one call per batch, with the time at which the batch was read. What
// belongs to the socket itself is handled on the way. take may change the trains' bytes and must not keep them. Sockets
// that fail or are replaced do not end it. It is called by one goroutine per leg.
func (c *Conn) Receive(ctx context.Context, leg int, take func(now time.Time, trains []datagram.Train)) error {
	in := intake{conn: c, take: take}
	switch {
	case leg >= 0 && leg < len(c.sockets):
		in.receiveUDP(ctx, leg)
	case leg == len(c.sockets) && c.cfg.Relay != nil:
		in.receiveRelayed(ctx)
	default:
		return fmt.Errorf("receive: no leg %d", leg)
	}
	return nil
}

// intake sorts what one leg brings. Owned by the goroutine that calls Receive.
type intake struct {
	conn   *Conn
	take   func(now time.Time, trains []datagram.Train)
	out    []datagram.Train // WireGuard's share of a batch
	frames [][]byte         // of a train that is passed on

	lane    lane
	lull    lull
	passed  time.Time // something went ahead of bulk then
	delay   aqm.Control
	senders []*handle // of the relay leg's datagrams
}

// receiveUDP reads the socket of a family, whichever it is at the time.
func (in *intake) receiveUDP(ctx context.Context, family int) {
	c := in.conn
	wake := c.endReads(ctx, family)
	defer wake()
	trains := make([]datagram.Train, trainBatch)
	for {
		s := c.sockets[family].Load() // before ctx: endReads wakes the socket it finds after ctx is done
		if ctx.Err() != nil {
			return
		}
		n, err := in.read(s, trains)
		if err != nil {
			if !c.awaitSocket(ctx, family, s) {
				return
			}
			continue
		}
		if family >= families {
			c.extras.mark(family-families, trains[:n])
		}
		now := time.Now()
		in.carry(now, s, trains[:n])
		dull := len(in.out) == 0 && in.lane.empty()
		in.bulk(now)
		if pause := in.lull.after(now, n, dull, n < len(trains)); pause > 0 {
			time.Sleep(pause)
		}
	}
}

// read waits for trains, or only looks for them while others wait.
func (in *intake) read(s *udp.Socket, trains []datagram.Train) (int, error) {
	switch {
	case in.lane.full():
		return 0, nil
	case !in.lane.empty():
		if s == nil {
			return 0, nil
		}
		n, err := s.PollTrains(trains)
		if err != nil {
			n = 0 // a read that waits says it again, when nothing is left here
		}
		return n, nil
	case s == nil:
		return 0, errNoSocket
	}
	return s.ReadTrains(trains)
}

// carry hands on what goes ahead, and has the rest wait for its turn.
func (in *intake) carry(now time.Time, s *udp.Socket, trains []datagram.Train) {
	in.out = in.out[:0]
	for i := range trains {
		if trains[i].Ahead {
			in.passed = now
		}
	}
	alone := in.lane.empty() && (fewBytes(trains) || now.Sub(in.passed) > laneAlone)
	for i := range trains {
		t := &trains[i]
		if alone || t.Ahead || !isTransport(t.Data) {
			in.sort(now, t)
			continue
		}
		in.lane.put(*t, s.Keep(i, in.lane.spare(now)))
	}
	in.handOn(now)
}

// bulk hands on what waits, laneTurn bytes of it.
func (in *intake) bulk(now time.Time) {
	if in.lane.empty() {
		return
	}
	in.out = in.out[:0]
	for size := 0; size < laneTurn && !in.lane.empty(); {
		t := in.lane.take()
		size += len(t.Data)
		in.relieve(now, &t)
		in.sort(now, &t)
	}
	in.handOn(now)
	in.lane.done()
}

// endReads makes a blocked read of the family's socket return once ctx is done. Its result undoes that: it is called
// when nobody reads any more.
func (c *Conn) endReads(ctx context.Context, family int) (undo func()) {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		c.setReadDeadline(family, time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-woken
			c.setReadDeadline(family, time.Time{})
		}
	}
}

func (c *Conn) setReadDeadline(family int, t time.Time) {
	if s := c.sockets[family].Load(); s != nil {
		_ = s.SetReadDeadline(t) // of a closed socket, which nobody reads
	}
}

// awaitSocket waits, after socket s failed, for its replacement or for a moment. It reports false when reading is over.
func (c *Conn) awaitSocket(ctx context.Context, family int, s *udp.Socket) bool {
	c.mu.Lock()
	swapped, closed := c.swapped, c.closed
	c.mu.Unlock()
	if closed {
		return false
	}
	if c.sockets[family].Load() != s {
		return true // it was replaced meanwhile
	}
	var again <-chan time.Time
	if s != nil {
		timer := time.NewTimer(retryAfter)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-swapped:
	case <-again:
	}
	return true
}

// handOn gives the batch's WireGuard datagrams away.
func (in *intake) handOn(now time.Time) {
	if len(in.out) > 0 {
		in.take(now, in.out)
	}
}

// relieve drops the first datagram of a train that waited in a queue which does not get shorter.
func (in *intake) relieve(now time.Time, t *datagram.Train) {
	if t.Arrived == 0 {
		return
	}
	// A host's clock that was set meanwhile makes the wait anything at all.
	waited := time.Duration(now.UnixNano() - t.Arrived)
	if waited < 0 || waited > time.Second || t.Size < aqm.Size || !isWireGuard(t.Data[:min(t.Size, len(t.Data))]) {
		return
	}
	if !in.delay.Drop(now, waited) {
		return
	}
	t.Data = t.Data[min(t.Size, len(t.Data)):]
	in.conn.core.count.delayed.Add(1)
}

// sort takes WireGuard's datagrams out of a train, as few trains as their order allows, and handles the others. Nearly
// always that is the whole train.
func (in *intake) sort(now time.Time, t *datagram.Train) {
	for data := t.Data; len(data) > 0; {
		if n := wireGuardRun(data, t.Size); n > 0 {
			in.out = append(in.out, datagram.Train{Data: data[:n:n], Size: min(t.Size, n), From: t.From})
			data = data[n:]
			continue
		}
		if sid, n := hop.Run(data, t.Size); n > 0 && t.From.Via == 0 && t.From.Relay == nil {
			in.sortFrames(now, t, sid, data[:n])
			data = data[n:]
			continue
		}
		n := min(t.Size, len(data))
		in.conn.handleOwn(now, &t.From, data[:n])
		data = data[n:]
	}
}

// wireGuardRun is how many bytes of data, from its beginning, are WireGuard datagrams of a train.
func wireGuardRun(data []byte, size int) (n int) {
	for n < len(data) {
		end := min(n+size, len(data))
		if !isWireGuard(data[n:end]) {
			break
		}
		n = end
	}
	return n
}

// WireGuard message types (https://www.wireguard.com/papers/wireguard.pdf §5.4), the first byte of a datagram that
// goes on with three zeros: the first and the last of them.
const (
	wgInitiation = 1
	wgTransport  = 4
)

// isWireGuard reports whether a datagram is for the data path, which alone knows whether it is authentic.
func isWireGuard(pkt []byte) bool {
	return len(pkt) >= 32 && pkt[0] >= wgInitiation && pkt[0] <= wgTransport && pkt[1] == 0 && pkt[2] == 0 && pkt[3] == 0
}

// isTransport knows WireGuard's data by its type.
func isTransport(pkt []byte) bool { return len(pkt) > 0 && pkt[0] == wgTransport }

// isSTUN knows a STUN message by its magic cookie (RFC 8489 §5).
func isSTUN(pkt []byte) bool {
	return len(pkt) >= 20 && pkt[0] < 4 && pkt[4] == 0x21 && pkt[5] == 0x12 && pkt[6] == 0xA4 && pkt[7] == 0x42
}

// isContact knows a ping or a pong.
func isContact(pkt []byte) bool {
	return len(pkt) > 0 && (disco.Type(pkt[0]) == disco.TypePing || disco.Type(pkt[0]) == disco.TypePong)
}

// isSignal knows a signal of a member.
func isSignal(pkt []byte) bool { return len(pkt) > 0 && disco.Type(pkt[0]) == disco.TypeSignal }

// isRendezvous knows an Intro, a cookie and a Welcome.
func isRendezvous(pkt []byte) bool { return len(pkt) > 0 && pkt[0] >= 0xC1 && pkt[0] <= 0xC3 }

// handleOwn handles a datagram that is not WireGuard's.
func (c *Conn) handleOwn(now time.Time, from *datagram.Source, pkt []byte) {
	switch {
	case isContact(pkt):
		c.doAt(now, func(core *core) { core.handleContact(now, lineOf(from), pkt) })
	case isSignal(pkt):
		c.doAt(now, func(core *core) { core.handleSignal(now, pkt) })
	case from.Relay != nil || from.Via != 0:
		c.core.count.foreign.Add(1)
	case isBind(pkt):
		c.doAt(now, func(core *core) { core.handleBind(now, lineOf(from), pkt) })
	case isRendezvous(pkt):
		c.rendezvous(datagram.Place{Addr: from.Addr}, pkt)
	case isSTUN(pkt) && c.cfg.STUN != nil:
		c.cfg.STUN(from.Addr, pkt)
	case isSTUN(pkt):
		c.core.count.stun.Add(1)
	default:
		c.core.count.foreign.Add(1)
	}
}

func (c *Conn) rendezvous(from datagram.Place, pkt []byte) {
	if c.cfg.Rendezvous != nil {
		c.cfg.Rendezvous(from, pkt)
	}
}

// Reply sends one datagram back to where another came from: from the address it arrived at, or by the relay to the
// member it came from. It is for answers to a sender that no handle stands for yet. borrowed: pkt is only used during
// the call and not changed.
func (c *Conn) Reply(to *datagram.Source, pkt []byte) {
	if to.Relay == nil {
		if err := c.writeOne(lineOf(to), pkt); err != nil {
			c.core.count.sendFail.Add(1)
		}
		return
	}
	h, ours := to.Relay.(*handle)
	if !ours || c.cfg.Relay == nil {
		c.core.count.noRoute.Add(1)
		return
	}
	if err := c.cfg.Relay.Send(h.id, [][]byte{pkt}, true); err != nil {
		c.core.count.relayFull.Add(1)
	}
}
