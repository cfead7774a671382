package meshnet

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/netmap"
	"github.com/meshnet/meshnet/relay"
)

const (
	// passFor is how long a pass that a member makes for itself is good, and passRenew how long before its end there is
	// another.
	passFor   = 24 * time.Hour
	passRenew = 6 * time.Hour
)

// passes are what relay servers want to see. Safe for concurrent use.
type passes struct {
	mu    sync.Mutex
	token []byte    // of the invite, until this node is a member; guarded by mu
	hints []string  // relay servers of the invite, until then; guarded by mu
	own   []byte    // guarded by mu
	until time.Time // own is good; guarded by mu
}

// use takes the pass of a token.
func (p *passes) use(token []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = token
}

// openPool makes the node's side of all relay servers. Those that the user named are used from the start.
func (n *Node) openPool() {
	n.pool = relay.NewPool(relay.PoolConfig{
		Logger: n.log, Identity: n.id, Pass: n.relayPass, HomesOf: n.homesOf, Dial: n.dialRelay,
		Deliver: func(batch []datagram.Relayed, done func()) { n.conn.DeliverRelayed(batch, done) },
		Events:  n.onRelay,
	})
	n.setRelayServers()
}

// onRelay takes the events of the pool.
func (n *Node) onRelay(e relay.PoolEvent) {
	data := map[string]any{"url": e.URL, "reason": optional(errorText(e.Err))}
	switch e.Kind {
	case relay.Connected:
		n.log.Info("relay connected", "relay", e.URL)
		n.publish(EventRelayConnected, nil, map[string]any{"url": e.URL})
		n.out.reporter.LinkChanged() // there is another STUN server
	case relay.Lost:
		n.log.Info("relay lost", "relay", e.URL, "err", e.Err)
		n.publish(EventRelayLost, nil, data)
	case relay.Refused:
		n.log.Warn("relay refused", "relay", e.URL, "err", e.Err)
		n.publish(EventRelayLost, nil, data)
	}
	n.conn.RelayChanged()
	n.out.poke()
}

// setRelayServers tells the pool which relay servers there are.
func (n *Node) setRelayServers() {
	if err := n.pool.SetServers(n.relayServers()); err != nil {
		n.log.Warn("relay servers", "err", err)
	}
}

// dialRelay connects to a relay server: to the one in this node without a way around by its public address, where its
// pin proves that it is the one.
func (n *Node) dialRelay(ctx context.Context, u relay.URL) (relay.Stream, error) {
	if at := n.relay.Load().addr(); at.IsValid() && u.String() == n.relay.Load().url() && u.Pin != [32]byte{} {
		u.Port = at.Port()
		if u.Host = at.Addr().Unmap().String(); at.Addr().IsUnspecified() {
			u.Host = "localhost"
		}
	}
	return relay.Dial(ctx, u, relay.DialConfig{Roots: n.cfg.RelayRoots})
}

// useRelay takes the relay server of a token's hint.
func (n *Node) useRelay(url string) {
	n.passes.mu.Lock()
	if !slices.Contains(n.passes.hints, url) {
		n.passes.hints = append(n.passes.hints, url)
	}
	n.passes.mu.Unlock()
	n.setRelayServers()
}

// signal carries a sealed signal to a member by control sessions.
func (n *Node) signal(to identity.PeerID, pkt []byte) bool {
	return n.member.Load() && n.mesh.Signal(to, pkt)
}

// relayPass is the pass to show now; nil: there is none.
func (n *Node) relayPass() []byte {
	n.passes.mu.Lock()
	defer n.passes.mu.Unlock()
	if !n.member.Load() {
		return n.passes.token
	}
	if now := time.Now(); now.Add(passRenew).After(n.passes.until) {
		n.passes.until = now.Add(passFor)
		n.passes.own = relay.NewPass(n.mesh.RelayKey(), n.id.ID(), n.passes.until)
	}
	return n.passes.own
}

// bearerPass is a pass for whoever holds the token that it goes into; until zero: for ever.
func (n *Node) bearerPass(until time.Time) []byte {
	if until.IsZero() {
		until = time.Now().AddDate(100, 0, 0)
	}
	return relay.NewPass(n.mesh.RelayKey(), identity.PeerID{}, until)
}

// relayServers are the URLs of all relay servers that may be home to this node: those that the user named, those that
// members run and an admin allows, and those that admins are at home at: whoever joins them is found there too.
func (n *Node) relayServers() []string {
	urls := slices.Clone(n.cfg.RelayServers)
	add := func(url string) {
		if url != "" && !slices.Contains(urls, url) {
			urls = append(urls, url)
		}
	}
	add(n.relay.Load().url())
	if !n.member.Load() {
		n.passes.mu.Lock()
		defer n.passes.mu.Unlock()
		for _, url := range n.passes.hints {
			add(url)
		}
	} else {
		m := n.mesh.Map()
		for i := range m.Peers {
			add(m.Peers[i].RelayURL)
			if m.Peers[i].HasRole(netmap.RoleAdmin) {
				for _, h := range m.Peers[i].Homes {
					add(h.Relay)
				}
			}
		}
	}
	return urls
}

// homesOf are the relay servers that lead to a member.
func (n *Node) homesOf(id identity.PeerID) []string {
	if !n.member.Load() {
		return nil
	}
	p := n.mesh.Map().Peer(id)
	if p == nil {
		return nil
	}
	var urls []string
	for _, h := range p.Homes {
		if h.Relay != "" {
			urls = append(urls, h.Relay)
		}
	}
	return urls
}

// stunServers are the user's STUN servers, and those beside relay servers.
func (n *Node) stunServers() []string {
	all := slices.Clone(n.cfg.STUN)
	for _, s := range n.pool.Status() {
		if s.STUN != "" {
			all = append(all, s.STUN)
		}
	}
	return all
}

// homeNames are homes as people know them: relay URLs and names of members.
func (n *Node) homeNames(homes []netmap.Home) []string {
	names := []string{}
	for _, h := range homes {
		if h.Relay != "" {
			names = append(names, h.Relay)
		} else {
			names = append(names, n.nameOf(h.Member))
		}
	}
	return names
}

// nameOf is what people call a member; its id while it has no name.
func (n *Node) nameOf(id identity.PeerID) string {
	if p := n.mesh.Map().Peer(id); p != nil && p.Name != "" {
		return p.Name
	}
	return id.String()
}
