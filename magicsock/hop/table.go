package hop

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
)

const (
	// MaxSessions is how many sessions a relay has at once.
	MaxSessions = 256
	// MaxPerMember is how many of them one member may have asked for.
	MaxPerMember = 32
	// IdleAfter is how long a session stays in which nothing is carried.
	IdleAfter = 60 * time.Second
	// BindWithin is how long both sides may take to bind.
	BindWithin = 15 * time.Second
	// DefaultRate is the default of Config.Rate: 20 Mbit/s.
	DefaultRate = 20_000_000 / 8
)

// Errors of Open.
var (
	ErrRefused = errors.New("member relay: no consent")
	ErrFull    = errors.New("member relay: no room for another session")
	ErrBusy    = errors.New("member relay: asked too often")
)

// Config of a Table.
type Config struct {
	// Rate is how many bytes a second are carried, of all sessions and both directions, headers included; 0: no limit.
	Rate int64
	// Consent decides who may open a session to whom; nil: everybody.
	Consent func(from, to identity.PeerID) bool
}

// Table is the sessions of a relay. Forward, Rate and Counters may be called by anybody at any time; everything else
// is guarded by whoever owns the Table.
type Table struct {
	consent  func(from, to identity.PeerID) bool
	secret   [32]byte
	epoch    time.Time // Forward's time counts from there; set with the first session
	rate     rate
	sessions atomic.Pointer[map[uint32]*session] // replaced as a whole, for Forward
	count    counters

	due     time.Time // when something may end; zero: nothing is there
	pairs   map[pair]*session
	openers map[identity.PeerID]*opener
	binds   bucket.Prefixes
	hints   bucket.Prefixes
}

// pair is the members of a session, the lower id first.
type pair [2]identity.PeerID

func pairOf(a, b identity.PeerID) (p pair, side int) {
	if a.Compare(b) < 0 {
		return pair{a, b}, 0
	}
	return pair{b, a}, 1
}

// opener is a member that asked lately.
type opener struct {
	asks     bucket.Bucket
	last     time.Time
	sessions int
}

// session is one pair's. Its atomic fields are also Forward's, sid is immutable, the rest the owner's.
type session struct {
	sid     uint32
	members pair
	opener  identity.PeerID
	opened  time.Time
	offered time.Time
	sides   [2]side
	used    atomic.Int64 // nanoseconds since Table.epoch: frames passed
}

// NewTable makes a relay without sessions.
func NewTable(cfg Config) *Table {
	t := &Table{
		consent: cfg.Consent,
		pairs:   make(map[pair]*session),
		openers: make(map[identity.PeerID]*opener),
		binds:   bucket.Prefixes{Rate: 50, Burst: 100},
		hints:   bucket.Prefixes{Rate: 10, Burst: 20},
	}
	rand.Read(t.secret[:])
	t.rate.perSecond = cfg.Rate
	t.sessions.Store(new(map[uint32]*session))
	return t
}

// Opened is a session, as one side of it is to be told.
type Opened struct {
	SID   uint32
	Nonce Nonce // the other side's
	Offer bool  // the other side is to be told: not when it just was
}

const (
	askRate, askBurst = 2, 20
	// offerEvery bounds how often one side can have the other told.
	offerEvery = 200 * time.Millisecond
)

// Open makes the session between two members for `from`, whose nonce that is, or finds it. A member that asks again
// with another nonce has that one from then on; what is bound stays so. Errors: ErrRefused, ErrFull, ErrBusy.
func (t *Table) Open(now time.Time, from, to identity.PeerID, nonce Nonce) (Opened, error) {
	if from == to || t.consent != nil && !t.consent(from, to) {
		return Opened{}, ErrRefused
	}
	who := t.opener(from)
	who.last = now
	t.sooner(now.Add(IdleAfter))
	if !who.asks.Take(now, askRate, askBurst) {
		return Opened{}, ErrBusy
	}
	members, side := pairOf(from, to)
	s := t.pairs[members]
	if s == nil {
		switch {
		case len(t.pairs) >= MaxSessions:
			return Opened{}, ErrFull
		case who.sessions >= MaxPerMember:
			return Opened{}, ErrBusy
		}
		s = t.add(now, members, from)
		who.sessions++
	}
	s.opened = now // when it is bound already, that counts no more
	s.sides[side].give(s.sid, chosen, nonce)
	opened := Opened{SID: s.sid, Nonce: s.sides[1-side].offer(s.sid), Offer: now.Sub(s.offered) >= offerEvery}
	if opened.Offer {
		s.offered = now
	}
	return opened, nil
}

