package magicsock

import (
	"crypto/sha256"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// route is where a peer's packets go right now. Immutable but for the budget.
type route struct {
	to        netip.AddrPort
	src       udp.Source
	relay     bool
	double    bool // also send by the second path, until the budget is used up
	also      netip.AddrPort
	alsoSrc   udp.Source
	alsoRelay bool
	budget    atomic.Int64 // bytes
}

// endpoint is the conn.Endpoint of a peer: the same object for every path, so that the device never learns an
// address. All its fields are immutable, atomic or safe for concurrent use.
type endpoint struct {
	id    identity.PeerID
	wg    identity.WGKey
	text  string
	fake  netip.Addr // a stable address of its own for the device's rate limiter and cookies
	route atomic.Pointer[route]

	trusted    atomic.Int64 // unix nanoseconds of the last pong on the best path
	kicked     atomic.Int64 // unix nanoseconds of the last time core was asked to verify the path
	unanswered atomic.Int32 // initiations since the last response
	gate       gate
	rx, tx     atomic.Uint64
}

func newEndpoint(id identity.PeerID, wg identity.WGKey) *endpoint {
	sum := sha256.Sum256(append([]byte("meshnet/endpoint/v1\x00"), wg[:]...))
	a := [16]byte{0: 0xfd}
	copy(a[1:], sum[:15])
	return &endpoint{id: id, wg: wg, text: wg.Hex(), fake: netip.AddrFrom16(a)}
}

// ClearSrc is called when a handshake was not answered: the path is verified anew, which finds a new source too.
func (e *endpoint) ClearSrc() { e.trusted.Store(0) }

// SrcToString is empty: the source address is the path's affair.
func (e *endpoint) SrcToString() string { return "" }

// DstToString is the hexadecimal WireGuard key, which ParseEndpoint reads.
func (e *endpoint) DstToString() string { return e.text }

// DstToBytes feeds the cookie of the WireGuard protocol.
func (e *endpoint) DstToBytes() []byte { return e.fake.AsSlice() }

// DstIP keys the device's handshake rate limiter.
func (e *endpoint) DstIP() netip.Addr { return e.fake }

// SrcIP is unset, as SrcToString.
func (e *endpoint) SrcIP() netip.Addr { return netip.Addr{} }

// stale reports, at most every 100 ms, that the path carries data and nothing vouched for it within trustFor.
func (e *endpoint) stale(now time.Time) bool {
	n := now.UnixNano()
	if n-e.trusted.Load() < int64(trustFor) {
		return false
	}
	last := e.kicked.Load()
	return n-last > int64(100*time.Millisecond) && e.kicked.CompareAndSwap(last, n)
}

// addrEndpoint stands for a source that belongs to no peer we know. The device can answer it (cookies), no more.
type addrEndpoint struct {
	addr netip.AddrPort
	src  udp.Source
}

func (e addrEndpoint) ClearSrc()           {}
func (e addrEndpoint) SrcToString() string { return "" }
func (e addrEndpoint) DstToString() string { return e.addr.String() }
func (e addrEndpoint) DstIP() netip.Addr   { return e.addr.Addr() }
func (e addrEndpoint) SrcIP() netip.Addr   { return netip.Addr{} }

func (e addrEndpoint) DstToBytes() []byte {
	b, err := e.addr.MarshalBinary()
	if err != nil {
		return nil // MarshalBinary of an AddrPort has no failure
	}
	return b
}
