package control

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

const (
	maxSessions = 64
	keptFree    = 8           // places beyond, for those whom the ring asks for
	keepAfter   = time.Minute // a new admission is kept by then
	maxRest     = time.Hour   // Run looks about at least so often
	// maxForesight is how long a moment in the mesh's time is trusted to stay where it is in the host's: either clock may
	// be set meanwhile.
	maxForesight = time.Minute
)

// Run keeps sessions with the members, accepts theirs, lets joiners in and saves, until ctx is done. Then it says
// goodbye and returns after everything it started has ended.
func (m *Mesh) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	// Sessions outlast ctx until they were told why they end.
	sessions, endSessions := context.WithCancel(context.WithoutCancel(ctx))
	defer endSessions()
	wg.Go(func() { m.serve(ctx, sessions, &wg) })
	wg.Go(func() { m.answer(ctx) })
	wg.Go(func() { m.save(ctx) })
	timer := time.NewTimer(maxRest)
	defer timer.Stop()
	for {
		for _, p := range m.work() {
			wg.Go(func() { m.dial(sessions, p) })
		}
		timer.Reset(m.rest())
		select {
		case <-ctx.Done():
			m.endSessions(reasonGoodbye)
			endSessions()
			wg.Wait()
			return errors.Join(m.flush(), m.saveBook())
		case <-m.dirty:
		case <-timer.C:
		}
	}
}

// work does what is due. It returns whom to dial.
func (m *Mesh) work() []netmap.Peer {
	m.hear()
	m.housekeep()
	m.publish()
	m.organise()
	return m.due()
}

// organise decides with whom to keep sessions.
func (m *Mesh) organise() {
	now := m.wall()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.topology.later {
		m.lineUp(id)
	}
	m.topology.later = nil
	m.arrange(now)
	m.noteMembers()
	m.shed(now)
}

// rest is how long there is nothing to do, unless poke is called.
func (m *Mesh) rest() time.Duration {
	now := m.wall()
	next := now.Add(maxRest)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if t := m.signals.plan(); !t.IsZero() {
		sooner(t)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.provisional {
		sooner(p.until)
	}
	for _, t := range [...]time.Time{m.keepAt, m.drawAt, m.spread.asks.next(), m.spread.serve.next(), m.topology.next, m.topology.endAt} {
		if !t.IsZero() {
			sooner(t)
		}
	}
	if t, any := m.book.nextDial(); any && m.dialRoom() > 0 {
		if t.Before(m.topology.dialAt) && m.mode == ring.Ringed {
			t = m.topology.dialAt
		}
		sooner(t)
	}
	mesh := m.now()
	for _, t := range [...]time.Time{m.topology.state.NextDue, m.namesDue} {
		if !t.IsZero() {
			sooner(now.Add(min(t.Sub(mesh), maxForesight)))
		}
	}
	return next.Sub(now)
}

// serve accepts control streams.
func (m *Mesh) serve(ctx, sessions context.Context, wg *sync.WaitGroup) {
	stop := context.AfterFunc(ctx, func() { m.cfg.Listener.Close() })
	defer stop()
	opening := newSlots()
	for {
		c, err := m.cfg.Listener.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				m.log.Error("accept control stream", "err", err)
			}
			return
		}
		release, ok := opening.take(remoteAddr(c))
		if !ok {
			c.Close() // full of streams that do not get on
			continue
		}
		wg.Go(func() {
			defer release()
			m.accept(sessions, c, release)
		})
	}
}

// accept finds out what a stream is for. opened is called when it got somewhere.
func (m *Mesh) accept(ctx context.Context, c net.Conn, opened func()) {
	defer c.Close()
	conn := wire.New(c, startFor, writeFor)
	stop := context.AfterFunc(ctx, conn.Abort)
	defer stop()
	kind, err := conn.ReadPreface()
	if err != nil || conn.WritePreface(kind) != nil {
		return
	}
	from := remoteAddr(c)
	peer, member := m.whoHas(from)
	switch {
	case kind == wire.KindSession && member:
		_, _ = m.run(ctx, peer, acceptor, conn, opened) // told already
	case kind == wire.KindJoin:
		m.let(conn, from)
	}
}