func (t *Table) opener(id identity.PeerID) *opener {
	if t.openers[id] == nil {
		t.openers[id] = new(opener)
	}
	return t.openers[id]
}

// add makes a session under a fresh id.
func (t *Table) add(now time.Time, members pair, opener identity.PeerID) *session {
	if t.epoch.IsZero() { // before Forward finds a session
		t.epoch = now
	}
	s := &session{sid: t.freeID(), members: members, opener: opener, opened: now}
	s.used.Store(t.stamp(now))
	t.pairs[members] = s
	t.replace(func(all map[uint32]*session) { all[s.sid] = s })
	t.sooner(t.ends(s))
	t.count.opened.Add(1)
	return s
}

// freeID draws an id that no session has.
func (t *Table) freeID() uint32 {
	for {
		var b [4]byte
		rand.Read(b[:])
		sid := binary.BigEndian.Uint32(b[:])
		if _, taken := (*t.sessions.Load())[sid]; !taken && sid != 0 {
			return sid
		}
	}
}

func (t *Table) replace(change func(all map[uint32]*session)) {
	fresh := maps.Clone(*t.sessions.Load())
	if fresh == nil {
		fresh = make(map[uint32]*session)
	}
	change(fresh)
	t.sessions.Store(&fresh)
}

func (t *Table) remove(s *session) {
	if t.pairs[s.members] != s {
		return
	}
	delete(t.pairs, s.members)
	t.replace(func(all map[uint32]*session) { delete(all, s.sid) })
	if who := t.openers[s.opener]; who != nil {
		who.sessions--
	}
	t.count.closed.Add(1)
}

// Close ends a session for one of its members, and returns the other one. ok is false where by has no such session.
func (t *Table) Close(sid uint32, by identity.PeerID) (other identity.PeerID, ok bool) {
	s := (*t.sessions.Load())[sid]
	if s == nil || s.members[0] != by && s.members[1] != by {
		return other, false
	}
	t.remove(s)
	if other = s.members[0]; other == by {
		other = s.members[1]
	}
	return other, true
}

// CloseMember ends all sessions of a member, as when it was revoked.
func (t *Table) CloseMember(id identity.PeerID) {
	for members, s := range t.pairs {
		if members[0] == id || members[1] == id {
			t.remove(s)
		}
	}
	delete(t.openers, id)
}

// CloseAll ends all sessions.
func (t *Table) CloseAll() {
	for _, s := range t.pairs {
		t.remove(s)
	}
}

// Tick ends the sessions whose time has come.
func (t *Table) Tick(now time.Time) {
	if t.due.IsZero() || now.Before(t.due) {
		return
	}
	t.due = time.Time{}
	for _, s := range t.pairs {
		if at := t.ends(s); now.Before(at) {
			t.sooner(at)
		} else {
			t.remove(s)
		}
	}
	for id, who := range t.openers {
		switch at := who.last.Add(IdleAfter); {
		case who.sessions > 0:
		case now.Before(at):
			t.sooner(at)
		default:
			delete(t.openers, id)
		}
	}
}

// Due is when Tick is to be called next; zero: not before something is opened.
func (t *Table) Due() time.Time { return t.due }

func (t *Table) sooner(at time.Time) {
	if t.due.IsZero() || at.Before(t.due) {
		t.due = at
	}
}

// ends is when a session is over unless something happens.
func (t *Table) ends(s *session) time.Time {
	if s.sides[0].end.Load() == nil || s.sides[1].end.Load() == nil {
		return s.opened.Add(BindWithin)
	}
	return t.epoch.Add(time.Duration(s.used.Load()) + IdleAfter)
}

func (t *Table) stamp(now time.Time) int64 { return int64(now.Sub(t.epoch)) }
