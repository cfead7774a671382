package magicsock

import (
	"errors"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// emit sends what core queued. Failures are counted: the pings that are due anyway find out what they mean.
func (c *Conn) emit(s *send) {
	if s.signal {
		if c.cfg.Signal(s.peer.id, s.pkt) {
			c.core.count.callsCarried.Add(1)
		}
		return
	}
	if s.relay {
		if err := c.cfg.Relay.Send(s.peer.id, [][]byte{s.pkt}, true); err != nil {
			c.core.count.relayFull.Add(1)
		}
		return
	}
	err := c.writeOne(s.line, s.pkt)
	switch {
	case err == nil:
	case errors.Is(err, udp.ErrTooLarge) && s.peer != nil:
		s.peer.refused(time.Now(), s.way, len(s.pkt))
	default:
		c.core.count.sendFail.Add(1)
		c.log.Debug("send", "endpoint", s.addr, "err", err)
	}
}

var errNoSocket = errors.New("no socket of that family")

// socketFor is the socket that reaches an address; nil where there is none.
func (c *Conn) socketFor(to netip.AddrPort) *udp.Socket {
	family := family4
	if to.Addr().Is6() {
		family = family6
	}
	return c.sockets[family].Load()
}

func (c *Conn) write(to line, pkts [][]byte) error {
	if to.socket != 0 {
		return c.extras.write(to, pkts)
	}
	if s := c.socketFor(to.addr); s != nil {
		return s.Write(to.addr, to.source(), pkts)
	}
	return errNoSocket
}

func (c *Conn) writeOne(to line, pkt []byte) error {
	if to.socket != 0 {
		return c.extras.write(to, [][]byte{pkt})
	}
	if s := c.socketFor(to.addr); s != nil {
		return s.WriteOne(to.addr, to.source(), pkt)
	}
	return errNoSocket
}

// SendRendezvous sends a packet of joining: from the socket, or by relay servers. borrowed: pkt is only used during the
// call and not changed.
func (c *Conn) SendRendezvous(to datagram.Place, pkt []byte) {
	if !to.IsRelay() {
		c.emit(&send{line: line{way: way{addr: to.Addr}}, pkt: pkt})
		return
	}
	if c.cfg.Relay == nil {
		c.core.count.noRoute.Add(1)
		return
	}
	if err := c.cfg.Relay.Send(to.Relay, [][]byte{pkt}, true); err != nil {
		c.core.count.relayFull.Add(1)
	}
}

// SendSTUN sends a STUN message from the socket that reaches the address. borrowed: pkt is only used during the call and
// not changed.
func (c *Conn) SendSTUN(to netip.AddrPort, pkt []byte) {
	c.emit(&send{line: line{way: way{addr: to}}, pkt: pkt})
}

// Send sends WireGuard datagrams to the peer by its route. It never waits for a path: without one, they are dropped,
// counted, and the peer is looked for.
func (h *handle) Send(now time.Time, pkts [][]byte) { h.send(now, pkts, false) }

// SendAhead is Send for datagrams that are taken before bulk on the other side.
func (h *handle) SendAhead(now time.Time, pkts [][]byte) { h.send(now, pkts, true) }

func (h *handle) send(now time.Time, pkts [][]byte, ahead bool) {
	if r := h.route.Load(); r != nil {
		h.sendBy(r, now, pkts, ahead)
		return
	}
	h.sendAnew(now, pkts, ahead)
}

// sendAnew sends by a handle without a route: that of a peer without a path, or of one that was forgotten. Who has the
// key now may have another handle, with a path.
func (h *handle) sendAnew(now time.Time, pkts [][]byte, ahead bool) {
	var heir *handle
	var r *route
	h.conn.doAt(now, func(core *core) {
		p := core.peerByKey(now, h.wg)
		if p == nil {
			return
		}
		if heir, r = p.handle, p.handle.route.Load(); r == nil && p.known {
			core.want(now, p)
		}
	})
	if r == nil {
		h.conn.core.count.noRoute.Add(uint64(len(pkts)))
		return
	}
	heir.sendBy(r, now, pkts, ahead)
}

// sendBy sends by a route, once its path is verified when nothing vouched for it lately.
func (h *handle) sendBy(r *route, now time.Time, pkts [][]byte, ahead bool) {
	size, largest := 0, 0
	for _, p := range pkts {
		size += len(p)
		largest = max(largest, len(p))
	}
	if int64(largest) > h.largest.Load() {
		h.largest.Store(int64(largest))
	}
	stamp := h.stamp(now)
	h.use(stamp)
	if h.stale(stamp) {
		r = h.verified(now, r)
	}
	if !r.double {
		h.sendLeg(now, &r.first, pkts, size, largest, ahead)
		return
	}
	if r.budget.Add(-int64(size)) > 0 {
		h.sendLeg(now, &r.first, pkts, size, largest, ahead)
	}
	h.sendLeg(now, &r.second, pkts, size, largest, ahead)
}

// verified has core look at the path, and returns the route since.
func (h *handle) verified(now time.Time, r *route) *route {
	h.conn.doAt(now, func(core *core) {
		if p := core.peers[h.id]; p != nil && p.handle == h {
			core.verify(now, p)
		}
	})
	if next := h.route.Load(); next != nil {
		return next
	}
	return r
}

func (h *handle) sendLeg(now time.Time, l *leg, pkts [][]byte, size, largest int, ahead bool) {
	l.meter.tx.Add(uint64(size))
	h.kinds[l.rank()].tx.Add(uint64(size))
	if l.relay {
		if err := h.conn.cfg.Relay.Send(h.id, pkts, ahead); err != nil {
			h.conn.core.count.relayFull.Add(uint64(len(pkts)))
		}
		return
	}
	to := l.line
	to.local.Ahead, to.local.Fragment = ahead, l.whole > 0 && largest > l.whole
	switch err := h.conn.write(to, pkts); {
	case err == nil:
	case errors.Is(err, udp.ErrTooLarge):
		h.refused(now, l.way, largest)
	default:
		h.conn.core.count.sendFail.Add(1)
		h.trusted.Store(0)
	}
}

// refused tells core that a link of this host does not take a datagram.
func (h *handle) refused(now time.Time, by way, size int) {
	h.conn.core.count.tooLarge.Add(1)
	h.conn.doAt(now, func(core *core) {
		if p := core.peers[h.id]; p != nil && p.handle == h {
			core.tooLarge(now, p, by, size)
		}
	})
}
