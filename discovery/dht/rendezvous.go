package dht

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/meshnet/meshnet/identity"
)

const (
	// watchEvery is how often Lacking is asked when nothing else is due.
	watchEvery = 30 * time.Second
	leastPause = time.Second
)

// engineer is what a Rendezvous needs of a Node.
type engineer interface {
	Lookup(ctx context.Context, secret identity.Secret, now time.Time) ([]Record, error)
	publish(
		ctx context.Context, secret identity.Secret, id identity.PeerID, own Record, enough func([]Record) bool,
	) (bool, error)
}

// RendezvousConfig is what a Rendezvous works with. The funcs must not block; Connected and Found may be called at once,
// by goroutines of Run. All but Connected and Clock are needed.
type RendezvousConfig struct {
	// ID is the own PeerID.
	ID identity.PeerID
	// Secrets are the network's and those of open invites, at most 64. They are derived from K or an invite's PSK.
	Secrets func(now time.Time) []Use
	// Own is the own signed record, 1 to 512 bytes; nil: there is nothing to tell.
	Own func() []byte
	// Lacking reports whether the node has no sessions, or too few.
	Lacking func() bool
	// Connected reports whether a record is by a member that there is a session with, and tells what is still true of
	// it. nil: never.
	Connected func(Record) bool
	// Found is told of every record of another that a lookup found. It is unproven.
	Found func(Record)
	// Clock is the mesh's time. nil: the host's.
	Clock  func() time.Time
	Logger *slog.Logger // nil: discarded
}

// Rendezvous keeps the node findable in the DHT, and finds others while it lacks peers. Safe for concurrent use.
type Rendezvous struct {
	cfg    RendezvousConfig
	node   engineer
	wake   chan struct{}
	policy policy // owned by Run
}

// NewRendezvous makes a Rendezvous by a Node, whose Run has to be under way while its own is.
func NewRendezvous(node *Node, cfg RendezvousConfig) *Rendezvous { return newRendezvous(node, cfg) }

func newRendezvous(node engineer, cfg RendezvousConfig) *Rendezvous {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Connected == nil {
		cfg.Connected = func(Record) bool { return false }
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Rendezvous{cfg: cfg, node: node, wake: make(chan struct{}, 1), policy: policy{id: cfg.ID}}
}

// Wake has Lacking, Secrets and Own asked now: one of them changed. Without it that is noticed within 30 s.
func (r *Rendezvous) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, whose error it returns. It is called once.
func (r *Rendezvous) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		case <-timer.C:
		}
		s := r.state()
		todo, next := r.policy.step(s)
		r.do(ctx, s, todo)
		timer.Reset(min(max(time.Until(next), leastPause), watchEvery))
	}
}

func (r *Rendezvous) state() state {
	clock := r.cfg.Clock()
	return state{
		now: time.Now(), clock: clock, lacking: r.cfg.Lacking(), uses: r.cfg.Secrets(clock), own: r.cfg.Own(),
	}
}

// do carries out tasks: lookups one after another, and writes beside them.
func (r *Rendezvous) do(ctx context.Context, s state, todo []task) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for _, t := range todo {
			if !t.write && ctx.Err() == nil && r.cfg.Lacking() {
				r.lookFor(ctx, s, t)
			}
		}
	})
	wg.Go(func() {
		for _, t := range todo {
			if t.write && ctx.Err() == nil {
				wrote, err := r.write(ctx, s, t)
				r.policy.wrote(t, s, time.Now(), wrote, err)
			}
		}
	})
}

func (r *Rendezvous) lookFor(ctx context.Context, s state, t task) {
	records, err := r.node.Lookup(ctx, t.secret, s.clock)
	if err != nil {
		r.cfg.Logger.Debug("nobody found by DHT", "err", err)
		return
	}
	own := KeyOf(r.cfg.ID)
	for _, rec := range records {
		if rec.Key != own {
			r.cfg.Found(rec)
		}
	}
}

func (r *Rendezvous) write(ctx context.Context, s state, t task) (bool, error) {
	own := Record{Key: KeyOf(r.cfg.ID), At: s.clock, Data: s.own}
	return r.node.publish(ctx, t.secret, r.cfg.ID, own, func(there []Record) bool {
		return enough(t, s, own, there, r.cfg.Connected)
	})
}
