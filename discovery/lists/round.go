package lists

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// step does what is due.
func (l *loop) step(now time.Time) {
	if l.relinked() {
		l.schedule.restart(now)
		l.retry()
	}
	l.lacking = l.cfg.Lacking == nil || l.cfg.Lacking()
	if !l.lacking {
		l.queue = nil
	}
	if l.schedule.look(now, l.lacking) && len(l.queue) == 0 {
		l.round(now)
	}
	l.send(now)
	l.mu.Lock()
	l.Lists.count = l.count
	l.mu.Unlock()
}

func (l *loop) relinked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.relink
	l.relink = false
	return was
}

// retry ends the backoff of what failed.
func (l *loop) retry() {
	for _, all := range [][]*target{l.static, l.file.targets, l.list.targets} {
		for _, t := range all {
			if t.fails > 0 {
				t.due, t.fails = time.Time{}, 0
			}
		}
	}
	for i := range l.list.halves {
		if h := &l.list.halves[i]; h.fails > 0 {
			h.due, h.fails = time.Time{}, 0
		}
	}
}

// next is when step has something to do again, if nothing happens.
func (l *loop) next() time.Time {
	if len(l.queue) == 0 {
		return l.schedule.next()
	}
	first := slices.MinFunc(l.queue, func(x, y item) int { return x.due.Compare(y.due) }).due
	if p := l.pacer.next(); p.After(first) {
		return p
	}
	return first
}

// round begins a round: what is known is handed out, what is due is looked up.
func (l *loop) round(now time.Time) {
	before := l.schedule.rounds
	l.schedule.begin(now)
	l.count.Rounds++
	l.asked = make(map[netip.AddrPort]bool)
	l.readFile()
	l.askList(now)
	rand.Shuffle(len(l.file.targets), func(i, j int) {
		l.file.targets[i], l.file.targets[j] = l.file.targets[j], l.file.targets[i]
	})
	for k, all := range [kinds][]*target{l.static, l.file.targets, l.list.targets} {
		l.pools[k].begin(all)
		for _, t := range all {
			t.given = 0
		}
	}
	l.serve(now, kindStatic, l.static)
	l.serve(now, kindFile, l.file.targets)
	l.serve(now, kindList, l.list.round(before))
	l.cfg.Logger.Debug("bootstrap round", "attempt", before+1, "addresses", len(l.queue), "lookups", len(l.starts))
}

// serve looks up what of targets is due, and hands out what is known of them.
func (l *loop) serve(now time.Time, k kind, targets []*target) {
	limit := maxLookups
	if k == kindStatic {
		limit = len(targets)
	}
	for _, t := range oldest(now, targets, limit) {
		l.lookUp(t)
	}
	l.offer(now, k, targets)
}

// lookUp has a target's host looked up.
func (l *loop) lookUp(t *target) {
	t.busy = true
	l.count.Lookups++
	name, slots := t.named(), l.slots[t.kind]
	l.starts = append(l.starts, func(ctx context.Context) {
		if slots != nil {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-slots }()
		}
		a, err := l.resolver.host(ctx, name)
		l.bring(ctx, func(now time.Time) {
			if err != nil {
				l.count.Failures++
			}
			if t.took(now, a, err); !t.gone {
				l.offer(now, t.kind, []*target{t})
			}
		})
	})
}

// bring hands finish to the loop.
func (l *loop) bring(ctx context.Context, finish func(now time.Time)) {
	select {
	case l.done <- finish:
	case <-ctx.Done():
	}
}

// readFile has the file read if it changed.
func (l *loop) readFile() {
	f := &l.file
	if f.name == "" || f.busy {
		return
	}
	f.busy = true
	name, mark := f.name, f.mark
	l.starts = append(l.starts, func(ctx context.Context) {
		text, mark, err := readFile(name, mark)
		l.bring(ctx, func(now time.Time) {
			if err != nil {
				l.count.Failures++
			}
			l.fileRead(now, text, mark, err)
		})
	})
}

