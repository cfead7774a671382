package magicsock

import (
	"net"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// relayQueue is how many datagrams from the relay leg wait for the device. When full, the newest is dropped.
const relayQueue = 512

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

// receiver reads one family's socket for the device. Owned by the goroutine that calls receive.
type receiver struct {
	conn    *Conn
	family  int
	done    <-chan struct{} // the Bind was closed
	metas   []udp.Meta
	waiting [][]byte // initiations let through, not yet handed over
	cached  netip.AddrPort
	cachedE *endpoint
	table   *map[netip.AddrPort]*endpoint // that cachedE is from
}

// receive fills bufs with WireGuard datagrams; what is ours is handled and leaves a size of 0. It returns only
// net.ErrClosed as an error, and only when the Bind was closed.
func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for {
		if len(r.waiting) > 0 {
			sizes[0] = copy(bufs[0], r.waiting[0])
			eps[0] = addrEndpoint{}
			r.waiting = r.waiting[1:]
			return 1, nil
		}
		n, err := r.read(bufs)
		if err != nil {
			return 0, err
		}
		useful := false
		for i := range n {
			sizes[i] = 0
			if eps[i] = r.classify(bufs[i][:r.metas[i].Size], &r.metas[i]); eps[i] != nil {
				sizes[i], useful = r.metas[i].Size, true
			}
		}
		if useful {
			return n, nil
		}
	}
}

// read reads a batch from whatever socket there is now. Errors of a socket lead to a new one, never to the device.
func (r *receiver) read(bufs [][]byte) (int, error) {
	c := r.conn
	for {
		c.mu.Lock()
		swapped, closed := c.swapped, c.closed
		c.mu.Unlock()
		if closed {
			return 0, net.ErrClosed
		}
		s := c.sockets[r.family].Load() // before done: Close marks done, then wakes the sockets it finds
		select {
		case <-r.done:
			return 0, net.ErrClosed
		default:
		}
		if s != nil {
			n, err := s.Read(bufs, r.metas)
			if err == nil && n > 0 {
				return n, nil
			}
		}
		if s != nil && c.sockets[r.family].Load() != s {
			continue // a rebind happened meanwhile
		}
		if err := r.pause(s, swapped); err != nil {
			return 0, err
		}
	}
}

// pause waits for a new socket; a socket that fails without being replaced is tried again after a moment.
func (r *receiver) pause(s *udp.Socket, swapped <-chan struct{}) error {
	var again <-chan time.Time
	if s != nil {
		timer := time.NewTimer(50 * time.Millisecond)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-r.done:
		return net.ErrClosed
	case <-swapped:
	case <-again:
	}
	return nil
}

// classify tells WireGuard datagrams, for which it returns the endpoint, from ours.
func (r *receiver) classify(pkt []byte, meta *udp.Meta) conn.Endpoint {
	c := r.conn
	switch {
	case isWireGuard(pkt):
		return r.wireguard(pkt, meta)
	case len(pkt) > 0 && pkt[0] >= 0xC1 && pkt[0] <= 0xC3:
		if c.cfg.Rendezvous != nil {
			c.cfg.Rendezvous(meta.From, pkt)
		}
	case len(pkt) > 0 && (disco.Type(pkt[0]) == disco.TypePing || disco.Type(pkt[0]) == disco.TypePong):
		r.contact(arrival{addr: meta.From, local: udp.Source{Addr: meta.Local, IfIndex: meta.IfIndex}}, pkt)
	case isSTUN(pkt):
		c.core.count.stun.Add(1)
	default:
		c.core.count.foreign.Add(1)
	}
	return nil
}

func (r *receiver) contact(from arrival, pkt []byte) {
	released := r.conn.do(func(now time.Time, core *core) { core.handleContact(now, from, pkt) })
	r.waiting = append(r.waiting, released...)
}

// isSTUN knows a STUN message by its magic cookie (RFC 8489 §5).
func isSTUN(pkt []byte) bool {
	return len(pkt) >= 20 && pkt[0] < 4 && pkt[4] == 0x21 && pkt[5] == 0x12 && pkt[6] == 0xA4 && pkt[7] == 0x42
}

func (r *receiver) wireguard(pkt []byte, meta *udp.Meta) conn.Endpoint {
	ep := r.lookup(meta.From)
	if pkt[0] != wgInitiation && ep == nil {
		return addrEndpoint{addr: meta.From, src: udp.Source{Addr: meta.Local, IfIndex: meta.IfIndex}}
	}
	if pkt[0] == wgInitiation {
		from := arrival{addr: meta.From, local: udp.Source{Addr: meta.Local, IfIndex: meta.IfIndex}}
		if ep == nil || !r.conn.admit(ep, from, pkt) {
			if ep == nil {
				r.conn.core.count.unconfirmedInitiation.Add(1)
			}
			return nil
		}
	}
	if pkt[0] == wgResponse {
		ep.settle()
	}
	ep.rx.Add(uint64(len(pkt)))
	return ep
}

// admit asks core about an initiation from a peer's address.
func (c *Conn) admit(ep *endpoint, from arrival, pkt []byte) (ok bool) {
	c.do(func(now time.Time, core *core) {
		if p := core.peers[ep.id]; p != nil && p.ep == ep {
			ok = core.admit(now, p, from, pkt)
		}
	})
	return ok
}

// lookup finds the peer of an address; nil: nobody we know. The last answer is kept.
func (r *receiver) lookup(addr netip.AddrPort) *endpoint {
	table := r.conn.byAddr.Load()
	if table == r.table && addr == r.cached {
		return r.cachedE
	}
	r.table, r.cached, r.cachedE = table, addr, (*table)[addr]
	return r.cachedE
}

// receiveRelayed is the receive function of the relay leg.
func (r *receiver) receiveRelayed(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for {
		if len(r.waiting) > 0 {
			sizes[0], eps[0] = copy(bufs[0], r.waiting[0]), addrEndpoint{}
			r.waiting = r.waiting[1:]
			return 1, nil
		}
		var in relayPacket
		select {
		case <-r.done:
			return 0, net.ErrClosed
		case in = <-r.conn.relayed:
		}
		if !isWireGuard(in.pkt) {
			if len(in.pkt) > 0 && in.pkt[0] >= byte(disco.TypePing) {
				r.contact(arrival{relay: true}, in.pkt)
			}
			continue
		}
		if ep := r.relayedEndpoint(in); ep != nil {
			sizes[0], eps[0] = copy(bufs[0], in.pkt), ep
			return 1, nil
		}
	}
}

func (r *receiver) relayedEndpoint(in relayPacket) (ep *endpoint) {
	r.conn.do(func(now time.Time, core *core) {
		p := core.peers[in.from]
		if p == nil || in.pkt[0] == wgInitiation && !core.admit(now, p, arrival{relay: true}, in.pkt) {
			return
		}
		ep = p.ep
	})
	if ep != nil {
		if in.pkt[0] == wgResponse {
			ep.settle()
		}
		ep.rx.Add(uint64(len(in.pkt)))
	}
	return ep
}
