package meshsim

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// Report is what a run showed. Times are virtual.
type Report struct {
	Nodes int
	Seed  uint64

	ColdStart     time.Duration // all start, each knowing one other and the founder: everybody knows all
	ColdBytes     float64       // a node sent and received meanwhile, on average
	Sessions      float64       // of a node, on average
	SessionsMost  int           //
	NewCard       time.Duration // until all have it
	Idle          float64       // bytes a second of a node, sent and received, in the first minutes
	Quiet         float64       // after ten minutes without news
	RestartAll    time.Duration // until everybody knows all
	RestartPeak   int           // most bytes that a node sent, or received, in a second meanwhile
	MemoryPerNode uint64        // bytes of this process
	Took          time.Duration // real time
}

const (
	convergeLimit = 10 * time.Minute // of virtual time
	idleAfter     = 30 * time.Second
	idleFor       = 2 * time.Minute
	quietAfter    = 12 * time.Minute
)

// Run runs all of it. say hears of each part, for people. It ends early with ctx, whose error it returns then.
func Run(ctx context.Context, members int, seed uint64, say func(string)) (*Report, error) {
	begun := time.Now()
	n, err := New(members, seed)
	if err != nil {
		return nil, err
	}
	n.ctx = ctx
	r := &Report{Nodes: members, Seed: seed}
	for _, part := range []func(*Report, func(string)) error{n.coldStart, n.newCard, n.idle, n.restartAll} {
		if err := part(r, say); err != nil {
			return r, err
		}
	}
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	r.MemoryPerNode = mem.HeapAlloc / uint64(members)
	runtime.KeepAlive(n)
	r.Took = time.Since(begun)
	return r, nil
}

// coldStart starts all within a second. Everybody knows its own admission, the founder, and one who came before.
func (n *Net) coldStart(r *Report, say func(string)) error {
	for i, x := range n.nodes {
		knows := []int{i}
		if i > 1 {
			knows = append(knows, 1+n.world.Rand().IntN(i-1))
		}
		store, err := n.people.Store(knows...)
		if err != nil {
			return err
		}
		n.world.After(time.Duration(n.world.Rand().Int64N(int64(time.Second))), func() { _ = n.start(x, store) })
	}
	took, err := n.until("everybody to know all", n.agreed)
	r.ColdStart = took
	r.ColdBytes = n.bytes()
	r.Sessions, r.SessionsMost = n.sessions()
	say(fmt.Sprintf("cold start: everybody knows all after %v, %.0f bytes per node; %.1f sessions each, %d at most",
		took.Round(time.Millisecond), r.ColdBytes, r.Sessions, r.SessionsMost))
	return err
}

// newCard has one node say something new of itself.
func (n *Net) newCard(r *Report, say func(string)) error {
	n.world.RunFor(2 * time.Minute) // surplus sessions end
	x := n.nodes[n.world.Rand().IntN(len(n.nodes))]
	before := x.v.CardSeq(x.id)
	if err := x.v.Mesh().SetRelayURL("https://192.0.2.1:9000"); err != nil {
		return err
	}
	x.wake()
	took, err := n.until("a new card to be known to all", func() bool {
		for _, o := range n.nodes {
			if o.v.CardSeq(x.id) == before {
				return false
			}
		}
		return true
	})
	r.NewCard = took
	say(fmt.Sprintf("a new card is known to all after %v", took.Round(time.Millisecond)))
	return err
}

// idle counts what a network without news costs.
func (n *Net) idle(r *Report, say func(string)) error {
	n.world.RunFor(idleAfter)
	n.reset()
	n.world.RunFor(idleFor)
	r.Idle = n.bytes() / idleFor.Seconds()
	n.world.RunFor(quietAfter)
	if n.ctx.Err() != nil {
		return n.ctx.Err()
	}
	n.reset()
	n.world.RunFor(2 * idleFor)
	r.Quiet = n.bytes() / (2 * idleFor).Seconds()
	r.Sessions, r.SessionsMost = n.sessions()
	say(fmt.Sprintf("idle: %.0f bytes a second per node, %.0f after ten quiet minutes; %.1f sessions each, %d at most",
		r.Idle, r.Quiet, r.Sessions, r.SessionsMost))
	return nil
}

// restartAll stops everybody at once, and starts them within a second.
func (n *Net) restartAll(r *Report, say func(string)) error {
	n.reset()
	for _, x := range n.nodes {
		store, err := x.v.Remembered()
		if err != nil {
			return err
		}
		x.stop()
		n.world.After(time.Duration(n.world.Rand().Int64N(int64(time.Second))), func() { _ = n.start(x, store) })
	}
	n.world.RunFor(time.Second)
	took, err := n.until("everybody to know all again", n.agreed)
	r.RestartAll = took + time.Second
	for _, x := range n.nodes {
		r.RestartPeak = max(r.RestartPeak, x.meter.peak())
	}
	say(fmt.Sprintf("all restarted: everybody knows all after %v, at most %d bytes one way of a node in a second",
		r.RestartAll.Round(time.Millisecond), r.RestartPeak))
	return err
}

// until runs until cond holds, which is looked at every tenth of a second, and returns how long it took.
func (n *Net) until(what string, cond func() bool) (time.Duration, error) {
	begun := n.world.Now()
	for n.world.Now().Sub(begun) < convergeLimit {
		n.world.RunFor(100 * time.Millisecond)
		if n.ctx.Err() != nil {
			return 0, n.ctx.Err()
		}
		if cond() {
			return n.world.Now().Sub(begun), nil
		}
	}
	return convergeLimit, fmt.Errorf("seed %d: waited %v for %s", n.world.Seed(), convergeLimit, what)
}

func (n *Net) reset() {
	for _, x := range n.nodes {
		x.meter.reset(n.world.Now())
	}
}

// bytes is what a node sent and received, on average.
func (n *Net) bytes() float64 {
	total := 0
	for _, x := range n.nodes {
		total += x.meter.total
	}
	return float64(total) / float64(len(n.nodes))
}
