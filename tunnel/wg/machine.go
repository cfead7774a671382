package wg

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// Machine is the state of all peers. Owned by one loop: every method takes now and returns what to do.
type Machine struct {
	static *noise.Static
	rand   *rand.Rand
	clock  Clock
	table  *Table
	notes  *Notes
	peers  map[identity.WGKey]*Peer
	timers timerHeap
	dying  []*Session // dead ones that somebody still used
	events uint64     // orders beginnings and ends of handshakes
	stamp  time.Time  // of the last own initiation
	out    []Action
	count  Counters
}

// Counters are totals of rare events.
type Counters struct {
	InitiationsSent, Established                          uint64
	BadInitiation, UnknownKey, ReplayedInitiation, Flood  uint64
	BadResponse, BadCookie, NoSlot, StrayResponse         uint64
	HandshakesGivenUp, SessionsExpired, CookiesUsed, Wipe uint64
}

// ActionKind says what to do.
type ActionKind int

// The actions.
const (
	// ActInitiate: send Message by every path of Peer that may work.
	ActInitiate ActionKind = iota + 1
	// ActReply: send Message to To.
	ActReply
	// ActKeepalive: send an empty packet to Peer.
	ActKeepalive
	// ActEstablished: Peer has a new session to send with: its packets may go, or else a keepalive, which confirms it to
	// the other side. First tells that there was none before.
	ActEstablished
	// ActHeard: a handshake message that Peer alone can have made came from To.
	ActHeard
	// ActOver: Peer has no session left and none in the making.
	ActOver
	// ActGaveUp: a handshake with Peer was tried for RekeyAttemptTime.
	ActGaveUp
)

// Action is one thing to do.
type Action struct {
	Kind    ActionKind
	Peer    *Peer
	Message []byte
	To      datagram.Source
	First   bool
}

// New makes a machine for a node's private key. Sessions count their age from epoch on.
func New(private identity.Secret, epoch time.Time, rng *rand.Rand) (*Machine, error) {
	static, err := noise.NewStatic(private)
	if err != nil {
		return nil, err
	}
	return &Machine{
		static: static, rand: rng, clock: NewClock(epoch), table: newTable(rng), notes: newNotes(),
		peers: make(map[identity.WGKey]*Peer),
	}, nil
}

// Table is where the packet path finds sessions.
func (m *Machine) Table() *Table { return m.table }

// Notes is where the packet path leaves what the machine has to look at.
func (m *Machine) Notes() *Notes { return m.notes }

// Clock is how the packet path tells the time.
func (m *Machine) Clock() Clock { return m.clock }

// Static is the node's own key.
func (m *Machine) Static() *noise.Static { return m.static }

// Counters returns the totals.
func (m *Machine) Counters() Counters { return m.count }

// NotBefore has own initiations bear later times than t: those of an earlier run may be as late.
func (m *Machine) NotBefore(t time.Time) {
	if t.After(m.stamp) {
		m.stamp = t
	}
}

// Add makes a member known, with its pre-shared keys, the newest first. Another one with the same key is forgotten.
func (m *Machine) Add(p *Peer, psks []identity.Secret) {
	if other := m.peers[p.Key]; other != nil && other != p {
		m.drop(other)
	}
	p.psks = psks
	m.peers[p.Key] = p
}

// SetPSKs changes a member's pre-shared keys, the newest first. They count from the next handshake on.
func (m *Machine) SetPSKs(p *Peer, psks []identity.Secret) { p.psks = psks }

// Remove forgets a member with its sessions.
func (m *Machine) Remove(now time.Time, p *Peer) []Action {
	m.drop(p)
	if m.peers[p.Key] == p {
		delete(m.peers, p.Key)
	}
	return m.take()
}

// Drop ends the sessions and handshakes of a peer, which stays known.
func (m *Machine) Drop(now time.Time, p *Peer) []Action {
	m.drop(p)
	return m.take()
}

// Connect begins a handshake unless there is a session or one is being tried.
func (m *Machine) Connect(now time.Time, p *Peer) []Action {
	if !p.Ready(m.clock.At(now)) {
		m.begin(now, p)
	}
	return m.take()
}

// Renew begins a handshake even if there is a session, which goes on until there is a newer one.
func (m *Machine) Renew(now time.Time, p *Peer) []Action {
	m.begin(now, p)
	return m.take()
}

// Kick repeats an initiation that waits for its answer at once: a path to the peer began to work. Between two of the
// series it does so at growing distances, so that many kicks do not crowd out what may still be answered.
func (m *Machine) Kick(now time.Time, p *Peer) []Action {
	a := p.active
	if a == nil || !a.trying || len(a.pending) == 0 || now.Sub(a.tried) < kickGap<<min(a.kicks, maxKicks) {
		return nil
	}
	a.kicks++
	m.initiate(now, p, a)
	return m.take()
}

// TakeNotes does what the packet path asked for.
func (m *Machine) TakeNotes(now time.Time) []Action {
	for _, p := range m.notes.take() {
		why := p.notes.Swap(0)
		if m.peers[p.Key] != p {
			p.armed.Store(false)
			continue // removed since
		}
		if why&noteConfirm != 0 {
			m.confirm(now, p)
		}
		if why&noteWant != 0 && !p.Ready(m.clock.At(now)) {
			m.begin(now, p)
		}
		if s := p.current.Load(); why&noteRekey != 0 && s != nil && s.old(m.clock.At(now)) { // no newer one came meanwhile
			m.begin(now, p)
		}
		if p.active != nil {
			m.schedule(now, p)
		} else {
			p.armed.Store(false)
		}
	}
	return m.take()
}

// Tick does what is due.
func (m *Machine) Tick(now time.Time) []Action {
	m.bury()
	for len(m.timers) > 0 && !m.timers[0].active.due.After(now) {
		p := m.timers[0]
		m.examine(now, p)
		if p.active == nil {
			continue
		}
		m.schedule(now, p)
		if a := p.active; a.heapAt >= 0 && !a.due.After(now) { // never twice at one time
			a.due = now.Add(time.Millisecond)
			heap.Fix(&m.timers, a.heapAt)
		}
	}
	return m.take()
}

// buryAfter is when a dead session that was in use is tried again.
const buryAfter = 100 * time.Millisecond

// Next is when Tick wants to be called; the zero time: not by itself.
func (m *Machine) Next(now time.Time) time.Time {
	var next time.Time
	if len(m.timers) > 0 {
		next = m.timers[0].active.due
	}
	if len(m.dying) > 0 && (next.IsZero() || next.After(now.Add(buryAfter))) {
		next = now.Add(buryAfter)
	}
	return next
}

// Close ends everything and erases the keys. Whoever still uses a session must have released it.
func (m *Machine) Close() {
	for _, p := range m.peers {
		m.drop(p)
	}
	m.bury()
	m.static.Wipe()
	m.out = nil
}

// event numbers what happens.
func (m *Machine) event() uint64 {
	m.events++
	return m.events
}

func (m *Machine) act(a Action) { m.out = append(m.out, a) }

// take hands over what is to be done.
func (m *Machine) take() []Action {
	out := m.out
	m.out = nil
	return out
}
