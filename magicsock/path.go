package magicsock

import (
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/udp"
)

const (
	// maxPaths is how many candidate paths of one peer are kept.
	maxPaths = 64
	// quickTries pings go to an address that nobody confirmed before its backoff begins.
	quickTries = 3
	// maxProbeBackoff is the longest wait between pings to an address that does not answer.
	maxProbeBackoff = 60 * time.Second
	// recentBackoff is the longest wait for one that answered within recentFor: it comes back within moments.
	recentBackoff = 1500 * time.Millisecond
	recentFor     = 10 * time.Minute
	// keepSeen is how long a path that nobody names any more is kept after its last pong.
	keepSeen = 5 * time.Minute
	// pingTimeout is when an unanswered ping is forgotten.
	pingTimeout = 5 * time.Second
)

// path is what is known of one way to a peer. Owned by core; its meter is shared with the packet path.
type path struct {
	way
	via   identity.PeerID // of a way by a member that relays: that member
	named bool            // the peer's reach or the address book lists it; the relay leg and sessions stand here too
	told  time.Time       // the peer named it in a signal then, pinged from there, or answered an Intro there
	vouch bool            // reached by Intro and Welcome, or by a relay server: may carry data before its first pong
	local udp.Source      // where the last pong arrived: packets leave from there

	rtt      time.Duration // smoothed; 0 until the first pong
	moved    bool          // our links changed since the last pong: rtt is that of another way
	lastPong time.Time     // zero: nobody ever confirmed it
	heard    time.Time     // last pong or authenticated packet; of the best path behind by what syncTrust brings
	dead     bool          // stopped answering since
	lastPing time.Time
	tries    int       // pings since the last pong
	next     time.Time // not before then, while it does not answer
	since    time.Time // became the best path
	inits    int       // initiations since a pong, while nobody confirmed it
	lastInit time.Time

	sizing
	meter   *meter
	samples *samples // nil until the first
	pings   uint64
	pongs   uint64
}

func newPath(by way) *path { return &path{way: by, meter: new(meter)} }

// confirmed reports whether a pong came by this path that nothing has contradicted since.
func (p *path) confirmed() bool { return !p.lastPong.IsZero() && !p.dead }

// recent reports whether the path answered not long ago, so that it may do so again any moment.
func (p *path) recent(now time.Time) bool {
	return !p.lastPong.IsZero() && now.Sub(p.heard) < recentFor
}

// backoff is the wait after the given number of unanswered pings: 0.25, 0.5, 1, 2 … 60 s.
func backoff(tries int) time.Duration {
	if tries > 8 {
		return maxProbeBackoff
	}
	return min(250*time.Millisecond<<(tries-1), maxProbeBackoff)
}

// pinged notes that a ping left on the path.
func (p *path) pinged(now time.Time, jitter float64) {
	p.lastPing = now
	p.tries++
	p.dead = p.dead || p.tries > quickTries && now.Sub(p.heard) >= deadAfter
	wait := backoff(p.tries)
	if p.recent(now) {
		wait = min(wait, recentBackoff)
	}
	p.next = now.Add(wait + time.Duration(float64(wait)*jitter/5))
}

// anew has the path tried as if it never had been.
func (p *path) anew() { p.tries, p.next, p.inits = 0, time.Time{}, 0 }

// initiated notes that a handshake initiation left on the path.
func (p *path) initiated(now time.Time) {
	p.lastInit = now
	if !p.confirmed() {
		p.inits++
	}
}

// ponged notes that a pong to our own ping came back after rtt.
func (p *path) ponged(now time.Time, rtt time.Duration, local udp.Source) {
	if p.rtt == 0 || p.moved {
		p.rtt, p.moved = rtt, false
	} else {
		p.rtt += (rtt - p.rtt) / 8
	}
	p.lastPong, p.heard, p.local = now, now, local
	p.tries, p.inits, p.dead, p.vouch = 0, 0, false, false
	p.pongs++
	p.sample(rtt)
}

// die notes that the path does not answer any more. What it carried has to be shown again when it comes back.
func (p *path) die() {
	p.dead = true
	p.sizing = sizing{}
}

// cost orders paths of one kind: latency, with small bonuses for addresses that are better at the same latency.
func (p *path) cost() time.Duration {
	cost := float64(p.rtt)
	ip := p.addr.Addr()
	switch {
	case p.relay || p.sid != 0:
		return p.rtt
	case ip.IsLoopback():
		cost *= 0.5
	case ip.IsLinkLocalUnicast():
		cost *= 0.7
	case ip.IsPrivate():
		cost *= 0.8
	}
	if ip.Is6() {
		cost *= 0.9
	}
	return time.Duration(cost)
}

// doubtAfter is how long a pong on the path may take before the path is in doubt.
func (p *path) doubtAfter() time.Duration {
	return max(150*time.Millisecond, 2*p.rtt+50*time.Millisecond)
}

// sentPing is a ping whose pong is awaited.
type sentPing struct {
	path *path
	at   time.Time
	size int  // of the packet, in bytes
	asks bool // only whether that size passes: without an answer it says nothing against the path
}

// txMemory remembers the last packets of a peer, so that a repeated one has no effect. Fixed size.
type txMemory struct {
	ids  [64]disco.TxID
	next int
}

// fresh reports whether id is new, and remembers it.
func (m *txMemory) fresh(id disco.TxID) bool {
	for i := range m.ids {
		if m.ids[i] == id {
			return false
		}
	}
	m.ids[m.next] = id
	m.next = (m.next + 1) % len(m.ids)
	return true
}
