package magicsock

import (
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
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
	// EventObserved: Peer answered by Path, a direct one, and saw our packets come from Observed.
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

// The kinds of paths, the best first.
const (
	PathDirect PathKind = "direct" // nobody stands between
	PathMember PathKind = "member" // by a member that relays
	PathRelay  PathKind = "relay"  // by relay servers
	PathNone   PathKind = "none"
)

// PathInfo describes a path. In events, Stats is empty.
type PathInfo struct {
	Kind     PathKind
	Addr     netip.AddrPort  // of the peer (direct), or of the member that relays; zero otherwise
	Via      identity.PeerID // the member that relays; zero otherwise
	Server   string          // URL of the relay server; "" otherwise
	RTT      time.Duration   // smoothed; 0: not measured
	Since    time.Time       // when it became the path
	LastPing time.Time       // zero: never
	LastPong time.Time       // zero: never
	Pings    uint64
	Pongs    uint64
	Size     int // largest datagram that a pong confirmed, in bytes; 0: none
	Traffic
	Stats   RTTStats
	Verdict string // what became of it, in words; of a peer's candidates only
}

func (c *core) pathInfo(p *peer, path *path) PathInfo {
	if path == nil {
		return PathInfo{Kind: PathNone}
	}
	info := PathInfo{
		Kind: path.kind(), Addr: path.addr, Via: path.via, RTT: path.rtt, Since: path.since,
		LastPing: path.lastPing, LastPong: path.lastPong, Pings: path.pings, Pongs: path.pongs, Size: path.size,
		Traffic: path.meter.traffic(),
	}
	if path.relay && c.relay != nil {
		info.Server = c.relay.Via(p.id)
	}
	return info
}

// PeerInfo is a snapshot of what is known of reaching one peer.
type PeerInfo struct {
	Path       PathInfo
	Reason     string    // why the path is what it is
	Heard      time.Time // last pong or authenticated packet, by any path
	Seeking    bool      // packets wait for it
	Home       bool      // a home of ours
	NAT        netmap.NAT
	Candidates []PathInfo // every path that is known, the best kind first
	RxBytes    uint64     // WireGuard datagrams, with their headers
	TxBytes    uint64
	ByKind     map[PathKind]Traffic // what of that went by each kind of path; kinds without any are left out
}

// info describes a peer.
func (c *core) info(now time.Time, p *peer) PeerInfo {
	c.syncTrust(p)
	info := PeerInfo{
		Path: c.fullInfo(now, p, p.best), Reason: c.reason(now, p), Heard: p.lastHeard(), Seeking: p.wanted(now),
		Home: p.home, NAT: p.nat, ByKind: make(map[PathKind]Traffic),
	}
	for rank, kind := range [ranks]PathKind{PathDirect, PathMember, PathRelay} {
		if t := p.handle.kinds[rank].traffic(); t != (Traffic{}) {
			info.ByKind[kind] = t
		}
	}
	total := p.handle.sum()
	info.RxBytes, info.TxBytes = total.Rx, total.Tx
	for _, path := range p.sorted() {
		info.Candidates = append(info.Candidates, c.fullInfo(now, p, path))
	}
	return info
}

// fullInfo is pathInfo with what takes time to tell.
func (c *core) fullInfo(now time.Time, p *peer, path *path) PathInfo {
	info := c.pathInfo(p, path)
	if path != nil {
		info.Stats, info.Verdict = path.samples.stats(), p.verdict(path)
	}
	return info
}

// sorted lists the paths by kind and address.
func (p *peer) sorted() []*path {
	all := make([]*path, 0, len(p.paths))
	for _, path := range p.paths {
		all = append(all, path)
	}
	slices.SortFunc(all, func(a, b *path) int { return a.compare(b.way) })
	return all
}

// infoOfMember describes a member that nothing is known of but what the map says.
func (c *core) infoOfMember(n *netmap.Peer) PeerInfo {
	info := PeerInfo{Path: c.unmet(n.ID), NAT: n.NAT}
	for _, addr := range n.Endpoints {
		for _, usable := range c.usable(addr) {
			info.Candidates = append(info.Candidates, PathInfo{Kind: PathDirect, Addr: usable, Verdict: verdictUntried})
		}
	}
	slices.SortFunc(info.Candidates, func(a, b PathInfo) int { return a.Addr.Compare(b.Addr) })
	if info.Path.Kind == PathRelay {
		info.Reason = relayFirst
		info.Candidates = append(info.Candidates, info.Path)
	}
	return info
}
