package meshnet

import (
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock"
	"github.com/meshnet/meshnet/netmap"
)

// want is told that a handshake with a member is tried.
func (n *Node) want(id identity.PeerID) {
	n.mu.Lock()
	if n.asked[id].IsZero() {
		n.asked[id] = time.Now()
	}
	n.mu.Unlock()
	n.log.Debug("handshake", "peer", id)
}

// heard ends the wait for a member.
func (n *Node) heard(id identity.PeerID) {
	n.mu.Lock()
	delete(n.asked, id)
	n.mu.Unlock()
}

// established is told of a member's new session.
func (n *Node) established(id identity.PeerID, first bool) {
	n.log.Debug("session", "peer", id, "first", first)
	n.conn.Connected(id)
	n.heard(id)
	if first && n.member.Load() {
		n.mesh.Nudge(id)
	}
}

// onSocket takes the events of the socket.
func (n *Node) onSocket(e magicsock.Event) {
	if !n.member.Load() {
		return // joining: nobody is known yet
	}
	current := n.mesh.Map()
	peer := current.Peer(e.Peer)
	if peer == nil {
		return
	}
	switch e.Type {
	case magicsock.EventReachable:
		n.log.Debug("reachable", "peer", e.Peer, "endpoint", e.Path.Addr)
		n.heard(e.Peer)
		n.tun.Kick(e.Peer)
	case magicsock.EventRestarted:
		n.log.Debug("restarted", "peer", e.Peer)
		n.tun.Renew(e.Peer)
		n.mesh.Nudge(e.Peer)
	case magicsock.EventObserved:
		n.mesh.PathWorks(e.Peer, e.Path.Addr)
		n.observed(e.Peer, e.Observed, peer.HasRole(netmap.RoleAdmin))
	case magicsock.EventClock:
		n.mesh.Sample(e.Peer, e.Clock)
	case magicsock.EventPathChanged:
		n.log.Debug("path", "peer", e.Peer, "endpoint", e.Path.Addr, "kind", e.Path.Kind, "reason", e.Reason)
		n.publish(EventPathChanged, peer, map[string]any{
			"path": n.pathStatus(magicsock.PeerInfo{Path: e.Path, Reason: e.Reason}),
			"from": n.pathStatus(magicsock.PeerInfo{Path: e.Old}),
		})
	}
}

// observed takes where a member sees us.
func (n *Node) observed(by identity.PeerID, addr netip.AddrPort, admin bool) {
	n.out.own.Observed(by, addr, admin)
	n.out.poke()
}

// onMesh takes the events of control.
func (n *Node) onMesh(e control.Event) {
	peer := n.mesh.Map().Peer(e.Peer)
	switch e.Type {
	case control.EventSessionUp:
		n.heard(e.Peer)
		n.setSession(e.Peer, true)
		n.seek.sought(n.lacking())
		if peer != nil {
			n.log.Info("up", "peer", e.Peer, "name", peer.Name)
			n.publish(EventPeerConnected, peer, nil)
		}
	case control.EventSessionDown:
		n.setSession(e.Peer, false)
		n.seek.sought(n.lacking())
		n.out.own.Forget(e.Peer)
		n.out.poke()
		if e.Left { // its next start is a new contact; packets until then are parked, not sent into the void
			n.tun.Disconnect(e.Peer)
		}
		if peer != nil {
			n.log.Info("down", "peer", e.Peer, "name", peer.Name, "left", e.Left)
			n.publish(EventPeerDisconnected, peer, map[string]any{"reason": e.Reason, "left": e.Left})
		}
	case control.EventDialFailed:
		if peer != nil {
			n.publish(EventConnectionFailed, peer, map[string]any{"reason": e.Reason})
		}
	case control.EventObserved:
		n.observed(e.Peer, e.Observed, e.Admin)
	case control.EventFound:
		n.log.Debug("found", "peer", e.Peer, "endpoint", e.Place)
		if err := n.reconcile(); err != nil { // it may be known only since its introduction
			n.log.Error("apply the network map", "err", err)
		}
		n.seek.links.answered(e.Place.Addr)
		n.conn.Found(e.Peer, e.Place, time.Duration(e.Skew))
		n.conn.Contact(e.Peer)
	case control.EventSkew:
		n.conn.SetSkew(time.Duration(e.Skew))
	case control.EventIdentityCloned:
		n.log.Error("another running node has this node's key")
		n.publish(EventIdentityCloned, nil, nil)
	case control.EventNameConflict:
		n.publish(EventNameConflict, peer, map[string]any{"name": e.Name})
	case control.EventInviteOverused:
		n.publish(EventInviteOverused, nil, map[string]any{"invite": e.Name})
	case control.EventRevoked:
		id := e.Peer.String()
		n.bus.publish(Event{Time: time.Now().UTC(), Type: EventMemberRevoked, Peer: &id})
		if e.Peer == n.id.ID() {
			n.log.Error("this node was revoked")
			n.stop(ErrRevoked)
		}
	}
}

func (n *Node) setSession(id identity.PeerID, up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if up {
		n.sessions[id] = true
	} else {
		delete(n.sessions, id)
	}
}
