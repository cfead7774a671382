package control

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

// Signals are sealed packets by which two members find a path to each other. While there is none they go from session to
// session; the router (package ring) says by which:
//
//	Signal ─▶ router ── frames ──▶ partner's router ── frames ──▶ ··· target's router ─▶ OnSignal
//
// With a signal for somebody who may be anywhere goes the question where that one is (whereis.go).

// partners are the members that an established session leads to, and what else the router goes by. Immutable.
type partners struct {
	of   map[identity.PeerID]*session
	view ring.View
}

// notePartners lets the router know who is there. Called with mu held, after sessions came or went.
func (m *Mesh) notePartners() {
	p := &partners{
		of:   make(map[identity.PeerID]*session, len(m.sessions)),
		view: ring.View{Ring: m.topology.ring, Mode: m.mode, Prefer: m.homesOf},
	}
	if p.view.Ring == nil {
		p.view.Ring = ring.New(m.network.ID, nil)
	}
	for id, s := range m.sessions {
		if s.done {
			p.of[id] = s
			p.view.Sessions = append(p.view.Sessions, id)
		}
	}
	slices.SortFunc(p.view.Sessions, identity.PeerID.Compare)
	m.partners.Store(p)
}

// noteMembers lets the router know who is a member. Called with mu held, after they were looked at.
func (m *Mesh) noteMembers() {
	if v := &m.partners.Load().view; v.Ring != m.topology.ring || v.Mode != m.mode {
		m.notePartners()
	}
}

// homesOf are the members that a member is reached well through.
func (m *Mesh) homesOf(id identity.PeerID) []identity.PeerID {
	p := m.current.Load().Peer(id)
	if p == nil {
		return nil
	}
	var all []identity.PeerID
	for _, h := range p.Homes {
		if !h.Member.IsZero() {
			all = append(all, h.Member)
		}
	}
	return all
}

// signals are this node's place among those who carry them. Safe for concurrent use; nothing waits for Mesh.mu.
type signals struct {
	mu      sync.Mutex
	router  *ring.Router // this and all below guarded by mu
	with    *partners    // that the router knows of
	planned time.Time    // when Run lets the router tick; zero: not by itself
	search  search
}

// route has the router do something and sends what comes of it.
func (m *Mesh) route(do func(r *ring.Router, now, mesh time.Time) ring.Actions) ring.Actions {
	now := m.wall()
	x := &m.signals
	x.mu.Lock()
	if p := m.partners.Load(); p != x.with {
		x.with = p
		x.router.SetView(p.view)
	}
	with := x.with
	a := do(x.router, now, now.Add(m.Skew()))
	sooner := x.sooner()
	x.mu.Unlock()
	for _, s := range a.Sends {
		if to := with.of[s.To]; to == nil || to.out.putSignal(frame{typeRing, s.Frame}) {
			m.counts.signalsLost.Add(1)
		}
	}
	if sooner {
		m.poke()
	}
	return a
}

// sooner reports whether the router is to tick before the time that was planned, once. Called with mu held.
func (x *signals) sooner() bool {
	next := x.router.Next()
	if next.IsZero() || !x.planned.IsZero() && !next.Before(x.planned) {
		return false
	}
	x.planned = next
	return true
}

// plan is when the router is to tick; zero: not by itself.
func (x *signals) plan() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.planned = x.router.Next()
	return x.planned
}

// tickSignals sends again what a partner did not take. Called without mu.
func (m *Mesh) tickSignals() {
	m.route(func(r *ring.Router, now, _ time.Time) ring.Actions { return r.Tick(now) })
}

// Signal sends a sealed packet of at most 1280 bytes to a member without a path, over sessions: that with the member
// itself, whose path may be the one that broke, or those that lead towards it, and in a small network two at once. It
// reports whether any session took it, which is not whether it arrives. It never waits, and may be called with any lock
// held. borrowed: pkt is only used during the call.
func (m *Mesh) Signal(to identity.PeerID, pkt []byte) bool {
	err := ring.ErrSignal
	if len(pkt) > 0 {
		err = m.originate(to, ring.Call, pkt)
	}
	if errors.Is(err, ring.ErrSignal) {
		m.counts.signalsRefused.Add(1) // the router counts the rest
	}
	if err == nil {
		m.seek(to)
	}
	return err == nil
}

// originate sends a signal of this node.
func (m *Mesh) originate(to identity.PeerID, t ring.Type, payload []byte) (err error) {
	m.route(func(r *ring.Router, now, mesh time.Time) (a ring.Actions) {
		s := r.Draft(mesh, to, t)
		s.Payload = payload
		a, err = r.Originate(now, s)
		return a
	})
	return err
}

// handleRing takes a frame of a neighbour's router.
func (m *Mesh) handleRing(s *session, body []byte) error {
	a := m.route(func(r *ring.Router, now, mesh time.Time) ring.Actions { return r.Handle(now, mesh, s.peer, body) })
	if a.Bad {
		return errProtocol
	}
	if a.Deliver == nil {
		return nil
	}
	switch a.Deliver.Type {
	case ring.Call:
		if m.cfg.OnSignal != nil {
			m.cfg.OnSignal(a.Deliver.Payload)
		}
	case ring.WhereIs:
		m.tellWhere(s, a.Deliver)
	case ring.HereIs:
		m.learnWhere(s, a.Deliver)
	}
	return nil
}

// reachKnown reports whether the map says where a member may be found.
func reachKnown(p *netmap.Peer) bool { return p != nil && (len(p.Endpoints) > 0 || len(p.Homes) > 0) }
