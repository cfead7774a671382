package control

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

const (
	maxDials = 10
	dialFor  = 5 * time.Second
)

// lineUp has a member dialled in its turn, unless it has a session or is being dialled. Called with mu held.
func (m *Mesh) lineUp(id identity.PeerID) {
	if m.sessions[id] == nil && !m.dialing[id] && !m.revoked[id] {
		m.book.want(id)
	}
}

// dialRoom is how many dials may begin. Called with mu held.
func (m *Mesh) dialRoom() int {
	return min(maxDials-len(m.dialing), maxSessions-len(m.sessions)-len(m.dialing))
}

// dialDue dials the members without a session whose backoff is over. Who waits longest is next.
func (m *Mesh) dialDue(ctx context.Context, wg *sync.WaitGroup) {
	current := m.current.Load()
	if current == nil || ctx.Err() != nil {
		return
	}
	var due []netmap.Peer
	now := m.wall()
	m.mu.Lock()
	for m.dialRoom() > 0 {
		id, ok := m.book.take(now)
		if !ok {
			break
		}
		p := current.Peer(id)
		if p == nil || m.sessions[id] != nil || m.dialing[id] {
			continue // lined up again by the map that has it, or when that ends
		}
		m.dialing[id] = true
		due = append(due, *p) // a copy: a session may outlive the map by days
	}
	m.mu.Unlock()
	for _, p := range due {
		wg.Go(func() { m.dial(ctx, p) })
	}
}

// dial opens a session with a member and stays with it until it ends.
func (m *Mesh) dial(ctx context.Context, p netmap.Peer) {
	m.counts.dials.Add(1)
	s, err := m.dialSession(ctx, p)
	m.mu.Lock()
	established := s != nil && s.done
	if !established {
		delete(m.dialing, p.ID) // else it was when the session was established
	}
	if m.sessions[p.ID] == nil && ctx.Err() == nil {
		m.book.dialed(m.wall(), p.ID, false, m.rng.Float64())
	}
	m.lineUp(p.ID)
	duplicate := closedFor(err, reasonDuplicate)
	if failed := !established && !duplicate && ctx.Err() == nil; failed {
		m.counts.dialsFailed.Add(1)
		m.events = append(m.events, Event{Type: EventDialFailed, Peer: p.ID, Reason: reasonOf(err)})
	}
	m.mu.Unlock()
	if s == nil && ctx.Err() == nil {
		m.introduce(&p)
	}
	m.poke()
}

// dialSession is nil when no control stream came about.
func (m *Mesh) dialSession(ctx context.Context, p netmap.Peer) (*session, error) {
	dialCtx, cancel := context.WithTimeout(ctx, dialFor)
	c, err := m.cfg.Dial(dialCtx, netip.AddrPortFrom(p.Control, Port))
	cancel()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	conn := wire.New(c, startFor, writeFor)
	stop := context.AfterFunc(ctx, conn.Abort)
	defer stop()
	if err := conn.WritePreface(wire.KindSession); err != nil {
		return nil, err
	}
	if _, err := conn.ReadPreface(); err != nil {
		return nil, err
	}
	return m.run(ctx, p.ID, dialer, conn, nil)
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
