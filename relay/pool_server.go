package relay

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// Redialling a server.
const (
	redialFirst = 500 * time.Millisecond // after the first failure, then doubled
	redialMax   = 30 * time.Second
	redialFresh = 30 * time.Second // a connection that held for that long begins anew with redialFirst
	slowDial    = 2 * time.Second  // after which other servers are tried beside
)

// What waits for a server that is dialled: the oldest goes first when there is no room, and what is old is not sent.
const (
	maxWaiting      = 256
	maxWaitingBytes = 256 << 10
	maxWaitingAge   = 5 * time.Second
)

// Doubt about a server that says nothing while something is sent by it.
const (
	doubtAsk   = 500 * time.Millisecond // of silence, before it is pinged
	doubtAfter = time.Second            // without an answer, others are preferred
)

// phase is what a server is for this node right now.
//
//	idle ──dial──▶ dialling ──connected──▶ connected
//	  ▲──── failed ────┘                       │
//	  ▲────────────── failed (lost) ───────────┘
type phase uint8

const (
	idle phase = iota
	dialling
	connected
)

// server is what the pool knows of one relay server. Guarded by Pool.mu, but for what is atomic.
type server struct {
	url  URL
	text string // of url
	rank int    // place in the configuration; -1: a member named it, and it is never a home

	phase   phase
	since   time.Time // when the phase began
	down    time.Time // since when it is lost, in doubt, or fails; zero: it is connected, or was not tried
	err     error     // why the last connection failed or ended
	wait    time.Duration
	next    time.Time // not dialled before
	restart time.Time // until then a home that said it would restart keeps its place
	measure bool      // to be dialled for its latency
	renew   bool      // to be connected to anew, beside the connection there is

	rtt    time.Duration // since it was connected or put on trial: falls at once, rises slowly; 0: not measured
	newest time.Duration // measured last
	pinged time.Time     // by the pool
	doubt  bool          // it does not answer

	link         *link // of the connection in use; nil: not connected
	attempt      *link // that is being made; nil: none
	rerouted     bool  // what waited was tried elsewhere, as this attempt takes long
	waiting      []parcel
	waitingBytes int
	health       string // what the server says of itself or of us
	tx, rx       uint64 // bytes of connections that are over

	client atomic.Pointer[Client] // of link
	sent   atomic.Int64           // when something was sent by it, in ns since the pool began
	used   atomic.Int64           // the same, or received
}

// parcel is datagrams that wait for a connection.
type parcel struct {
	to     identity.PeerID
	pkts   [][]byte
	size   int
	urgent bool
	at     time.Time
}

// park keeps a parcel until the server is connected. It returns how many datagrams have to go for it.
func (s *server) park(p parcel) (dropped int) {
	s.waiting = append(s.waiting, p)
	s.waitingBytes += p.size
	for len(s.waiting) > maxWaiting || s.waitingBytes > maxWaitingBytes {
		dropped += len(s.waiting[0].pkts)
		s.waitingBytes -= s.waiting[0].size
		s.waiting[0] = parcel{}
		s.waiting = s.waiting[1:]
	}
	return dropped
}

// unpark takes out all that waits and is not too old. It returns how many datagrams are.
func (s *server) unpark(now time.Time) (parcels []parcel, old int) {
	for i, p := range s.waiting {
		if now.Sub(p.at) <= maxWaitingAge {
			parcels = s.waiting[i:]
			break
		}
		old += len(p.pkts)
	}
	s.waiting, s.waitingBytes = nil, 0
	return parcels, old
}

// dial says that a connection is being made.
func (s *server) dial(now time.Time) {
	s.phase, s.since, s.rerouted = dialling, now, false
}

// connected says that there is a connection.
func (s *server) connected(now time.Time) {
	s.phase, s.since = connected, now
	s.err, s.measure, s.doubt, s.down = nil, false, false, time.Time{}
	s.rtt, s.newest, s.pinged = 0, 0, time.Time{}
}

// ended says that an attempt failed, or that the connection did, and when to try again. spread is from 0 to 1.
func (s *server) ended(now time.Time, err error, spread float64) {
	if s.phase == connected && now.Sub(s.since) >= redialFresh {
		s.wait = 0
	}
	s.wait = min(max(2*s.wait, redialFirst), redialMax)
	if isRefusal(err) {
		s.wait = redialMax // it will not change its mind soon
	}
	if !errors.Is(err, ErrRestarting) || s.next.Before(now) { // else it has said when
		s.next = now.Add(time.Duration(float64(s.wait) * (0.75 + spread/2)))
	}
	if s.down.IsZero() {
		s.down = now
	}
	s.phase, s.since, s.err = idle, now, err
	s.measure, s.doubt = false, false
}

// restarting takes what the server said before it ends: when to come back, and for how long to try.
func (s *server) restarting(now time.Time, in, try time.Duration) {
	in, try = min(in, redialMax), min(try, time.Minute)
	s.wait = 0
	s.next = now.Add(in)
	s.restart = now.Add(in + try)
}

// isRefusal reports whether trying again soon is of no use: somebody has to change something.
func isRefusal(err error) bool {
	for _, refusal := range []error{
		ErrPin, ErrName, ErrExpired, ErrUnknownCA, ErrVersion, ErrProof, ErrPass, ErrPassExpired, ErrRefused,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// observe takes what a connection knows: the round trip time of its newest ping, and when the server was last heard. It
// reports whether the server should be pinged, and whether the doubt about it began or ended.
func (s *server) observe(now, sent, heard time.Time, rtt time.Duration) (ping, turned bool) {
	if rtt > 0 && rtt != s.newest {
		s.newest = rtt
		if s.rtt == 0 || rtt < s.rtt {
			s.rtt = rtt
		} else {
			s.rtt += (rtt - s.rtt) / 8 // one slow answer is no news, many are
		}
	}
	asked := s.pinged.After(heard)
	doubt := asked && now.Sub(s.pinged) >= max(doubtAfter, 4*s.newest)
	if turned = doubt != s.doubt; turned {
		s.doubt, s.down = doubt, time.Time{}
		if doubt {
			s.down = now
		}
	}
	if !asked && sent.After(heard) && now.Sub(heard) >= doubtAsk {
		s.pinged = now
		return true, turned
	}
	return false, turned
}

// slow reports whether it is dialled for so long already that something else should be tried.
func (s *server) slow(now time.Time) bool { return s.phase == dialling && now.Sub(s.since) >= slowDial }

// dialable reports whether a datagram for it now would get it dialled, or a connection is being made and may be soon.
func (s *server) dialable(now time.Time) bool {
	return s.phase == dialling && !s.slow(now) || s.phase == idle && !now.Before(s.next)
}
