package relayserver

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	shardCount = 64
	// maxSessions is how many connections one key may have. Of more, the oldest are closed.
	maxSessions = 4
	// A connection that sends becomes active no sooner than holdMin after the last change; every change that comes right
	// then doubles it, up to holdMax.
	holdMin = time.Second
	holdMax = time.Minute
)

// place is a node's key while somebody is connected with it. All but active is guarded by its shard's mu.
type place struct {
	active   atomic.Pointer[session] // gets what is sent to the node; nil: everybody left, the place is no more
	sessions []*session              // oldest first
	watchers map[*session]struct{}   // who sent something here, and is told when the last session leaves
	changed  time.Time               // when active became what it is
	hold     time.Duration           // how long it stays at least
}

// registry finds places. Readers look only at places they did not find before.
type registry struct {
	shards [shardCount]shard
}

type shard struct {
	mu     sync.RWMutex
	places map[identity.PeerID]*place
}

func (r *registry) init() {
	for i := range r.shards {
		r.shards[i].places = make(map[identity.PeerID]*place)
	}
}

func (r *registry) shard(id identity.PeerID) *shard {
	return &r.shards[(id[0]^id[31])%shardCount]
}

// find is the place of a node, which is told when c disconnects; nil: not here.
func (r *registry) find(id identity.PeerID, c *session) *place {
	sh := r.shard(id)
	sh.mu.RLock()
	p := sh.places[id]
	sh.mu.RUnlock()
	if p == nil {
		return nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p = sh.places[id]; p == nil {
		return nil
	}
	if p.watchers == nil {
		p.watchers = make(map[*session]struct{})
	}
	p.watchers[c] = struct{}{}
	return p
}

// unwatch forgets that c wants to know of a node.
func (r *registry) unwatch(id identity.PeerID, p *place, c *session) {
	sh := r.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(p.watchers, c)
}

// join makes c the active session of its key. It returns the one that was, and those that are too many.
func (r *registry) join(c *session, now time.Time) (before *session, excess []*session) {
	sh := r.shard(c.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.places[c.id]
	if p == nil {
		p = &place{hold: holdMin}
		sh.places[c.id] = p
	}
	before = p.active.Load()
	p.sessions = append(p.sessions, c)
	if n := len(p.sessions) - maxSessions; n > 0 {
		excess = slices.Clone(p.sessions[:n])
	}
	c.place = p
	p.active.Store(c)
	p.changed = now
	return before, excess
}

// takeOver makes c active, which sent something, unless that changed too lately. It returns the session that was.
func (r *registry) takeOver(c *session, now time.Time) (before *session, changed bool) {
	sh := r.shard(c.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := c.place
	before = p.active.Load()
	quietFor := now.Sub(p.changed)
	if before == c || quietFor < p.hold || !slices.Contains(p.sessions, c) {
		return nil, false
	}
	if quietFor < 2*p.hold {
		p.hold = min(2*p.hold, holdMax)
	} else {
		p.hold = holdMin
	}
	p.active.Store(c)
	p.changed = now
	return before, true
}

// leave takes c out. It returns who is to be told that the node left: nobody while it has other sessions.
func (r *registry) leave(c *session, now time.Time) []*session {
	sh := r.shard(c.id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := c.place
	p.sessions = slices.DeleteFunc(p.sessions, func(other *session) bool { return other == c })
	if n := len(p.sessions); n > 0 {
		if p.active.Load() == c {
			p.active.Store(p.sessions[n-1])
			p.changed = now
		}
		return nil
	}
	p.active.Store(nil)
	delete(sh.places, c.id)
	return slices.Collect(maps.Keys(p.watchers))
}
