package dht

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/dht/v2/krpc"
	"github.com/anacrolix/torrent/bencode"

	"github.com/meshnet/meshnet/internal/bucket"
)

const (
	maxPacket       = 2048
	answersPerSec   = 200 // packets from nodes that were asked, that are looked at
	queriesPerSec   = 80  // queries of others that are looked at and answered; with the burst, 100 in any second
	queriesBurst    = 20
	maxNesting      = 8
	readRetry       = 100 * time.Millisecond
	maxReadFailures = 50
)

var errBadPacket = errors.New("malformed DHT packet")

// guard stands between the socket and the DHT library. Of what arrives it lets through only answers of nodes that were
// asked and, where others are served, queries; both at bounded rates, and only what it has decoded itself: some packets
// would end the program in the library. It gives the library no error while the library would panic at it. Safe for
// concurrent use.
type guard struct {
	net.PacketConn
	serve  bool
	failed chan error // gets the error that ended reading, if it was not Close
	drops  atomic.Uint64

	closed, ended, released chan struct{} // see shut

	close, end sync.Once
	answers    bucket.Bucket // owned by ReadFrom
	queries    bucket.Bucket // likewise

	mu     sync.Mutex
	expect map[netip.AddrPort]int // how many answers are due from there
}

func newGuard(conn net.PacketConn, serve bool) *guard {
	return &guard{
		PacketConn: conn, serve: serve, expect: make(map[netip.AddrPort]int),
		failed: make(chan error, 1),
		closed: make(chan struct{}), ended: make(chan struct{}), released: make(chan struct{}),
	}
}

// shut ends reading, then has the library closed: an error that it reads before it is closed would end the program.
func (g *guard) shut(closeServer func()) {
	g.Close()
	<-g.ended
	closeServer()
	close(g.released)
}

// Close ends reading. Later calls do nothing.
func (g *guard) Close() error {
	var err error
	g.close.Do(func() {
		close(g.closed)
		err = g.PacketConn.Close()
	})
	return err
}

// asking lets answers of a node through until the function it returns is called.
func (g *guard) asking(addr netip.AddrPort) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expect[addr]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.expect[addr]--
		if g.expect[addr] <= 0 {
			delete(g.expect, addr)
		}
	}
}

func (g *guard) expected(addr netip.AddrPort) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.expect[addr] > 0
}

// ReadFrom returns the next packet that may pass. It fails after shut only.
func (g *guard) ReadFrom(b []byte) (int, net.Addr, error) {
	failures := 0
	for {
		n, from, err := g.PacketConn.ReadFrom(b)
		switch {
		case err == nil:
			failures = 0
		case g.isClosed():
			g.end.Do(func() { close(g.ended) })
			<-g.released
			return 0, nil, net.ErrClosed
		default:
			failures++
			g.pause(failures, err)
			continue
		}
		addr, ok := plainAddr(from)
		if ok && n <= maxPacket && g.pass(b[:n], addr, time.Now()) {
			return n, net.UDPAddrFromAddrPort(addr), nil
		}
		g.drops.Add(1)
	}
}

// pause follows an error of the socket. After a row of them reading is given up: Run hears of it, and closes.
func (g *guard) pause(failures int, err error) {
	if failures >= maxReadFailures {
		select {
		case g.failed <- err:
		default:
		}
		<-g.closed
		return
	}
	timer := time.NewTimer(readRetry)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.closed:
	}
}

func (g *guard) isClosed() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// pass decides about a packet.
func (g *guard) pass(pkt []byte, from netip.AddrPort, now time.Time) bool {
	switch due := g.expected(from); {
	case due && g.answers.Take(now, answersPerSec, answersPerSec):
	case !due && g.serve && g.queries.Take(now, queriesPerSec, queriesBurst):
	default:
		return false
	}
	msg, err := decode(pkt)
	if err != nil {
		return false
	}
	switch msg.Y {
	case krpc.YResponse, krpc.YError:
		return g.expected(from)
	case krpc.YQuery:
		return g.serve && answerable(msg)
	}
	return false
}

// answerable reports whether the library can be trusted with a query.
func answerable(msg krpc.Msg) bool {
	if msg.A == nil {
		return false
	}
	switch msg.Q {
	case "ping", "find_node", "get_peers", "get":
		return true
	case "put":
		if msg.A.Seq == nil || msg.A.V == nil || msg.A.K == [32]byte{} {
			return false
		}
		v, err := encode(msg.A.V)
		return err == nil && len(v) <= 1000
	}
	return false
}

// decode reads a packet as the library does. It survives the library's panics.
func decode(pkt []byte) (msg krpc.Msg, err error) {
	if !wellFormed(pkt) {
		return msg, errBadPacket
	}
	defer func() {
		if recover() != nil {
			err = errBadPacket
		}
	}()
	err = bencode.Unmarshal(pkt, &msg)
	return msg, err
}

// encode is bencode.Marshal without its panics.
func encode(v any) (b []byte, err error) {
	defer func() {
		if recover() != nil {
			err = errBadPacket
		}
	}()
	return bencode.Marshal(v)
}

// wellFormed reports whether b is one bencoded dictionary and nothing else, with strings that lie within it and little
// nesting. The library allocates what a string's length says before it looks how much there is.
func wellFormed(b []byte) bool {
	if len(b) == 0 || b[0] != 'd' {
		return false
	}
	rest, ok := skip(b, 0)
	return ok && len(rest) == 0
}

// skip cuts off one bencoded value.
func skip(b []byte, depth int) (rest []byte, ok bool) {
	if len(b) == 0 || depth > maxNesting {
		return nil, false
	}
	switch {
	case b[0] == 'i':
		n := 1
		for n < len(b) && n < 22 && (b[n] == '-' && n == 1 || b[n] >= '0' && b[n] <= '9') {
			n++
		}
		if n == 1 || n >= len(b) || b[n] != 'e' {
			return nil, false
		}
		return b[n+1:], true
	case b[0] == 'l' || b[0] == 'd':
		isDict := b[0] == 'd'
		b = b[1:]
		for len(b) > 0 && b[0] != 'e' {
			if isDict && (b[0] < '0' || b[0] > '9') {
				return nil, false
			}
			if b, ok = skip(b, depth+1); !ok {
				return nil, false
			}
			if !isDict {
				continue
			}
			if b, ok = skip(b, depth+1); !ok {
				return nil, false
			}
		}
		if len(b) == 0 {
			return nil, false
		}
		return b[1:], true
	}
	return skipString(b)
}

func skipString(b []byte) (rest []byte, ok bool) {
	length, n := 0, 0
	for n < len(b) && n < 5 && b[n] >= '0' && b[n] <= '9' {
		length = length*10 + int(b[n]-'0')
		n++
	}
	if n == 0 || n >= len(b) || b[n] != ':' || length > len(b)-n-1 {
		return nil, false
	}
	return b[n+1+length:], true
}

// plainAddr is a UDP address without the ways in which one can be written twice.
func plainAddr(from net.Addr) (netip.AddrPort, bool) {
	udp, ok := from.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	a := udp.AddrPort()
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	return a, reachOf(a) != unusable
}
