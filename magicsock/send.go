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
	if err := c.write(s.to, s.src, [][]byte{s.pkt}); err != nil {
		c.core.count.sendFail.Add(1)
		c.log.Debug("send", "endpoint", s.to, "err", err)
	}
}

var errNoSocket = errors.New("no socket of that family")

func (c *Conn) write(to netip.AddrPort, src udp.Source, pkts [][]byte) error {
	family := family4
	if to.Addr().Is6() {
		family = family6
	}
	s := c.sockets[family].Load()
	if s == nil {
		return errNoSocket
	}
	return s.Write(to, src, pkts)
}

// sendBatch sends WireGuard datagrams to a peer by its route. It never waits for core.
func (c *Conn) sendBatch(ep *endpoint, pkts [][]byte) {
	now := time.Now()
	if !c.outgoing(now, ep, pkts) {
		return
	}
	r := ep.route.Load()
	if r == nil {
		c.core.count.noRoute.Add(uint64(len(pkts)))
		c.Contact(ep.id)
		return
	}
	size := 0
	for _, p := range pkts {
		size += len(p)
	}
	ep.tx.Add(uint64(size))
	c.sendLeg(ep, r.to, r.src, r.relay, pkts)
	if r.double && r.budget.Add(-int64(size)) > 0 {
		c.sendLeg(ep, r.also, r.alsoSrc, r.alsoRelay, pkts)
	}
	if ep.stale(now) {
		c.do(func(now time.Time, core *core) {
			if p := core.peers[ep.id]; p != nil && p.ep == ep {
				core.verify(now, p)
			}
		})
	}
}

func (c *Conn) sendLeg(ep *endpoint, to netip.AddrPort, src udp.Source, relay bool, pkts [][]byte) {
	if !relay {
		if err := c.write(to, src, pkts); err != nil {
			c.core.count.sendFail.Add(1)
			ep.trusted.Store(0)
		}
		return
	}
	for _, p := range pkts {
		if err := c.cfg.Relay.Send(ep.id, p); err != nil {
			c.core.count.relayFull.Add(1)
		}
	}
}