func (l *loop) fileRead(now time.Time, text string, mark fileMark, err error) {
	f := &l.file
	old, oldBad := f.targets, f.said.bad
	changed := f.took(now, text, mark, err)
	how := loud
	if err == nil && !f.said.beyond() {
		how = quiet // each line tells of itself
	}
	l.tell(now, f.result(), how)
	if !changed {
		return
	}
	for _, b := range oldBad {
		l.drop(resultKey{SourceFile, lineOf(f.name, b)})
	}
	for _, b := range f.said.bad {
		l.tell(now, Result{Entry: lineOf(f.name, b), Source: SourceFile, Err: b.err.Error(), LastTried: now}, loud)
	}
	l.forget(old)
	l.serve(now, kindFile, f.targets)
}

func lineOf(name string, b badLine) string { return name + ":" + strconv.Itoa(b.line) }

// askList asks for the records of the DNS list that are due.
func (l *loop) askList(now time.Time) {
	for i := range l.list.halves {
		h, name := &l.list.halves[i], l.list.name
		if name == "" || h.busy || now.Before(h.due) {
			continue
		}
		h.busy = true
		l.count.Lookups++
		l.starts = append(l.starts, func(ctx context.Context) {
			a, err := l.resolver.list(ctx, name, h.qtype)
			l.bring(ctx, func(now time.Time) {
				if err != nil && !isNone(err) {
					l.count.Failures++
				}
				l.listed(now, h, a, err)
			})
		})
	}
}

func (l *loop) listed(now time.Time, h *half, a answer, err error) {
	old := l.list.targets
	l.list.took(now, h, a, err)
	if _, settled := l.list.err(); settled {
		l.tell(now, l.list.result(), loud)
	}
	l.forget(old)
	l.serve(now, kindList, l.list.round(max(l.schedule.rounds-1, 0)))
}

// forget drops the results of targets that are gone.
func (l *loop) forget(old []*target) {
	for _, t := range old {
		if t.gone {
			l.drop(resultKey{t.kind.String(), t.String()})
		}
	}
}

// offer queues what is to be handed out of targets in this round, and notes what is known of them.
func (l *loop) offer(now time.Time, k kind, targets []*target) {
	own := make(map[netip.AddrPort]bool)
	if l.cfg.Own != nil {
		for _, a := range l.cfg.Own() {
			own[netip.AddrPortFrom(a.Addr().Unmap(), a.Port())] = true
		}
	}
	for _, t := range targets {
		l.count.Unfit += uint64(t.check(now, func(a netip.AddrPort) error {
			switch {
			case own[a]:
				return errSelf
			case l.cfg.Refused != nil && l.cfg.Refused(a.Addr()):
				return errInside
			}
			return nil
		}))
	}
	if l.lacking && l.asked != nil {
		l.queue = append(l.queue, l.pools[k].draw(now, targets, l.asked)...)
	}
	for _, t := range targets {
		how := loud
		switch {
		case errors.Is(t.err, errSelf):
			how = quiet
		case k != kindStatic:
			how = counted
		}
		l.tell(now, t.result(), how)
	}
}

// send hands out what is due, the user's entries first.
func (l *loop) send(now time.Time) {
	slices.SortStableFunc(l.queue, func(x, y item) int {
		return cmp.Or(cmp.Compare(x.kind, y.kind), x.due.Compare(y.due))
	})
	var out [kinds][]netip.AddrPort
	wait := l.queue[:0]
	for _, it := range l.queue {
		if it.due.After(now) || l.pacer.next().After(now) {
			wait = append(wait, it)
			continue
		}
		l.pacer.take(now)
		out[it.kind] = append(out[it.kind], it.addr)
	}
	l.queue = wait
	for k, addrs := range out {
		if len(addrs) > 0 {
			l.count.HandedOut += uint64(len(addrs))
			l.cfg.Found(addrs, kind(k).String())
		}
	}
}

// tell notes a result, and tells OnFailed of a failure that is news.
func (l *loop) tell(now time.Time, r Result, how telling) {
	key := resultKey{r.Source, r.Entry}
	l.mu.Lock()
	l.results[key] = r
	l.mu.Unlock()
	if r.Err == "" || how == quiet {
		l.failures.over(key)
		return
	}
	reason := r.Err
	if r.Stale {
		reason += "; what was known before is in use"
	}
	if l.failures.news(now, key, reason, how == counted) && l.cfg.OnFailed != nil {
		l.cfg.OnFailed(r.Entry, r.Source, reason)
	}
}

func (l *loop) drop(key resultKey) {
	l.mu.Lock()
	delete(l.results, key)
	l.mu.Unlock()
	l.failures.over(key)
}
