package ring

import (
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	// takenWithin is how long a neighbour may stay silent before another session is tried. A slow one costs a frame too
	// many, which is a duplicate farther on.
	takenWithin = 300 * time.Millisecond
	maxTries    = 3 // sessions for one signal at one node and way
	pendingFor  = 30 * time.Second
	maxPending  = 4096
)

// wayKey names a signal on one of its ways.
type wayKey struct {
	signalKey
	way way
}

func (k wayKey) other() wayKey { return wayKey{k.signalKey, k.way.other()} }

// pending is a signal that went out by a way, and its way back:
//
//	sent ──taken──▶ taken ──no-route──▶ returned, or by the other way
//	 └─ silence ─▶ sent to another, at most 3 times ─▶ the same
type pending struct {
	key     wayKey
	target  identity.PeerID
	from    identity.PeerID   // zero: this node is the origin
	next    identity.PeerID   // has it now
	avoid   []identity.PeerID // tried, or not to be tried
	tries   int
	body    []byte // until it is not needed any more
	sig     []byte
	ttl     uint64
	retryAt time.Time // zero: taken
	both    bool      // of the origin: the other way was tried too
	roam    bool      // of the origin: by any session first
}

func (p *pending) own() bool { return p.from.IsZero() }

// memory holds what is pending, for 30 s and at most 4096. When there is more the oldest are forgotten: then their
// no-route is lost, which costs their origin a wait.
type memory struct {
	by    map[wayKey]*pending
	order []timed // by when they are forgotten
	waits []timed // by when they are tried again; outdated ones are passed over
}

type timed struct {
	at time.Time
	p  *pending
}

func (m *memory) add(now time.Time, p *pending) {
	for len(m.order) > 0 && (len(m.order) >= maxPending || now.After(m.order[0].at)) {
		m.drop(m.order[0].p)
		m.order = m.order[1:]
	}
	if m.by == nil {
		m.by = make(map[wayKey]*pending)
	}
	m.by[p.key] = p
	m.order = append(m.order, timed{now.Add(pendingFor), p})
}

// drop forgets p, of which no answer counts any more.
func (m *memory) drop(p *pending) {
	p.retryAt, p.body, p.sig, p.avoid = time.Time{}, nil, nil, nil
	if m.by[p.key] == p {
		delete(m.by, p.key)
	}
}

// wait has p tried again unless it is taken soon.
func (m *memory) wait(now time.Time, p *pending) {
	p.retryAt = now.Add(takenWithin)
	m.waits = append(m.waits, timed{p.retryAt, p})
}

// due takes one that waited long enough, nil if there is none.
func (m *memory) due(now time.Time) *pending {
	at := m.next()
	if at.IsZero() || now.Before(at) {
		return nil
	}
	p := m.waits[0].p
	m.waits = m.waits[1:]
	return p
}

// next is when the first is due; zero: none waits.
func (m *memory) next() time.Time {
	i := slices.IndexFunc(m.waits, func(t timed) bool { return t.at.Equal(t.p.retryAt) })
	if i < 0 {
		m.waits = nil
		return time.Time{}
	}
	m.waits = m.waits[i:]
	return m.waits[0].at
}
