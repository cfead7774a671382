package meshnet

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/discovery/dht"
	"github.com/meshnet/meshnet/discovery/lists"
	"github.com/meshnet/meshnet/discovery/mdns"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/magicsock"
)

// finders look for members whom nothing else leads to.
//
//	links (mDNS) ──▶ announcers ─┐                     member: control.Introduce, an Intro to each, and what answers
//	lists ───────────────────────┼─▶ Node.discovered ─┤         is a member at an address that works
//	DHT ──▶ signed reach ────────┘                     joiner: control.Enter asks them too
type finders struct {
	lan   *mdns.Service // of a member; nil: not wanted
	lists *lists.Lists
	dht   *dht.Node       // nil: not wanted
	meet  *dht.Rendezvous // of a member; nil: not wanted
	links linkSearch
	found chan datagram.Place // to ask while joining

	tunnels atomic.Pointer[map[string]bool] // links that lead to nobody else's machine
	moved   atomic.Int64                    // when the host's addresses changed last, Unix nanoseconds

	mu    sync.Mutex
	told  bucket.Bucket // of events; guarded by mu
	asked bucket.Bucket // of lists' addresses; guarded by mu
}

const (
	// enoughSessions is below how many sessions a member looks for others by all means.
	enoughSessions = 3
	// maxOffered is how many places wait for a join to ask them. When it is full, others are dropped: they come again.
	maxOffered = 64
	// listRate and listBurst are how many addresses out of lists are asked, per second and at once: as many again are left
	// to what other sources find.
	listRate, listBurst = 3, 32
	// tellRate and tellBurst are how many events tell of addresses that were found.
	tellRate, tellBurst = 1, 8
	// afterMove is how long after a change of addresses sessions prove nothing about who is near.
	afterMove = 30 * time.Second
)

// Sources of addresses, as events name them; those of lists are lists' own.
const (
	sourceMDNS = "mdns"
	sourceDHT  = "dht"
)

// openFinders makes what looks for members. It runs with the socket, from before the node is one.
func (n *Node) openFinders() error {
	f := &n.seek
	f.found = make(chan datagram.Place, maxOffered)
	f.links = linkSearch{poke: make(chan struct{}, 1)}
	f.lists = lists.New(lists.Config{
		Entries: n.cfg.Bootstrap, File: n.cfg.BootstrapFile, DNS: n.cfg.BootstrapDNS, Logger: n.log,
		Own: n.ownAddrs, Refused: n.inMesh, Lacking: n.lacking,
		Found:    func(addrs []netip.AddrPort, source string) { n.discovered(source, n.listed(addrs)) },
		OnFailed: n.bootstrapFailed,
	})
	if n.cfg.MDNS {
		var err error
		if f.lan, err = n.memberOnLinks(); err != nil {
			return err
		}
	}
	if n.cfg.DHT {
		f.dht = dht.New(dht.Config{Logger: n.log, Bootstrap: n.cfg.DHTBootstrap, Nodes: n.state.read(dhtFile)})
		f.meet = n.memberByDHT()
	}
	return nil
}

// runFinders runs what joiners need as well, until ctx ends.
func (n *Node) runFinders(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { _ = n.seek.lists.Run(ctx) }) // ends with ctx only
	if n.seek.dht != nil {
		wg.Go(func() { n.runDHT(ctx) })
	}
}

// runMemberFinders runs what is for members only, until ctx ends. mDNS says goodbye then.
func (n *Node) runMemberFinders(ctx context.Context) {
	if n.seek.lan != nil {
		n.wg.Go(func() { _ = n.seek.lan.Run(ctx) })
		n.wg.Go(func() { n.seek.links.run(ctx, n.askLinks) })
	}
	if n.seek.meet != nil {
		n.wg.Go(func() { _ = n.seek.meet.Run(ctx) })
		n.wg.Go(func() { n.keepDHT(ctx) })
	}
	n.seek.lists.Wake() // whether peers are lacking is another question now
}

// lacking reports whether the node looks for members by all means: too few are in session with it, or it is none yet.
func (n *Node) lacking() bool {
	if !n.member.Load() {
		return true
	}
	return len(n.mesh.Sessions()) < min(enoughSessions, len(n.mesh.Map().Peers))
}

// sought has every source look whether members are lacking: there is one more, or one less.
func (f *finders) sought(lacking bool) {
	f.lists.Wake()
	f.links.wake()
	if f.meet != nil {
		f.meet.Wake()
	}
	if f.lan != nil && lacking {
		f.lan.Query()
	}
}

// linkChanged has all links looked at anew: the host is somewhere else.
func (f *finders) linkChanged() {
	f.moved.Store(time.Now().UnixNano())
	f.lists.LinkChanged()
	f.links.hurry()
	if f.lan != nil {
		f.lan.Changed()
	}
	if f.meet != nil {
		f.meet.Wake()
	}
}

// discovered asks whoever is at addresses that a source handed out, but where that is known.
func (n *Node) discovered(source string, addrs []netip.AddrPort) {
	own, reached := n.ownAddrs(), n.reached()
	addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.AddrPort) bool {
		return slices.Contains(own, a) || n.inMesh(a.Addr()) || reached(a)
	})
	if len(addrs) == 0 {
		return
	}
	n.log.Debug("discovered", "source", source, "endpoint", addrs)
	if !n.member.Load() {
		for _, a := range addrs {
			n.offer(datagram.Place{Addr: a})
		}
		return
	}
	n.mesh.Introduce(addrs)
	n.seek.mu.Lock()
	tell := n.seek.told.Take(time.Now(), tellRate, tellBurst)
	n.seek.mu.Unlock()
	if tell {
		n.publish(EventPeersDiscovered, nil, map[string]any{"source": source, "addrs": addrs})
	}
}

// offer has a place asked by the join that is under way.
func (n *Node) offer(p datagram.Place) {
	select {
	case n.seek.found <- p:
	default:
	}
}

// listed are those of lists' addresses that are asked now: a long list must not keep others waiting.
func (n *Node) listed(addrs []netip.AddrPort) []netip.AddrPort {
	n.seek.mu.Lock()
	defer n.seek.mu.Unlock()
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(addrs), func(netip.AddrPort) bool {
		return !n.seek.asked.Take(now, listRate, listBurst)
	})
}

// bootstrapFailed tells what is wrong with an entry of a list.
func (n *Node) bootstrapFailed(entry, source, reason string) {
	n.log.Warn("bootstrap", "entry", entry, "source", source, "err", reason)
	n.publish(EventBootstrapFailed, nil, map[string]any{"target": entry, "source": source, "reason": reason})
}

// ownAddrs are the node's own underlay addresses.
func (n *Node) ownAddrs() []netip.AddrPort { return append(n.out.own.Local(), n.endpoints()...) }

// inMesh reports whether an address is one of the network's own, and so no way to it.
func (n *Node) inMesh(a netip.Addr) bool {
	return slices.ContainsFunc(n.overlays(), func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// reached tells the addresses at which members in session answer, as of now: whoever is there is known.
func (n *Node) reached() func(netip.AddrPort) bool {
	if !n.member.Load() {
		return func(netip.AddrPort) bool { return false }
	}
	moved := time.Unix(0, n.seek.moved.Load())
	known := make(map[netip.AddrPort]bool)
	for _, id := range n.mesh.Sessions() {
		info, _ := n.conn.Peer(id)
		for _, c := range info.Candidates {
			if c.Kind == magicsock.PathDirect && c.LastPong.After(moved) {
				known[c.Addr] = true
			}
		}
	}
	return func(a netip.AddrPort) bool { return known[a] }
}
