package relay

import "time"

// verdict is what a beat of the heart asks for.
type verdict uint8

const (
	rest verdict = iota // all is well
	ask                 // ping the relay
	dead                // it does not answer
)

// heart decides when a relay that says nothing is asked, and when it is given up: at the keepalive interval while the
// connection is idle, within seconds while something is sent that nobody may receive. Owned by the writer.
type heart struct {
	keepAlive time.Duration
	asked     time.Time // zero: no answer is due
}

// beat judges at now, when the relay was last heard and something was last written.
func (h *heart) beat(now, heard, wrote time.Time) verdict {
	if !h.asked.IsZero() && !heard.Before(h.asked) {
		h.asked = time.Time{}
	}
	switch {
	case !h.asked.IsZero() && now.Sub(h.asked) >= silence:
		return dead
	case !h.asked.IsZero():
		return rest
	case wrote.Sub(heard) >= quiet, now.Sub(heard) >= h.keepAlive*3/2:
		h.asked = now
		return ask
	case now.Sub(wrote) >= h.keepAlive:
		return ask // what is between must not forget the connection
	}
	return rest
}

// next is how long after a beat the next one is due: soon while an answer is, or something is sent.
func (h *heart) next(now, heard, wrote time.Time) time.Duration {
	if !h.asked.IsZero() || wrote.After(heard) {
		return pulse
	}
	due := min(h.keepAlive-now.Sub(wrote), h.keepAlive*3/2-now.Sub(heard))
	return max(due, pulse)
}
