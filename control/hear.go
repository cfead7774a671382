package control

import (
	"net/netip"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// maxHeard is how much may wait to be taken in. What comes beyond is lost: a dial is later, an endpoint or a clock is
// learnt from the next packet.
const maxHeard = 4096

// tellSkew is how much the mesh's clock has to move for an event.
const tellSkew = time.Second

type heardKind uint8

const (
	heardNudge heardKind = iota
	heardPath
	heardClock
)

// heard is something that the packet side noticed of a member.
type heard struct {
	kind  heardKind
	id    identity.PeerID
	addr  netip.AddrPort // of a path
	ahead time.Duration  // of a clock
	at    time.Time
}

// ear keeps what the packet side tells until Run takes it in, so that it never waits for Mesh.mu. Safe for concurrent
// use.
type ear struct {
	mu      sync.Mutex
	waiting []heard // guarded by mu
	lost    uint64  // guarded by mu
}

func (e *ear) put(h heard) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == maxHeard {
		e.lost++
		return
	}
	e.waiting = append(e.waiting, h)
}

// dropped is how much was lost so far.
func (e *ear) dropped() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost
}

// take empties the ear.
func (e *ear) take() []heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.waiting
	e.waiting = nil
	return all
}

// Nudge dials a member at once: something was heard of it. It does not wait.
func (m *Mesh) Nudge(id identity.PeerID) { m.listen(heard{kind: heardNudge, id: id}) }

// PathWorks notes an address at which a member answered. It does not wait.
func (m *Mesh) PathWorks(id identity.PeerID, addr netip.AddrPort) {
	m.listen(heard{kind: heardPath, id: id, addr: addr})
}

// Sample takes a member's clock as measured: ahead is how far it is before the host's. It does not wait; EventSkew tells
// when the mesh's clock moved.
func (m *Mesh) Sample(id identity.PeerID, ahead time.Duration) {
	m.listen(heard{kind: heardClock, id: id, ahead: ahead})
}

func (m *Mesh) listen(h heard) {
	h.at = m.wall()
	m.ear.put(h)
	m.poke()
}

// hear takes in what the packet side told. Called without mu.
func (m *Mesh) hear() {
	all := m.ear.take()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range all {
		switch h.kind {
		case heardNudge:
			if m.sessions[h.id] == nil {
				m.book.nudge(h.id)
			}
		case heardPath:
			if m.knows(h.id) && m.book.worked(h.at, h.id, h.addr) {
				m.touch(h.id, h.at.Add(drawPause))
			}
		case heardClock:
			if member, ok := m.ledger.State(m.now()).Member(h.id); ok {
				m.clock.sample(h.at, h.id, h.ahead, member.Admin)
			}
		}
	}
	now := m.clock.skew(m.wall())
	m.skew.Store(int64(now))
	if (now - m.skewTold).Abs() >= tellSkew {
		m.skewTold = now
		m.events = append(m.events, Event{Type: EventSkew, Skew: int64(now)})
	}
}

// Skew is how far the mesh's clock is ahead of the host's, as Run last computed it.
func (m *Mesh) Skew() time.Duration { return time.Duration(m.skew.Load()) }
