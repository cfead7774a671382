package dht

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	// settleFor is how long a member that lacks nothing waits before it looks whether it is to write.
	settleFor = 30 * time.Second
	// spread is within what part of a slot members look whether to write; each always at the same time of it, so that a
	// record is renewed before nodes forget it.
	spread = 30 * time.Minute
	// renewAfter and renewLacking are the least times between two writes when the own record changes.
	renewAfter, renewLacking = 10 * time.Minute, time.Minute
	// freshFor is how old others' records may be for a member that lacks peers to leave it at them at first.
	freshFor = 5 * time.Minute
	// insistAfter is with which lookup that leaves it lacking a member writes whatever others wrote.
	insistAfter = 3
	// checkAfter is when a writer looks once more whether its record is still there: of two that write to an empty
	// location at nearly the same time, the later one has not seen the other's.
	checkAfter = 30 * time.Second
	// wantedWriters is how many members' records are enough at a location.
	wantedWriters = 2
	maxUses       = 64
	farOff        = time.Hour
)

// pauses are the times between lookups, and between failed writes.
var pauses = []time.Duration{
	10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
}

// Use is a rendezvous secret and what is done with it. Members read and write at the network's, and write at those of
// open invites; a joiner reads at its invite's. Immutable.
type Use struct {
	Secret      identity.Secret
	Read, Write bool
}

// task is one thing to do now.
type task struct {
	secret identity.Secret
	write  bool // else look
	insist bool // write whatever others wrote
	check  bool // write only if the own record is not there any more
}

// policy decides when to look and when to write. It has neither network nor clock; now is the host's time, and clock
// the mesh's, which says what slot it is. Owned by a loop.
//
//	lacking  ── look at once, then after 10 s, 30 s, 1, 2, 5, 10, 10… min ── write at once
//	settled  ── look at the own location once a slot; write if it does not hold enough
type policy struct {
	id      identity.PeerID
	lacking bool
	begun   time.Time
	looks   int       // while lacking
	look    time.Time // when the next one is due
	looked  time.Time // when the last one began
	writes  map[identity.Secret]*writing
}

// writing is how it stands with one secret's location.
type writing struct {
	offset  time.Duration // when in a slot
	first   time.Time     // when it is due for the first time
	settled bool          // once, in slot
	slot    slot
	wrote   bool     // the own record, sum
	sum     [32]byte //
	last    time.Time
	check   time.Time // when to look whether it is still there; zero: not again
	fails   int
	retry   time.Time
}

// state is what a step decides on.
type state struct {
	now, clock time.Time
	lacking    bool
	uses       []Use
	own        []byte // the own record's data; empty: there is none
}

func jittered(d time.Duration) time.Duration { return d - d/8 + rand.N(d/4) }

func pauseAfter(tries int) time.Duration { return jittered(pauses[min(tries, len(pauses)-1)]) }

// step is what to do at s.now, and when to ask again at the latest.
func (p *policy) step(s state) (todo []task, next time.Time) {
	if p.begun.IsZero() {
		p.begun = s.now
		p.writes = make(map[identity.Secret]*writing)
	}
	next = s.now.Add(farOff)
	if s.lacking != p.lacking {
		p.lacking, p.looks, p.look = s.lacking, 0, s.now
		if again := p.looked.Add(pauses[0]); p.look.Before(again) {
			p.look = again
		}
	}
	uses := s.uses[:min(len(s.uses), maxUses)]
	if s.lacking {
		if !s.now.Before(p.look) {
			for _, u := range uses {
				if u.Read {
					todo = append(todo, task{secret: u.Secret})
				}
			}
			p.looked, p.look = s.now, s.now.Add(pauseAfter(p.looks))
			p.looks++
		}
		next = p.look
	}
	for _, u := range uses {
		if !u.Write || len(s.own) == 0 {
			continue
		}
		w := p.writing(u.Secret, s.now)
		due, check := p.due(w, s)
		if !s.now.Before(due) {
			insist := s.lacking && p.looks >= insistAfter
			todo = append(todo, task{secret: u.Secret, write: true, insist: insist, check: check})
			continue
		}
		if due.Before(next) {
			next = due
		}
	}
	for secret := range p.writes {
		if !slices.ContainsFunc(uses, func(u Use) bool { return u.Secret == secret }) {
			delete(p.writes, secret)
		}
	}
	return todo, next
}

// writing is a secret's, made when there is none.
func (p *policy) writing(secret identity.Secret, now time.Time) *writing {
	w := p.writes[secret]
	if w == nil {
		sum := sha256.Sum256(append(secret[:], p.id[:]...))
		w = &writing{
			offset: time.Duration(binary.BigEndian.Uint64(sum[:]) % uint64(spread)),
			first:  p.begun.Add(jittered(settleFor)),
		}
		if w.first.Before(now) {
			w.first = now // a new invite: whoever got it may come soon
		}
		p.writes[secret] = w
	}
	return w
}

// due is when a location is to be looked at, and written to, or only checked.
func (p *policy) due(w *writing, s state) (at time.Time, check bool) {
	current := slotAt(s.clock)
	at = w.first
	switch {
	case !w.settled:
		if s.lacking {
			at = s.now
		}
	case w.slot != current:
		at = s.now.Add(current.begin().Add(w.offset).Sub(s.clock))
		if s.lacking {
			at = s.now
		}
	case w.wrote && w.sum != sha256.Sum256(s.own):
		at = w.last.Add(renewAfter)
		if s.lacking {
			at = w.last.Add(renewLacking)
		}
	case !w.wrote && s.lacking && p.looks >= insistAfter:
		at = s.now
	default:
		at = s.now.Add((current + 1).begin().Add(w.offset).Sub(s.clock))
	}
	if !w.check.IsZero() && w.check.Before(at) {
		at, check = w.check, true
	}
	if at.Before(w.retry) {
		at = w.retry
	}
	return at, check
}

// wrote takes in how a write ended: with an error, or with the record written or enough of others'.
func (p *policy) wrote(t task, s state, now time.Time, wrote bool, err error) {
	w := p.writes[t.secret]
	if w == nil {
		return
	}
	if err != nil {
		w.retry = now.Add(pauseAfter(w.fails))
		w.fails++
		return
	}
	w.fails, w.retry, w.check = 0, time.Time{}, time.Time{}
	if t.check && !wrote {
		return
	}
	if wrote && !t.check {
		w.check = now.Add(jittered(checkAfter))
	}
	w.settled, w.slot, w.wrote, w.last = true, slotAt(s.clock), wrote, now
	if wrote {
		w.sum = sha256.Sum256(s.own)
	}
}

// enough reports whether what others left at a location makes the own record unneeded. connected tells those that the
// member has a session with: who finds them finds the mesh. A member that lacks peers takes fresh records as enough at
// first, for when many start at once.
func enough(t task, s state, own Record, there []Record, connected func(Record) bool) bool {
	if t.check && slices.ContainsFunc(there, func(r Record) bool { return r.Key == own.Key && bytes.Equal(r.Data, own.Data) }) {
		return true
	}
	if t.insist {
		return false
	}
	good := 0
	others := make([]Record, 0, len(there))
	for _, r := range there {
		if r.Key == own.Key {
			continue
		}
		others = append(others, r)
		age := s.clock.Sub(r.At)
		if s.lacking && age < freshFor && age > -freshFor || !s.lacking && connected(r) {
			good++
		}
	}
	// Where one more would push out another, all being good, one is enough too.
	return good >= wantedWriters || good > 0 && good == len(others) && !fits(others, own.size())
}
