package meshnet

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/discovery/mdns"
)

const (
	// maxAnnouncers is how many are asked at once, drawn from those whose turn it is; the next ones follow after askPause.
	maxAnnouncers = 16
	askPause      = 5 * time.Second
	// patience is within what time a node that lacks nobody waits before it asks who announces itself: members hear of each
	// other anyway, and who has a path by then needs no asking.
	patience = time.Minute
	// askAgain and askRarely are how long it waits before it asks the same one again: at first, and at most.
	askAgain, askRarely = time.Minute, time.Hour
	// urgently is how long one that lacks peers does at first; askAgain at most.
	urgently = 5 * time.Second
	// answeredFor is how long who answered is left alone by a node that lacks peers: a session is on its way.
	answeredFor = 20 * time.Second
)

// announcers are who announces itself on the links, and when to ask each who it is: an announcement names nobody.
//
//	lacking  ── at once, then after 5, 10, 20, 40, 60, 60… s
//	settled  ── within a minute, then after 1, 2, 4 … 60 min
//	          └─ not while data of a session goes there
//
// It has no clock. Guarded by whoever has it.
type announcers struct {
	all map[announcerKey]*announcer
}

// announcerKey is what names an announcement.
type announcerKey struct{ instance, iface string }

type announcer struct {
	addrs    []netip.AddrPort // borrowed from the announcement: not to be changed
	heard    time.Time        // that it is there, or somewhere else than before
	delay    time.Duration    // within patience
	asked    time.Time        // zero: not yet
	tries    int              // since it was heard
	answered time.Time        // zero: it did not
}

// take takes an announcement. It reports whether there is somebody new to ask. The number is bounded by who heard them.
func (a *announcers) take(now time.Time, x mdns.Announcement) bool {
	key := announcerKey{x.Instance, x.Interface}
	if x.Gone {
		delete(a.all, key)
		return false
	}
	if old := a.all[key]; old != nil && slices.Equal(old.addrs, x.Addrs) {
		return false // another tag
	}
	if a.all == nil {
		a.all = make(map[announcerKey]*announcer)
	}
	a.all[key] = &announcer{addrs: x.Addrs, heard: now, delay: rand.N(patience)}
	return true
}

// answer takes that somebody said who it is, by an address.
func (a *announcers) answer(now time.Time, from netip.AddrPort) {
	for _, x := range a.all {
		if slices.Contains(x.addrs, from) {
			x.answered = now
		}
	}
}

// hurry has all asked anew who did not answer since.
func (a *announcers) hurry() {
	for _, x := range a.all {
		x.tries, x.asked, x.answered = 0, time.Time{}, time.Time{}
	}
}

// due returns whom to ask now, and when to call again; zero: nobody is left. reached reports whether data goes to an
// address anyway.
func (a *announcers) due(now time.Time, lacking bool, reached func(netip.AddrPort) bool) (ask []*announcer, next time.Time) {
	for _, x := range a.all {
		at := x.due(lacking)
		switch {
		case at.After(now):
		case slices.ContainsFunc(x.addrs, reached):
			at = now.Add(askAgain)
		case len(ask) == maxAnnouncers:
			at = now.Add(askPause)
		default:
			x.asked = now
			x.tries++
			ask = append(ask, x)
			at = x.due(lacking)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return ask, next
}

// due is when it is to be asked next.
func (x *announcer) due(lacking bool) time.Time {
	switch {
	case lacking && x.answered.After(x.asked):
		return x.answered.Add(answeredFor)
	case lacking && x.tries == 0:
		return x.heard
	case lacking:
		return x.asked.Add(doubled(urgently, x.tries-1, askAgain))
	case x.tries == 0:
		return x.heard.Add(x.delay)
	case x.answered.After(x.asked):
		return x.answered.Add(askRarely)
	}
	return x.asked.Add(doubled(askAgain, x.tries-1, askRarely))
}

// doubled is d doubled so often, at most limit.
func doubled(d time.Duration, times int, limit time.Duration) time.Duration {
	return min(d<<min(times, 16), limit)
}
