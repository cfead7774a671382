package magicsock

import (
	"errors"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/magicsock/udp"
)

// emit sends what core queued. Failures are counted: the pings that are due anyway find out what they mean.
func (c *Conn) emit(s send) {
	if s.relay != nil {
		if err := c.cfg.Relay.Send(s.relay.id, s.pkt); err != nil {
			c.core.count.sendFail.Add(1)
		}
		return
	}
	if err := c.writeOne(s.to, s.src, s.pkt); err != nil {
		c.core.count.sendFail.Add(1)
		c.log.Debug("send", "endpoint", s.to, "err", err)
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

func (c *Conn) write(to netip.AddrPort, src udp.Source, pkts [][]byte) error {
	if s := c.socketFor(to); s != nil {
		return s.Write(to, src, pkts)
	}
	return errNoSocket
}

func (c *Conn) writeOne(to netip.AddrPort, src udp.Source, pkt []byte) error {
	if s := c.socketFor(to); s != nil {
		return s.WriteOne(to, src, pkt)
	}
	return errNoSocket
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

// sendBy sends by a route, and has its path verified when nothing vouched for it lately.
func (h *handle) sendBy(r *route, now time.Time, pkts [][]byte, ahead bool) {
	size := 0
	for _, p := range pkts {
		size += len(p)
	}
	h.tx.Add(uint64(size))
	src, also := r.src, r.alsoSrc
	src.Ahead, also.Ahead = ahead, ahead
	h.sendLeg(r.to, src, r.relay, pkts)
	if r.double && r.budget.Add(-int64(size)) > 0 {
		h.sendLeg(r.also, also, r.alsoRelay, pkts)
	}
	stamp := h.stamp(now)
	h.use(stamp)
	if h.stale(stamp) {
		h.conn.doAt(now, func(core *core) {
			if p := core.peers[h.id]; p != nil && p.handle == h {
				core.verify(now, p)
			}
		})
	}
}

func (h *handle) sendLeg(to netip.AddrPort, src udp.Source, relay bool, pkts [][]byte) {
	if !relay {
		if err := h.conn.write(to, src, pkts); err != nil {
			h.conn.core.count.sendFail.Add(1)
			h.trusted.Store(0)
		}
		return
	}
	for _, p := range pkts {
		if err := h.conn.cfg.Relay.Send(h.id, p); err != nil {
			h.conn.core.count.relayFull.Add(1)
		}
	}
}
