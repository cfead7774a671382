package lists

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

const (
	maxLookups = 64 // of hosts, begun or under way at a time, for each source but the user's entries
	atOnce     = 16 // of them, while the others wait
)

// loop is the state of Run. Owned by it.
type loop struct {
	*Lists
	schedule schedule
	pacer    pacer
	failures failures
	lacking  bool

	static []*target
	bad    []Result // entries that are none, to be told
	file   fileSource
	list   listSource

	pools [kinds]pool
	slots [kinds]chan struct{}    // for lookups; nil: as many as there are
	asked map[netip.AddrPort]bool // in this round
	queue []item
	count Counters

	starts []func(context.Context)  // lookups to begin
	done   chan func(now time.Time) // what they bring back
}

func newLoop(l *Lists) *loop {
	r := &loop{Lists: l, file: fileSource{name: l.cfg.File}, done: make(chan func(time.Time))}
	seen := make(map[Entry]bool)
	for _, s := range l.cfg.Entries {
		e, err := ParseEntry(s)
		if err != nil {
			r.bad = append(r.bad, Result{Entry: s, Source: SourceStatic, Err: err.Error()})
			continue
		}
		if !seen[e] {
			seen[e] = true
			r.static = append(r.static, newTarget(kindStatic, e))
		}
	}
	if l.cfg.DNS != "" {
		name, err := ParseName(l.cfg.DNS)
		if err != nil {
			r.bad = append(r.bad, Result{Entry: l.cfg.DNS, Source: SourceDNS, Err: err.Error()})
		}
		r.list = newListSource(name)
	}
	var p [kinds]int
	p[kindStatic], p[kindFile], p[kindList] = shares(r.static, r.file.name != "", r.list.name != "")
	for k := range r.pools {
		r.pools[k].share = p[k]
		if kind(k) != kindStatic {
			r.slots[k] = make(chan struct{}, atOnce)
		}
	}
	return r
}

// empty reports whether there is nothing to do, ever.
func (l *loop) empty() bool {
	return len(l.static) == 0 && len(l.bad) == 0 && l.file.name == "" && l.list.name == ""
}

func (l *loop) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, r := range l.bad {
		l.tell(time.Now(), r, loud)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.wake:
		case finish := <-l.done:
			finish(time.Now())
		case <-timer.C:
		}
		now := time.Now()
		l.step(now)
		for _, start := range l.starts {
			wg.Go(func() { start(ctx) })
		}
		l.starts = l.starts[:0]
		timer.Reset(max(l.next().Sub(now), 0))
	}
}
