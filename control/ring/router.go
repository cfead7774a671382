package ring

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
)

// Config is what a Router is made of.
type Config struct {
	Self    *identity.Identity
	Network identity.NetworkID
	// Rand draws ids and ways. Default: one of its own with a seed from the system.
	Rand *rand.Rand
	// Verify reports whether sig is that of a signal's body by its origin. Default: identity.Verify.
	Verify func(origin identity.PeerID, body, sig []byte) bool
}

// View is what a Router knows of its surroundings. It must not be changed after it was given.
type View struct {
	Ring     *Ring
	Mode     Mode
	Sessions []identity.PeerID // established ones, to members
	// Prefer names through whom a target is reached best, such as its homes. It counts in Full mode. Default: nobody.
	Prefer func(target identity.PeerID) []identity.PeerID
}

// Actions is what a Router wants done. The zero value is nothing.
type Actions struct {
	Deliver *Signal // for this node
	Sends   []Send
	Failed  []ID // signals of this node that came to dead ends by every way
	Bad     bool // the neighbour sent what no honest one does: something malformed or forged
}

// Send is a frame for a neighbour.
type Send struct {
	To    identity.PeerID
	Frame []byte // at most MaxFrame bytes; not changed any more
}

// Router carries signals: this node's own, those for it, and those of others. It is a state machine without clock or
// sockets: each call takes the time and says what to send. Its methods never block, the longest takes as long as making
// a signature. Not safe for concurrent use.
//
// Of the two times that methods take, now is any steady clock, and mesh is the network's time.
type Router struct {
	cfg      Config
	self     identity.PeerID
	here     Position
	view     View
	sessions map[identity.PeerID]Position
	near     map[identity.PeerID]*neighbour
	budget   bucket.Bucket // of signature checks
	seen     seen
	memory   memory
	noted    noted
	counts   [counts]uint64
}

// NewRouter makes a router that knows nobody yet. Config needs Self and Network.
func NewRouter(cfg Config) *Router {
	if cfg.Rand == nil {
		var seed [32]byte
		crand.Read(seed[:])
		cfg.Rand = rand.New(rand.NewChaCha8(seed))
	}
	if cfg.Verify == nil {
		cfg.Verify = func(origin identity.PeerID, body, sig []byte) bool {
			return identity.Verify(origin, identity.PurposeRing, cfg.Network, body, sig) == nil
		}
	}
	self := cfg.Self.ID()
	return &Router{
		cfg: cfg, self: self, here: PositionOf(cfg.Network, self), view: View{Ring: New(cfg.Network, nil)},
		near: make(map[identity.PeerID]*neighbour),
	}
}

// SetView replaces what the router knows of its surroundings. View needs a Ring.
func (r *Router) SetView(v View) {
	sessions := make(map[identity.PeerID]Position, len(v.Sessions))
	for _, id := range v.Sessions {
		at, ok := r.sessions[id]
		if !ok {
			at = PositionOf(r.cfg.Network, id)
		}
		sessions[id] = at
	}
	r.view, r.sessions = v, sessions
}

// Draft is a signal of this node with a fresh id and without a payload yet, for a target at mesh time.
func (r *Router) Draft(mesh time.Time, target identity.PeerID, t Type) *Signal {
	s := &Signal{Origin: r.self, Target: target, Type: t, Time: mesh}
	binary.BigEndian.PutUint64(s.ID[:8], r.cfg.Rand.Uint64())
	binary.BigEndian.PutUint64(s.ID[8:], r.cfg.Rand.Uint64())
	return s
}

// Originate signs and sends what Draft made. borrowed: the signal is only used during the call. With a session with the
// target, whose path may be the one that broke, and in Full mode the signal goes by both ways at once; otherwise by the
// other only when the first leads nowhere. Whoever asks again within 10 s begins with the other. Errors: ErrSignal,
// ErrNoWay; then there is nothing to do.
func (r *Router) Originate(now time.Time, s *Signal) (Actions, error) {
	if s.Origin != r.self || s.Target == r.self || !r.view.Ring.Has(s.Target) || len(s.Payload) > MaxPayload || !s.Type.known() {
		return Actions{}, ErrSignal
	}
	body := s.encode()
	p := &pending{
		key:    wayKey{signalKey{r.self, s.ID}, r.noted.first(now, s.Target)},
		target: s.Target, body: body, ttl: maxTTL,
		sig: r.cfg.Self.Sign(identity.PurposeRing, r.cfg.Network, body),
	}
	var a Actions
	if !r.launch(now, p, &a) {
		if !r.otherWay(now, p, &a) {
			r.counts[noWay]++
			return Actions{}, ErrNoWay
		}
		return a, nil
	}
	r.memory.add(now, p)
	if _, direct := r.sessions[s.Target]; direct || r.view.Mode == Full {
		r.otherWay(now, p, &a)
	}
	return a, nil
}

// otherWay sends a signal of this node by the way that p is not, through any session that p does not use.
func (r *Router) otherWay(now time.Time, p *pending, a *Actions) bool {
	q := &pending{
		key: p.key.other(), target: p.target, avoid: slices.Clone(p.avoid), body: p.body, sig: p.sig, ttl: p.ttl,
		both: true, roam: true,
	}
	p.both = true
	if !r.launch(now, q, a) {
		return false
	}
	r.memory.add(now, q)
	return true
}

// Next is when Tick has something to do; the zero time: never, as things are.
func (r *Router) Next() time.Time { return r.memory.next() }

// Tick tries signals again whose next hop stays silent.
func (r *Router) Tick(now time.Time) Actions {
	var a Actions
	for p := r.memory.due(now); p != nil; p = r.memory.due(now) {
		if n := r.near[p.next]; n != nil {
			n.slow = now.Add(slowFor)
		}
		if r.launch(now, p, &a) {
			r.counts[retried]++
			continue
		}
		r.counts[lost]++
		r.fail(now, p, &a)
	}
	return a
}

// fail ends a way that leads nowhere.
func (r *Router) fail(now time.Time, p *pending, a *Actions) {
	if !p.own() {
		r.memory.drop(p)
		r.answer(a, p.from, kindNoRoute, p.key)
		r.counts[returned]++
		return
	}
	goesOn := !p.both && r.otherWay(now, p, a) || r.memory.by[p.key.other()] != nil
	r.memory.drop(p)
	if !goesOn {
		r.counts[noWay]++
		a.Failed = append(a.Failed, p.key.id)
	}
}

func (r *Router) answer(a *Actions, to identity.PeerID, k kind, key wayKey) {
	f := &answerFrame{k, key.id, key.origin, key.way}
	a.Sends = append(a.Sends, Send{to, f.encode()})
}
