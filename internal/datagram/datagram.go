package datagram

import (
	"net/netip"
	"time"
)

// Source is where a datagram came from, which is also where an answer to it goes.
type Source struct {
	Addr    netip.AddrPort // of the other side, or of the member that relays (Via); zero when it came by a relay server
	Local   netip.Addr     // address it arrived at; invalid where the system does not tell
	IfIndex int            // link it arrived by; 0 where the system does not tell
	Socket  uint16         // which of the host's sockets it arrived at; 0: one of the usual ones
	Via     uint32         // session at the member at Addr that relays; 0: Addr is the other side's own
	Relay   Peer           // the member that a relay server names as its sender; nil otherwise
}

// Train is a run of datagrams from one source that arrived as one. Data belongs to whoever gave the train and is only
// valid during the call it came with; until then its bytes may be changed in place.
type Train struct {
	Data []byte
	Size int // of each datagram, at least 1; only the last one may be shorter
	From Source
	// Arrived is when the host received it, in nanoseconds of Unix time; 0 where the system does not tell.
	Arrived int64
	// Ahead: the sender asked for these to be taken before others that wait (Peer.SendAhead).
	Ahead bool
}

// Peer is a member as the socket knows it, whatever its paths are. Safe for concurrent use; no method blocks for longer
// than the socket's send buffer makes it.
type Peer interface {
	// Send sends datagrams by the best path. Without one they are dropped and counted. borrowed: pkts are only used
	// during the call and not changed.
	Send(now time.Time, pkts [][]byte)
	// SendAhead is Send for datagrams that the other side may take before others that wait there. Those of one flow must
	// not go both ways at a time, or they lose their order.
	SendAhead(now time.Time, pkts [][]byte)
	// SendAll sends one datagram by every path that might work: a handshake initiation.
	SendAll(now time.Time, pkt []byte)
	// Authenticated tells that datagrams of the peer came from a source, and that its session's key opened them:
	// size bytes in all. It is meant to be called once per train.
	Authenticated(now time.Time, from *Source, size int)
	// MaxSize is how large a datagram may be for the best path to carry it in one piece, in bytes; 0: not known.
	MaxSize() int
}
