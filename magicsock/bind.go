package magicsock

import (
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// batchSize is how many datagrams move in one call. The device reads it once.
const batchSize = conn.IdealBatchSize

var errNotOurs = errors.New("not an endpoint of this socket")

// bind adapts a Conn to the wireguard module's device. It is cheap and reopenable: the sockets live in the Conn, and
// Close only makes the receive functions of this opening return.
type bind struct {
	conn *Conn

	mu   sync.Mutex
	done chan struct{} // of this opening; nil: closed. Guarded by mu
}

// Bind returns the Conn as the socket of a WireGuard device. There is one device per Conn.
func (c *Conn) Bind() conn.Bind { return &bind{conn: c} }

// Open makes receive functions: one per address family, and one for the relay leg where there is one.
func (b *bind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	b.done = make(chan struct{})
	b.conn.kick(time.Time{})
	var funcs []conn.ReceiveFunc
	for family := range families {
		r := &receiver{conn: b.conn, family: family, done: b.done, metas: make([]udp.Meta, batchSize)}
		funcs = append(funcs, r.receive)
	}
	if b.conn.cfg.Relay != nil {
		r := &receiver{conn: b.conn, done: b.done}
		funcs = append(funcs, r.receiveRelayed)
	}
	return funcs, b.conn.Port(), nil
}

// Close makes the receive functions return net.ErrClosed. The device calls it before the first Open too.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done == nil {
		return nil
	}
	close(b.done)
	b.done = nil
	b.conn.kick(time.Unix(1, 0))
	return nil
}

// kick sets the read deadline of the sockets: one in the past makes reads return.
func (c *Conn) kick(deadline time.Time) {
	for i := range c.sockets {
		if s := c.sockets[i].Load(); s != nil {
			s.SetReadDeadline(deadline)
		}
	}
}

// SetMark does nothing: the mark is in Config, so that every socket has it from the start.
func (b *bind) SetMark(uint32) error { return nil }

// Send sends datagrams to one endpoint. It never waits for a path: without one, the packets are dropped, counted,
// and the peer is looked for.
func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	switch ep := ep.(type) {
	case *endpoint:
		b.conn.sendBatch(ep, bufs)
		return nil
	case addrEndpoint:
		if ep.addr.IsValid() {
			return b.conn.write(ep.addr, ep.src, bufs)
		}
		return nil
	}
	return errNotOurs
}

// ParseEndpoint reads what an endpoint's DstToString prints: the hexadecimal WireGuard key of a peer in the map.
func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(identity.WGKey{}) {
		return nil, errNotOurs
	}
	b.conn.mu.Lock()
	defer b.conn.mu.Unlock()
	p := b.conn.core.byWG[identity.WGKey(raw)]
	if p == nil {
		return nil, errNotOurs
	}
	return p.ep, nil
}

// BatchSize is constant.
func (b *bind) BatchSize() int { return batchSize }
