package meshnet

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/discovery/mdns"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/platform"
)

// linkSearch asks whoever announces itself on the links. Safe for concurrent use.
type linkSearch struct {
	poke chan struct{} // capacity 1: there is somebody to ask

	mu  sync.Mutex
	who announcers // guarded by mu
}

// take takes an announcement, by mDNS's goroutine.
func (s *linkSearch) take(x mdns.Announcement) {
	s.mu.Lock()
	news := s.who.take(time.Now(), x)
	s.mu.Unlock()
	if news {
		s.wake()
	}
}

func (s *linkSearch) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// answered takes that somebody said who it is, by an address.
func (s *linkSearch) answered(from netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who.answer(time.Now(), from)
}

// hurry has all asked anew.
func (s *linkSearch) hurry() {
	s.mu.Lock()
	s.who.hurry()
	s.mu.Unlock()
	s.wake()
}

// run calls ask whenever somebody's turn may have come, until ctx ends. ask returns when to call it again; zero: when
// there is news.
func (s *linkSearch) run(ctx context.Context, ask func(now time.Time) time.Time) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.poke:
		case <-timer.C:
		}
		now := time.Now()
		wait := time.Hour
		if next := ask(now); !next.IsZero() {
			wait = max(next.Sub(now), time.Second)
		}
		timer.Reset(wait)
	}
}

// due asks announcers who it is time for.
func (s *linkSearch) due(now time.Time, lacking bool, reached func(netip.AddrPort) bool) (ask []netip.AddrPort, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who, next := s.who.due(now, lacking, reached)
	for _, x := range who {
		ask = append(ask, x.addrs...)
	}
	return ask, next
}

// askLinks asks whoever announces itself on the links and is not known to be a member in session.
func (n *Node) askLinks(now time.Time) time.Time {
	lacking := n.lacking() || now.Sub(time.Unix(0, n.seek.moved.Load())) < afterMove
	ask, next := n.seek.links.due(now, lacking, n.reached())
	if len(ask) > 0 {
		n.discovered(sourceMDNS, ask)
	}
	return next
}

// memberOnLinks announces this node on the links, and listens to other members.
func (n *Node) memberOnLinks() (*mdns.Service, error) {
	tags := &linkTags{network: n.network, id: n.id.ID(), keys: func() []identity.Secret { return n.mesh.Map().Keys }}
	clock := func(now time.Time) time.Time { return now.Add(n.mesh.Skew()) }
	return mdns.New(mdns.Config{
		Tag:   func(now time.Time) [8]byte { return tags.own(clock(now)) },
		Known: func(tag [8]byte) bool { return tags.known(clock(time.Now()), tag) },
		Port:  n.conn.Port, Found: n.seek.links.take, Skip: n.skipsLink, Logger: n.log,
	})
}

// joinerOnLinks listens only, to the members of all networks: which one is ours, only they can tell.
func (n *Node) joinerOnLinks() (*mdns.Service, error) {
	return mdns.New(mdns.Config{Found: n.seek.links.take, Skip: n.skipsLink, Logger: n.log})
}

// skipsLink reports whether a link leads to nobody else's machine: our own, or another VPN's.
func (n *Node) skipsLink(name string) bool {
	if name == n.tun.InterfaceName() {
		return true
	}
	tunnels := n.seek.tunnels.Load()
	return tunnels != nil && (*tunnels)[name]
}

// tunnelLinks are the links of VPNs.
func tunnelLinks(host platform.Host) *map[string]bool {
	all := make(map[string]bool)
	for _, l := range host.Links {
		if l.Tunnel() {
			all[l.Name] = true
		}
	}
	return &all
}

const (
	// tagHours is how many hours a clock may be off, either way, for its node's announcements to be understood: that of a
	// host which was off for long, or thinks that it is in another time zone.
	tagHours = 26
	// tagSpread is within what time of an hour members go over to its tag, each at its own moment.
	tagSpread = 2 * time.Minute
)

// linkTags are what the network's announcements are told by: 8 bytes for each hour, which only members can compute.
// Owned by mDNS's goroutine.
type linkTags struct {
	network identity.NetworkID
	id      identity.PeerID
	keys    func() []identity.Secret // generations of K, the newest first

	hour  int64
	of    []identity.Secret
	table map[[8]byte]bool
}

// linkTag is the tag of an hour since 1970, under a K.
func linkTag(k identity.Secret, network identity.NetworkID, hour int64) [8]byte {
	tag := identity.Derive(k[:], network, "meshnet/mdns/v1", binary.BigEndian.AppendUint64(nil, uint64(hour)))
	return [8]byte(tag[:8])
}

func hourOf(t time.Time) int64 { return t.Unix() / 3600 }

// own is the tag to announce.
func (t *linkTags) own(clock time.Time) [8]byte {
	late := time.Duration(binary.BigEndian.Uint16(t.id[:])) * time.Second % tagSpread
	return linkTag(t.keys()[0], t.network, hourOf(clock.Add(-late)))
}

// known reports whether a tag is the network's.
func (t *linkTags) known(clock time.Time, tag [8]byte) bool {
	hour, keys := hourOf(clock), t.keys()
	if t.table == nil || t.hour != hour || !slices.Equal(t.of, keys) {
		t.hour, t.of, t.table = hour, keys, make(map[[8]byte]bool, len(keys)*(2*tagHours+1))
		for _, k := range keys {
			for h := hour - tagHours; h <= hour+tagHours; h++ {
				t.table[linkTag(k, t.network, h)] = true
			}
		}
	}
	return t.table[tag]
}
