package wg

import (
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// Peer is one member as far as WireGuard goes. The packet path uses its exported methods, from any goroutine; the rest
// belongs to the machine.
type Peer struct {
	Key   identity.WGKey // immutable
	Owner any            // whoever made it; immutable

	notesTo *Notes
	notes   atomic.Uint32
	current atomic.Pointer[Session] // what to send with
	armed   atomic.Bool             // the machine looks at the timers within KeepaliveTimeout
	waiting atomic.Int64            // data went out then, and nothing came since; see unheard
	owing   atomic.Int64            // data came then, and nothing went out since; see owes
	rx, tx  atomic.Uint64           // bytes of datagrams
	heard   atomic.Int64            // last authenticated datagram
	sent    atomic.Int64            // last datagram that went out
	shaken  atomic.Int64            // last handshake that ended well

	// Owned by the machine.
	stamp  [12]byte          // of their last initiation (§5.1: replays are older)
	psks   []identity.Secret // newest first
	active *active           // nil: it costs no more than this struct
}

// NewPeer makes a peer that the packet path may use at once. Machine.Add makes it known.
func NewPeer(key identity.WGKey, owner any, notes *Notes) *Peer {
	return &Peer{Key: key, Owner: owner, notesTo: notes}
}

// Acquire returns the session to send with and keeps it until Release. nil: there is none, and the machine was told
// that one is wanted.
func (p *Peer) Acquire(at int64) *Session {
	s := p.current.Load()
	if s == nil || !s.usable(at) || !s.acquire() {
		p.notesTo.leave(p, noteWant)
		return nil
	}
	if s.old(at) {
		p.notesTo.leave(p, noteRekey)
	}
	return s
}

// Ready reports whether there is a session to send with.
func (p *Peer) Ready(at int64) bool {
	s := p.current.Load()
	return s != nil && s.usable(at)
}

// Want asks for a session.
func (p *Peer) Want() { p.notesTo.leave(p, noteWant) }

// Sent notes that datagrams went out: size bytes in all, with data among them or only keepalives.
func (p *Peer) Sent(at int64, size int, data bool) {
	p.tx.Add(uint64(size))
	p.sent.Store(at)
	if p.owing.Load() != 0 {
		p.owing.Store(0)
	}
	if data && p.unheard() == 0 {
		p.waiting.Store(at)
		p.arm()
	}
}

// Received notes that fresh datagrams of a session came: size bytes in all, with data among them or only keepalives.
func (p *Peer) Received(at int64, s *Session, size int, data bool) {
	p.rx.Add(uint64(size))
	p.heard.Store(at)
	if p.waiting.Load() != 0 {
		p.waiting.Store(0)
	}
	if data && p.owes() == 0 {
		p.owing.Store(at)
		p.arm()
	}
	if !s.confirmed.Load() && s.confirmed.CompareAndSwap(false, true) {
		p.notesTo.leave(p, noteConfirm)
	}
	if at-s.born >= int64(lateRekey) && s.initiator {
		p.notesTo.leave(p, noteRekey)
	}
}

// unheard is since when data waits for a sign of life; 0: none does. An answer that was noted before what it answers,
// which happens with two goroutines, left a time that is over.
func (p *Peer) unheard() int64 {
	if since := p.waiting.Load(); since >= p.heard.Load() {
		return since
	}
	return 0
}

// owes is since when the other side waits for one; 0: it does not.
func (p *Peer) owes() int64 {
	if since := p.owing.Load(); since >= p.sent.Load() {
		return since
	}
	return 0
}

// arm has the machine look at the timers in time.
func (p *Peer) arm() {
	if !p.armed.Load() && p.armed.CompareAndSwap(false, true) {
		p.notesTo.leave(p, noteArm)
	}
}

// Stats are what is known of a peer.
type Stats struct {
	RxBytes, TxBytes uint64 // of datagrams, with their headers
	LastHandshake    time.Time
	LastReceive      time.Time
	Session          bool // there is one to send with
}

// Stats reads the counters, from any goroutine.
func (p *Peer) Stats(c Clock, now time.Time) Stats {
	return Stats{
		RxBytes: p.rx.Load(), TxBytes: p.tx.Load(),
		LastHandshake: c.Time(p.shaken.Load()), LastReceive: c.Time(p.heard.Load()),
		Session: p.Ready(c.At(now)),
	}
}
