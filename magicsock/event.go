package magicsock

import (
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// EventType says what happened.
type EventType int

// The events of a Conn.
const (
	// EventReachable: a member that is looked for (Contact, SendAll, or its route died) answered by Path, and no
	// initiation has left by it since it was asked. A handshake that is under way is to be begun again at once, by
	// SendAll; without one there is nothing to do. At most 5 a second.
	EventReachable EventType = iota + 1
	// EventRestarted: Peer runs under a new boot id, so it lost our session.
	EventRestarted
	// EventObserved: Peer answered by Path, and saw our packets come from Observed.
	EventObserved
	// EventPathChanged: data to Peer goes by Path now.
	EventPathChanged
	// EventClock: the clock of Peer is Clock ahead of ours.
	EventClock
)

// Event is something that the node should know. Fields beyond Type and Peer are set as the type says.
type Event struct {
	Type      EventType
	Peer      identity.PeerID
	Observed  netip.AddrPort
	Path, Old PathInfo
	Reason    string
	Clock     time.Duration
}

// PathKind is how a peer is reached.
type PathKind string

// The kinds of paths.
const (
	PathDirect PathKind = "direct"
	PathRelay  PathKind = "relay"
	PathNone   PathKind = "none"
)

// PathInfo describes a path.
type PathInfo struct {
	Kind     PathKind
	Addr     netip.AddrPort // zero unless direct
	RTT      time.Duration  // 0: not measured
	Since    time.Time      // when it became the path
	LastPong time.Time      // zero: never
}

func pathInfo(p *path) PathInfo {
	switch {
	case p == nil:
		return PathInfo{Kind: PathNone}
	case p.relay:
		return PathInfo{Kind: PathRelay, RTT: p.rtt, Since: p.since, LastPong: p.lastPong}
	}
	return PathInfo{Kind: PathDirect, Addr: p.addr, RTT: p.rtt, Since: p.since, LastPong: p.lastPong}
}

// PeerInfo is a snapshot of what is known of reaching one peer.
type PeerInfo struct {
	Path       PathInfo
	Reason     string    // why the path is what it is
	Heard      time.Time // last pong or authenticated packet, by any path
	Seeking    bool      // packets wait for it
	Candidates []PathInfo
	RxBytes    uint64 // WireGuard datagrams, with their headers
	TxBytes    uint64
}
