package control

import (
	"context"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/netmap"
)

const (
	maxDials = 10
	dialFor  = 5 * time.Second
)

// lineUp has a member dialled in its turn, unless it has a session, is being dialled or is not wanted. Called with mu held.
func (m *Mesh) lineUp(id identity.PeerID) {
	if m.sessions[id] == nil && !m.dialing[id] && !m.revoked[id] && m.wants(id) {
		m.book.want(id)
	}
}

// dialRoom is how many dials may begin. Called with mu held.
func (m *Mesh) dialRoom() int {
	return min(maxDials-len(m.dialing), maxSessions-len(m.sessions)-len(m.dialing))
}

// In a larger network dials are begun one after the other, about dialEvery apart, so that nobody's line is full when
// everybody starts at once.
const dialEvery = 1500 * time.Millisecond

// dialGap is how long after a dial the next one begins: soon, while nobody is there. Called with mu held.
func (m *Mesh) dialGap() time.Duration {
	if len(m.sessions) == 0 {
		return dialEvery / 5
	}
	return dialEvery/2 + time.Duration(m.rng.Int64N(int64(dialEvery)))
}

// mayDial reports whether the next dial may begin. Called with mu held.
func (m *Mesh) mayDial(now time.Time) bool {
	return m.mode == ring.Full || !now.Before(m.topology.dialAt)
}

// due takes the members that are to be dialled now.
func (m *Mesh) due() []netmap.Peer {
	current := m.current.Load()
	if current == nil {
		return nil
	}
	var due []netmap.Peer
	m.takeDue(func(id identity.PeerID) bool {
		p := current.Peer(id)
		if p != nil {
			due = append(due, *p) // a copy: a session may outlive the map by days
		}
		return p != nil
	})
	return due
}

// takeDue takes those out of the line who have no session and whose backoff is over. Who waits longest is next. take
// reports whether somebody can be dialled; if not, it is looked at again by the next organise.
func (m *Mesh) takeDue(take func(identity.PeerID) bool) {
	now := m.wall()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.dialRoom() > 0 && m.mayDial(now) {
		id, ok := m.book.take(now)
		if !ok {
			return
		}
		if m.sessions[id] != nil || m.dialing[id] || !m.wants(id) {
			continue // lined up again when that ends, or when it is wanted
		}
		m.topology.dialAt = now.Add(m.dialGap())
		if m.dialing[id] = take(id); !m.dialing[id] {
			delete(m.dialing, id)
			m.topology.later = append(m.topology.later, id)
		}
	}
}

// dial opens a session with a member and stays with it until it ends.
func (m *Mesh) dial(ctx context.Context, p netmap.Peer) {
	m.counts.dials.Add(1)
	s, err := m.dialSession(ctx, p)
	m.dialled(p.ID, s, err, ctx.Err() == nil)
	if s == nil && ctx.Err() == nil {
		m.introduce(&p)
	}
	m.poke()
}

// dialled notes how a dial went, after its session ended if there was one. counts: it did not end with this node.
func (m *Mesh) dialled(id identity.PeerID, s *session, err error, counts bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.wall()
	established := s != nil && s.done
	if !established {
		delete(m.dialing, id) // else it was when the session was established
	}
	m.topology.stale = true
	duplicate, full := closedFor(err, reasonDuplicate), closedFor(err, reasonFull)
	if full {
		m.book.entry(id).full = now.Add(fullFor)
	}
	if m.sessions[id] == nil && counts {
		m.book.dialed(now, id, false, m.rng.Float64())
	}
	m.lineUp(id)
	if !established && !duplicate && !full && counts {
		m.counts.dialsFailed.Add(1)
		m.events = append(m.events, Event{Type: EventDialFailed, Peer: id, Reason: reasonOf(err)})
	}
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
