package mdns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

const (
	maxKept = 256 // announcements, over all interfaces
	// What others give their records to live is kept within these: ours are repeated no more seldom, and no record of
	// somebody else has us ask all the time.
	shortestLife, longestLife = 20 * time.Second, ttl
	// farewell is how long an instance that said goodbye stays, for it to be said that it did not (RFC 6762 §10.1).
	farewell = time.Second
)

// key names an announcement: the same instance on two interfaces is two.
type key struct {
	iface int
	label string
}

// entry is an announcement that is kept.
type entry struct {
	Announcement
	source  netip.Addr // who sent it last; without zone
	heard   time.Time
	life    time.Duration
	expires time.Time
	refresh time.Time // when to ask for it again
	asked   int       // how often that was done
}

// cache is what was heard. Owned by the loop.
type cache map[key]*entry

type verdict int

const (
	kept      verdict = iota // it was known, and is still the same
	fresh                    // it says something new
	noRoom                   // there are too many
	notTheirs                // it came from somebody whom the instance does not belong to
)

// put keeps an announcement that came at now from source, to live for life. evicted is the one that made room; nil: none
// had to.
func (c cache) put(now time.Time, k key, a Announcement, source netip.Addr, life time.Duration) (v verdict, evicted *entry) {
	e := c[k]
	switch {
	case e == nil:
		if len(c) >= maxKept {
			if evicted = c.evict(source); evicted == nil {
				return noRoom, nil
			}
		}
		e, v = new(entry), fresh
		c[k] = e
	case !e.from(source):
		return notTheirs, nil
	case a.Tag != e.Tag || !slices.Equal(a.Addrs, e.Addrs):
		v = fresh
	}
	life = min(max(life, shortestLife), longestLife)
	*e = entry{Announcement: a, source: source, heard: now, life: life, expires: now.Add(life)}
	e.plan()
	return v, evicted
}

// evict makes room for one from source: of the sender that has most, and still would if source had one more, one goes.
func (c cache) evict(source netip.Addr) *entry {
	shares := make(map[netip.Addr]int)
	var most netip.Addr
	for _, e := range c {
		shares[e.source]++
		if shares[e.source] > shares[most] {
			most = e.source
		}
	}
	if shares[source]+1 >= shares[most] {
		return nil
	}
	for k, e := range c {
		if e.source == most {
			delete(c, k)
			return e
		}
	}
	return nil
}

// from reports whether an address, which has no zone, is the instance's.
func (e *entry) from(source netip.Addr) bool {
	return source == e.source ||
		slices.ContainsFunc(e.Addrs, func(a netip.AddrPort) bool { return a.Addr().WithZone("") == source })
}

// plan sets when to ask for it again: at 80, 85, 90 and 95 percent of its life, and a bit (RFC 6762 §5.2).
func (e *entry) plan() {
	e.refresh = time.Time{}
	if e.asked < 4 {
		percent := time.Duration(80 + 5*e.asked)
		e.refresh = e.heard.Add(e.life*percent/100 + rand.N(e.life/50))
	}
}

// known reports whether others that answer a query at now need not tell of it.
func (e *entry) known(now time.Time) bool { return e.expires.Sub(now) >= ttl/2 }

// farewell has it end soon, if the goodbye is its own.
func (e *entry) farewell(now time.Time, source netip.Addr) bool {
	if !e.from(source) {
		return false
	}
	if end := now.Add(farewell); end.Before(e.expires) {
		e.expires, e.refresh = end, time.Time{}
	}
	return true
}

// next is when something is to be done, with or without asking for what ends; the zero Time: never.
func (c cache) next(asks bool) time.Time {
	var first time.Time
	for _, e := range c {
		first = earlier(first, e.expires)
		if asks {
			first = earlier(first, e.refresh)
		}
	}
	return first
}

// earlier is the earlier of two times, of which the zero Time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
