package wg

import (
	"slices"
	"time"

	"github.com/meshnet/meshnet/tunnel/noise"
)

// active is what a peer with sessions or handshakes has besides. Owned by the machine.
type active struct {
	remote   *noise.Remote
	previous []*Session    // replaced ones, under which packets may still come, oldest first
	next     []*Session    // unconfirmed, oldest first
	pending  []*initiation // unanswered, oldest first
	replies  int           // responses since a session was confirmed
	answered time.Time     // last initiation of theirs that was

	used bool // there was a session, or a handshake was tried

	trying  bool // a series of initiations is under way
	started time.Time
	tried   time.Time
	nextTry time.Time
	step    int
	kicks   int       // since the last one of the series
	linger  time.Time // pending ones that outlive their series go then

	cookie      noise.Cookie
	cookieUntil time.Time

	due    time.Time
	heapAt int // -1: no deadline
}

// initiation is one of ours that may still be answered.
type initiation struct {
	peer  *Peer
	index uint32
	began uint64
	state *noise.Initiation
}

// activate gives a peer what it needs for a handshake; nil for a key that is none.
func (m *Machine) activate(p *Peer) *active {
	if p.active != nil {
		return p.active
	}
	remote, err := m.static.Remote(p.Key)
	if err != nil {
		m.count.UnknownKey++
		return nil
	}
	p.active = &active{remote: remote, heapAt: -1}
	return p.active
}

// drop ends all of a peer's sessions and handshakes.
func (m *Machine) drop(p *Peer) {
	a := p.active
	if a == nil {
		return
	}
	m.unschedule(p)
	m.endSeries(a)
	m.retire(p.current.Swap(nil))
	for _, s := range a.previous {
		m.retire(s)
	}
	for _, s := range a.next {
		m.retire(s)
	}
	a.remote.Wipe()
	a.cookie = noise.Cookie{}
	p.active = nil
	p.armed.Store(false)
	p.waiting.Store(0)
	p.owing.Store(0)
	if a.used {
		m.act(Action{Kind: ActOver, Peer: p})
	}
}

// demote keeps a session for what still comes under it. The oldest of too many ends.
func (m *Machine) demote(a *active, s *Session) {
	if s == nil {
		return
	}
	if len(a.previous) == maxPrevious {
		m.retire(a.previous[0])
		a.previous = slices.Delete(a.previous, 0, 1)
	}
	a.previous = append(a.previous, s)
}

// retire ends one session, which may be nil.
func (m *Machine) retire(s *Session) {
	if s == nil {
		return
	}
	m.table.release(s.local)
	s.dead.Store(true)
	if s.wipe() {
		m.count.Wipe++
		return
	}
	m.dying = append(m.dying, s)
}

// bury erases the keys of dead sessions that were still used.
func (m *Machine) bury() {
	rest := m.dying[:0]
	for _, s := range m.dying {
		if !s.wipe() {
			rest = append(rest, s)
			continue
		}
		m.count.Wipe++
	}
	clear(m.dying[len(rest):])
	m.dying = rest
}

// endSeries stops trying. Initiations that were not answered are forgotten.
func (m *Machine) endSeries(a *active) {
	a.trying = false
	m.forgetFirst(a, len(a.pending))
}

// forgetFirst gives up the n oldest initiations.
func (m *Machine) forgetFirst(a *active, n int) {
	for _, i := range a.pending[:n] {
		m.forget(i)
	}
	a.pending = slices.Delete(a.pending, 0, n)
}

// forget gives up one initiation.
func (m *Machine) forget(i *initiation) {
	m.table.release(i.index)
	i.state.Wipe()
}