func remoteAddr(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// whoHas finds the member of a control address.
func (m *Mesh) whoHas(control netip.Addr) (identity.PeerID, bool) {
	current := m.current.Load()
	if current == nil {
		return identity.PeerID{}, false
	}
	if p := current.ByIP(control); p != nil && p.Control == control && p.ID != m.self.ID() {
		return p.ID, true
	}
	return identity.PeerID{}, false
}

// ended logs why a session ended and counts what a bad peer did.
func (m *Mesh) ended(s *session, err error) {
	switch {
	case faultOf(err) != "":
		m.counts.badPeers.Add(1)
		m.log.Warn("control session ended", "peer", s.peer, "err", err)
	default:
		m.counts.sessionErrors.Add(1)
		m.log.Debug("control session ended", "peer", s.peer, "err", err)
	}
}

// enter decides whether a stream becomes the session with its peer: one node, one session. Of two that are opened at
// once the lower PeerID's stays; one that lives is not torn down, unless the peer restarted.
func (m *Mesh) enter(s *session, card *Card, h *hello) error {
	err := m.update(func(u *update) error {
		if !m.ledger.State(m.now()).IsMember(s.peer) {
			return m.refuse(s, reasonRevoked)
		}
		if other := m.sessions[s.peer]; other != nil && other != s {
			switch {
			case other.done && other.boot == card.Boot:
				return m.refuse(s, reasonDuplicate)
			case !other.done && (other.role == dialer) == (m.self.ID().Compare(s.peer) < 0) && other.role != s.role:
				return m.refuse(s, reasonDuplicate)
			}
			m.end(other, reasonDuplicate)
		} else if other == nil && len(m.sessions) >= m.places(s.peer) {
			return m.refuse(s, reasonFull)
		}
		m.sessions[s.peer], s.boot = s, card.Boot
		u.from = s
		if err := m.mergeCard(u, h.Card); err != nil {
			return err
		}
		if h.Reach != nil {
			if err := m.mergeReach(u, h.Reach); err != nil {
				return err
			}
		}
		if seen, err := parseEndpoint(h.You); h.You != nil && err == nil {
			member, _ := m.ledger.State(m.now()).Member(s.peer)
			u.tell(Event{Type: EventObserved, Peer: s.peer, Observed: seen, Admin: member.Admin})
		}
		return nil
	})
	return err
}

// places is how many sessions there may be when a member asks for one. Called with mu held.
func (m *Mesh) places(id identity.PeerID) int {
	if m.topology.wanted[id] {
		return maxSessions + keptFree
	}
	return maxSessions
}

// refuse makes the session end with a reason. Called with mu held.
func (m *Mesh) refuse(s *session, reason string) error {
	s.reason = reason
	return &closedError{reason}
}

// end makes a session of ours end with a reason. Called with mu held.
func (m *Mesh) end(s *session, reason string) {
	s.reason = reason
	s.abort()
	if m.sessions[s.peer] == s {
		delete(m.sessions, s.peer)
		m.notePartners()
	}
}

// endSessions ends all, saying why.
func (m *Mesh) endSessions(reason string) {
	m.mu.Lock()
	all := make([]*session, 0, len(m.sessions))
	for _, s := range m.sessions {
		all = append(all, s)
	}
	for _, s := range all {
		m.end(s, reason)
	}
	m.mu.Unlock()
}

// established is called when the five steps of a session are over.
func (m *Mesh) established(s *session) {
	full := false
	_ = m.update(func(u *update) error { // f has no failure
		if m.sessions[s.peer] != s {
			return nil
		}
		s.done = true
		full = m.mode == ring.Full
		m.topology.stale = true
		m.notePartners()
		delete(m.dialing, s.peer)
		m.book.dialed(m.wall(), s.peer, true, 0)
		m.counts.sessions.Add(1)
		if !m.upPeers[s.peer] {
			m.upPeers[s.peer] = true
			u.tell(Event{Type: EventSessionUp, Peer: s.peer})
		}
		return nil
	})
	if full { // what came while the steps ran was not pushed; else the first comparison is soon
		m.queueDigest(s)
	}
}

// leave takes a session out after it ended.
func (m *Mesh) leave(s *session, err error) {
	m.mu.Lock()
	if m.sessions[s.peer] == s {
		delete(m.sessions, s.peer)
		m.notePartners()
	}
	m.topology.stale = true
	m.lineUp(s.peer)
	if m.sessions[s.peer] == nil && m.upPeers[s.peer] {
		delete(m.upPeers, s.peer)
		m.events = append(m.events, Event{
			Type: EventSessionDown, Peer: s.peer, Reason: reasonOf(err), Left: closedFor(err, reasonGoodbye),
		})
	}
	if s.reason == "" {
		s.reason = faultOf(err)
	}
	m.mu.Unlock()
	m.poke()
}

// faultOf is the reason to give for an error of the other side; "" when it is no fault of it.
func faultOf(err error) string {
	switch {
	case errors.Is(err, errNetwork):
		return reasonNetwork
	case errors.Is(err, errVersion):
		return reasonVersion
	case errors.Is(err, errIdentity):
		return reasonIdentity
	case errors.Is(err, errProtocol), errors.Is(err, errConfirm):
		return reasonProtocol
	}
	return ""
}

// housekeep does what time alone calls for.
func (m *Mesh) housekeep() {
	m.askWhere()
	m.tickSignals()
	now := m.wall()
	m.mu.Lock()
	for addr, p := range m.provisional {
		if !now.Before(p.until) {
			delete(m.provisional, addr)
			gone := p.Provisional
			gone.Over = true
			defer m.cfg.Provisional(gone)
		}
	}
	m.askDue(now)
	m.goOnServing(now)
	var unkept []identity.Hash
	admin := m.self.ID() == m.ledger.Genesis().Founder
	if admin {
		unkept = m.ledger.State(m.now()).Unkept
	}
	due := false
	switch {
	case !admin || len(unkept) == 0:
		m.keepAt = time.Time{}
	case m.keepAt.IsZero():
		m.keepAt = now.Add(keepAfter)
	default:
		due = !now.Before(m.keepAt)
	}
	m.mu.Unlock()
	if due {
		m.keep()
	}
}

// keep fixes the places of new admissions, as an admin's node does.
func (m *Mesh) keep() {
	err := m.update(func(u *update) error {
		u.urgent = true
		_, err := m.ledger.Keep(m.self, m.ledger.State(m.now()).Unkept, m.now())
		return err
	})
	if err != nil {
		m.log.Error("keep admissions", "err", err)
	}
}

// Sessions are the members with whom a session is established.
func (m *Mesh) Sessions() []identity.PeerID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []identity.PeerID
	for id, s := range m.sessions {
		if s.done {
			all = append(all, id)
		}
	}
	slices.SortFunc(all, identity.PeerID.Compare)
	return all
}
