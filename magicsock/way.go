package magicsock

import (
	"cmp"
	"net/netip"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock/hop"
	"github.com/meshnet/meshnet/magicsock/udp"
)

// way is where a path leads: what tells it from the other paths of a peer. Immutable, and comparable.
type way struct {
	addr  netip.AddrPort // of the peer, or of the member that relays to it; zero: by relay servers
	relay bool           // by relay servers
	sid   uint32         // session at the member at addr, which relays; 0: the peer's own address
	// socket is the one of ours that its packets use, beside the usual ones (extra.go); 0: one of those.
	socket uint16
}

// byRelay is the way by relay servers. They know the peer by its id, so there is only one.
var byRelay = way{relay: true}

// The ranks of the kinds, the best first: latency does not count between them.
const (
	rankDirect = iota
	rankMember
	rankRelay
	ranks
)

// rank orders ways by their kind.
func (w way) rank() int {
	switch {
	case w.relay:
		return rankRelay
	case w.sid != 0:
		return rankMember
	}
	return rankDirect
}

// kind is how a way leads there.
func (w way) kind() PathKind {
	return [ranks]PathKind{PathDirect, PathMember, PathRelay}[w.rank()]
}

// direct reports whether nobody stands between.
func (w way) direct() bool { return w.rank() == rankDirect }

// wayTo is the way to a place.
func wayTo(at datagram.Place) way {
	if at.IsRelay() {
		return byRelay
	}
	return way{addr: at.Addr}
}

// wayOf is the way that leads back to a source.
func wayOf(from *datagram.Source) way {
	if from.Relay != nil {
		return byRelay
	}
	return way{addr: from.Addr, sid: from.Via, socket: from.Socket}
}

// line is a way and this host's end of it: where a packet came from and what it reached, or how packets leave.
type line struct {
	way
	local udp.Source
}

// lineOf is a source as core knows it.
func lineOf(from *datagram.Source) line {
	l := line{way: wayOf(from)}
	if !l.relay {
		l.local = udp.Source{Addr: from.Local, IfIndex: from.IfIndex}
	}
	return l
}

// source is this host's end as the socket takes it, with the frame of a member's session.
func (l *line) source() udp.Source {
	src := l.local
	if l.sid != 0 {
		src.Head = hop.Header(l.sid)
	}
	return src
}

// compare orders ways: by kind, then by address.
func (w way) compare(o way) int {
	return cmp.Or(
		cmp.Compare(w.rank(), o.rank()), w.addr.Compare(o.addr), cmp.Compare(w.sid, o.sid), cmp.Compare(w.socket, o.socket),
	)
}
