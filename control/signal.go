package control

import (
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/netmap"
)

// Signals are sealed packets by which two members find a path to each other. While there is none, somebody in session
// with both carries them:
//
//	origin ── signal{target} ──▶ partner ── the same ──▶ target ──▶ OnSignal
//	       ◀── noRoute{target} ── partner without a session with the target
//
// A partner passes them on to the target itself and to nobody else, so they never go round.

const (
	maxSignal = 1280 // bytes
	// signalWays is how many partners carry a signal.
	signalWays = 2
	// signalRate is how many signals a second a neighbour may send, and how many at once; signalRateEach, for one target.
	signalRate, signalRateEach = 100, 10
	// noRouteFor is how long a partner is left alone that has no session with a target.
	noRouteFor = 5 * time.Second
	maxNoRoute = 256
)

// partners are the members that an established session leads to. Immutable.
type partners struct {
	of    map[identity.PeerID]*session
	order []*session // by peer
}

// notePartners lets Signal know who is there. Called with mu held, after sessions came or went.
func (m *Mesh) notePartners() {
	p := &partners{of: make(map[identity.PeerID]*session, len(m.sessions))}
	for id, s := range m.sessions {
		if s.done {
			p.of[id] = s
			p.order = append(p.order, s)
		}
	}
	slices.SortFunc(p.order, func(a, b *session) int { return a.peer.Compare(b.peer) })
	m.partners.Store(p)
}

// Signal sends a sealed packet of at most 1280 bytes to a member without a path: over the session with it, whose path
// may be the one that broke, and over those with up to 2 others in all, the target's homes first. It reports whether any
// session took it, which is not whether it arrives. It never waits, and may be called with any lock held. borrowed: pkt
// is only used during the call.
func (m *Mesh) Signal(to identity.PeerID, pkt []byte) bool {
	target := m.current.Load().Peer(to)
	if target == nil || len(pkt) == 0 || len(pkt) > maxSignal {
		m.counts.signalsNoWay.Add(1)
		return false
	}
	ways := m.waysTo(target)
	if len(ways) == 0 {
		m.counts.signalsNoWay.Add(1)
		return false
	}
	f := encode(typeSignal, &signal{Target: to, Payload: pkt})
	for _, s := range ways {
		m.counts.signalsSent.Add(1)
		m.putSignal(s, f)
	}
	return true
}

// waysTo are the sessions to send a signal over. Among others than the target and its homes everybody has a turn.
func (m *Mesh) waysTo(target *netmap.Peer) []*session {
	var ways []*session
	with, now := m.partners.Load(), m.wall()
	add := func(s *session) {
		if s != nil && len(ways) < signalWays && !slices.Contains(ways, s) && !s.noRoute.to(target.ID, now) {
			ways = append(ways, s)
		}
	}
	add(with.of[target.ID])
	for _, h := range target.Homes {
		add(with.of[h.Member])
	}
	turn := m.turn.Add(1)
	for i := range with.order {
		add(with.order[(turn+uint64(i))%uint64(len(with.order))])
	}
	return ways
}

func (m *Mesh) putSignal(s *session, f frame) {
	if s.out.putSignal(f) {
		m.counts.signalsLost.Add(1)
	}
}

// handleSignal takes a signal that is for this node, or for somebody in session with it.
func (m *Mesh) handleSignal(s *session, body []byte) error {
	var sig signal
	if err := dcbor.Unmarshal(body, &sig); err != nil || len(sig.Payload) == 0 || len(sig.Payload) > maxSignal {
		return errProtocol
	}
	now := m.wall()
	if !s.signals.Take(now, signalRate, signalRate) {
		m.counts.signalsLimited.Add(1)
		return nil
	}
	if sig.Target == m.self.ID() {
		m.counts.signalsDelivered.Add(1)
		if m.cfg.OnSignal != nil {
			m.cfg.OnSignal(sig.Payload)
		}
		return nil
	}
	to := m.partners.Load().of[sig.Target]
	if to == nil || sig.Target == s.peer {
		m.counts.signalsNoRoute.Add(1)
		m.putSignal(s, encode(typeNoRoute, &noRoute{sig.Target}))
		return nil
	}
	if !s.mayForward(sig.Target, now) {
		m.counts.signalsLimited.Add(1)
		return nil
	}
	m.counts.signalsForwarded.Add(1)
	m.putSignal(to, frame{typeSignal, body})
	return nil
}

// mayForward keeps to the quota of the neighbour and a target. Called by the reader only.
func (s *session) mayForward(target identity.PeerID, now time.Time) bool {
	b := s.signalsTo[target]
	if b == nil { // at most one for each partner that there was while the session lived
		b = new(bucket.Bucket)
		s.signalsTo[target] = b
	}
	return b.Take(now, signalRateEach, signalRateEach)
}

// handleNoRoute notes that a partner does not lead to a target.
func (m *Mesh) handleNoRoute(s *session, body []byte) error {
	var n noRoute
	if err := dcbor.Unmarshal(body, &n); err != nil {
		return errProtocol
	}
	s.noRoute.add(n.Target, m.wall())
	return nil
}

// deadEnds are the targets that a partner lately had no session with. Safe for concurrent use.
type deadEnds struct {
	mu    sync.Mutex
	until map[identity.PeerID]time.Time // guarded by mu
}

func (d *deadEnds) add(id identity.PeerID, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil || len(d.until) >= maxNoRoute {
		d.until = make(map[identity.PeerID]time.Time)
	}
	d.until[id] = now.Add(noRouteFor)
}

func (d *deadEnds) to(id identity.PeerID, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.until[id])
}
