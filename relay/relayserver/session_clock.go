package relayserver

import (
	"time"

	"github.com/meshnet/meshnet/relay"
)

// What a client is told of its key.
const (
	textReplaced = "another connection uses this node's key"
	textActive   = ""
)

// tick does what is due in time, and sets the timer for what is next. It runs in a goroutine of its own.
func (c *session) tick() {
	now := time.Now()
	switch {
	case c.leaving.Load():
		c.end(nil)
		return
	case !c.until.IsZero() && !now.Before(c.until):
		c.leaveWith(relay.AppendRefused(nil, relay.RefusedExpired, ""), relay.ErrPassExpired)
		return
	}
	next := c.server.jittered()
	if !c.until.IsZero() {
		next = min(next, c.until.Sub(now))
	}
	if c.place.active.Load() != c {
		silent := now.Sub(time.Unix(0, c.spoke.Load()))
		if silent >= inactiveTime {
			c.replace()
			return
		}
		next = min(next, inactiveTime-silent)
	}
	if now.Sub(time.Unix(0, c.wrote.Load())) >= c.server.keepAlive()/2 {
		var space [relay.HeaderLen]byte
		c.urgent(relay.AppendHeader(space[:0], relay.TypeKeepAlive, 0))
	}
	c.schedule(max(next, time.Millisecond))
}

// schedule has tick called, but for a session whose last frame was sent.
func (c *session) schedule(next time.Duration) {
	c.timer.Reset(next)
	if c.leaving.Load() {
		c.timer.Reset(farewell)
	}
}

// replacedBy tells the client that another connection of its key is the active one now. If it sends nothing from here
// on, it is closed.
func (c *session) replacedBy() {
	c.spoke.Store(time.Now().UnixNano())
	c.urgent(relay.AppendFrame(nil, relay.TypeHealth, []byte(textReplaced)))
	c.schedule(inactiveTime)
}

// replace closes the session for another of its key.
func (c *session) replace() {
	if c.leaveWith(relay.AppendGone(nil, c.id, relay.GoneReplaced), relay.ErrReplaced) {
		c.server.count.replaced.Add(1)
	}
}

// takeOver makes the session the active one of its key, as its client sends.
func (c *session) takeOver(now time.Time) {
	before, changed := c.server.places.takeOver(c, now)
	if !changed {
		return
	}
	c.server.count.takeovers.Add(1)
	if before != nil {
		before.replacedBy()
	}
	c.urgent(relay.AppendFrame(nil, relay.TypeHealth, []byte(textActive)))
}

// throttle is how far a client is ahead of its rate, in bytes.
type throttle struct {
	debt float64
	last time.Time
}

// take counts n bytes at now and returns how long not to read.
func (t *throttle) take(now time.Time, n, rate int) time.Duration {
	burst := float64(rate) / 4
	if !t.last.IsZero() {
		t.debt = max(0, t.debt-now.Sub(t.last).Seconds()*float64(rate))
	}
	t.last = now
	t.debt += float64(n)
	if t.debt <= burst {
		return 0
	}
	return time.Duration((t.debt - burst) / float64(rate) * float64(time.Second))
}

// pause does not read for as long as the client is ahead of its rate. It reports false when the session ends meanwhile.
func (c *session) pause(n, rate int) bool {
	d := c.throttle.take(time.Now(), n, rate)
	if d == 0 {
		return true
	}
	c.server.count.limited.Add(1)
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-c.ended:
		return false
	}
}
