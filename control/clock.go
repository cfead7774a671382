package control

import (
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	sampleLife = time.Hour
	// farOff is how much the mesh's clock may differ from ours before it needs better reasons.
	farOff = 10 * time.Minute
)

// released is a time before which no clock can be right: the release date of this version.
var released = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// meshClock says how far the members' clocks are ahead of ours. It is pure; Mesh guards it.
type meshClock struct {
	base    time.Duration // what the node that let us in said, while it differs much
	guess   bool          // base is only the floor: any member knows better
	samples map[identity.PeerID]clockSample
	floor   time.Time // the newest admin statement

	last  time.Duration // what skew said at asked, valid for a moment; see skewFor
	asked time.Time
}

// skewFor is how long an answer of skew holds while nothing is heard: every fact that comes asks for the time.
const skewFor = time.Second

type clockSample struct {
	ahead time.Duration
	at    time.Time
	admin bool
}

func newClock(base time.Duration) *meshClock {
	return &meshClock{base: base, samples: make(map[identity.PeerID]clockSample), floor: released}
}

// sample takes one member's clock, measured at now.
func (c *meshClock) sample(now time.Time, id identity.PeerID, ahead time.Duration, admin bool) {
	c.samples[id] = clockSample{ahead, now, admin}
	c.asked = time.Time{}
}

// raise notes the time of an admin's statement: it cannot be later than now, unless that clock was wrong, which the
// members' clocks tell.
func (c *meshClock) raise(now, t time.Time) {
	if len(c.samples) > 0 && t.After(now.Add(c.skew(now)+farOff)) {
		return
	}
	if t.After(c.floor) {
		c.floor, c.asked = t, time.Time{}
	}
}

// skew is how much to add to the host's clock: the median of all clocks, our own among them. A median that is more
// than ten minutes off is followed only if our own clock cannot be right, or an admin and two others agree on it.
func (c *meshClock) skew(now time.Time) time.Duration {
	if since := now.Sub(c.asked); c.asked.IsZero() || since < 0 || since >= skewFor {
		c.last, c.asked = c.measure(now), now
	}
	return c.last
}

func (c *meshClock) measure(now time.Time) time.Duration {
	own := c.base
	var all []clockSample
	for id, s := range c.samples {
		if now.Sub(s.at) > sampleLife {
			delete(c.samples, id)
			continue
		}
		all = append(all, s)
	}
	implausible := c.guess || now.Add(own).Before(c.floor.Add(-farOff))
	if implausible && len(all) == 0 {
		if !c.guess {
			c.base, c.guess = c.floor.Sub(now), true // from here on time runs
		}
		return c.base
	}
	if !implausible {
		all = append(all, clockSample{ahead: own})
	}
	slices.SortFunc(all, func(a, b clockSample) int { return int(max(-1, min(1, a.ahead-b.ahead))) })
	median := all[(len(all)-1)/2].ahead
	if implausible || (median-own).Abs() <= farOff || agreed(all, median) {
		return median
	}
	return own
}

// agreed reports whether an admin and two others are near the median.
func agreed(all []clockSample, median time.Duration) bool {
	near, admin := 0, false
	for _, s := range all {
		if !s.at.IsZero() && (s.ahead-median).Abs() <= farOff {
			near++
			admin = admin || s.admin
		}
	}
	return admin && near >= 3
}
