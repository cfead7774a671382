package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// WireGuard's message types, the first byte of a packet.
const (
	typeInitiation = 1
	typeResponse   = 2
	typeData       = 4
)

// air joins binds in memory. An endpoint is a WireGuard key in hex.
type air struct {
	mu    sync.Mutex
	binds map[string]*memBind
	drop  func(from, to string, kind byte) bool // nil: nothing is lost
	seen  map[byte]int
}

func newAir() *air { return &air{binds: make(map[string]*memBind), seen: make(map[byte]int)} }

// bind makes the bind that is reached under key, in place of an earlier one.
func (a *air) bind(key string) *memBind {
	b := &memBind{air: a, key: key}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.binds[key] = b
	return b
}

func (a *air) setDrop(f func(from, to string, kind byte) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop = f
}

func (a *air) count(kind byte) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[kind]
}

// route finds the receiver of a packet, nil when it is lost.
func (a *air) route(from, to string, kind byte) *memBind {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[kind]++
	if a.drop != nil && a.drop(from, to, kind) {
		return nil
	}
	return a.binds[to]
}

type memPacket struct {
	from string
	data []byte
}

type memBind struct {
	air *air
	key string

	mu     sync.Mutex
	in     chan memPacket
	closed chan struct{} // nil while not open
}

func (b *memBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	in, closed := make(chan memPacket, 4096), make(chan struct{})
	b.in, b.closed = in, closed
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n := 0
		put := func(p memPacket) {
			sizes[n], eps[n] = copy(bufs[n], p.data), memEndpoint(p.from)
			memPool.Put(&p.data)
			n++
		}
		select {
		case p := <-in:
			put(p)
		case <-closed:
			return 0, net.ErrClosed
		}
		for n < len(bufs) {
			select {
			case p := <-in:
				put(p)
			default:
				return n, nil
			}
		}
		return n, nil
	}
	return []conn.ReceiveFunc{receive}, 1, nil
}

func (b *memBind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		close(b.closed)
		b.closed = nil
	}
	return nil
}

var memPool = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

func (b *memBind) Send(bufs [][]byte, ep conn.Endpoint) error {
	for _, buf := range bufs {
		to := b.air.route(b.key, string(ep.(memEndpoint)), buf[0])
		if to == nil {
			continue
		}
		data := append((*memPool.Get().(*[]byte))[:0], buf...)
		to.mu.Lock()
		if to.closed != nil {
			select {
			case to.in <- memPacket{b.key, data}:
			default: // a full socket buffer
			}
		}
		to.mu.Unlock()
	}
	return nil
}

func (b *memBind) SetMark(uint32) error { return nil }
func (b *memBind) BatchSize() int       { return 128 }

func (b *memBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	if len(s) != 64 {
		return nil, errors.New("endpoint is not a key")
	}
	return memEndpoint(s), nil
}

type memEndpoint string

func (e memEndpoint) ClearSrc()           {}
func (e memEndpoint) SrcToString() string { return "" }
func (e memEndpoint) DstToString() string { return string(e) }
func (e memEndpoint) DstToBytes() []byte  { return []byte(e) }
func (e memEndpoint) DstIP() netip.Addr   { return netip.AddrFrom4([4]byte{10, 0, 0, 1}) }
func (e memEndpoint) SrcIP() netip.Addr   { return netip.Addr{} }
