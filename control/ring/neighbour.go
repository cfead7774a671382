package ring

import (
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
)

// Quotas, in signals a second and at once.
const (
	rateNeighbour = 100 // of a neighbour
	rateOrigin    = 10  // of a neighbour and an origin
	rateAnswers   = 200 // answers of a neighbour
	// A signature check costs more than all the rest. What is checked in a second, about 200, is half for whoever
	// comes first and half in shares that 64 sessions have for themselves, so that several floods at once do not shut
	// the others out.
	rateVerify, rateVerifyEach, burstVerifyEach = 100, 1.5, 8
)

const (
	muteFor       = 10 * time.Second // who broke the rules is not listened to
	slowFor       = 5 * time.Second  // who stayed silent is asked last
	maxNeighbours = 256              // remembered
	maxOrigins    = 256              // of a neighbour; 200 is the most that its quota lets through in a second
	// neighbourFor is how long one is remembered after its last frame: longer than any quota takes to fill up.
	neighbourFor = 15 * time.Second
)

// neighbour is what somebody that frames come from may still send, and how it behaved.
type neighbour struct {
	signals, answers bucket.Bucket
	verify           bucket.Bucket
	own              bucket.Bucket // what this node itself may send to it
	origins          map[identity.PeerID]*originQuota
	muted, slow      time.Time // until when
	last             time.Time
}

type originQuota struct {
	bucket.Bucket
	last time.Time
}

// fromOrigin takes a token of the neighbour and an origin.
func (n *neighbour) fromOrigin(now time.Time, origin identity.PeerID) bool {
	q := n.origins[origin]
	if q == nil {
		if len(n.origins) >= maxOrigins {
			for id, q := range n.origins {
				if now.Sub(q.last) >= time.Second { // as good as new
					delete(n.origins, id)
				}
			}
		}
		if len(n.origins) >= maxOrigins {
			return false
		}
		if n.origins == nil {
			n.origins = make(map[identity.PeerID]*originQuota)
		}
		q = new(originQuota)
		n.origins[origin] = q
	}
	q.last = now
	return q.Take(now, rateOrigin, rateOrigin)
}

// neighbour finds what is remembered of somebody, or begins to. nil: there are too many.
func (r *Router) neighbour(now time.Time, id identity.PeerID) *neighbour {
	n := r.near[id]
	if n == nil {
		if len(r.near) >= maxNeighbours {
			r.sweep(now)
		}
		if len(r.near) >= maxNeighbours {
			return nil
		}
		n = new(neighbour)
		r.near[id] = n
	}
	n.last = now
	return n
}

// sweep forgets those without a session that were silent for long.
func (r *Router) sweep(now time.Time) {
	for id, n := range r.near {
		if _, ok := r.sessions[id]; !ok && now.Sub(n.last) > neighbourFor {
			delete(r.near, id)
		}
	}
}
