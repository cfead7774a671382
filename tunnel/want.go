package tunnel

import (
	"context"
	"time"
)

// wantGap is the least time between two calls of Config.Want for one member.
const wantGap = 250 * time.Millisecond

// askFor asks for contact with p, from the packet path: the netstack may hold locks, so ask does the calling.
func (t *Tunnel) askFor(p *peer, now int64) {
	last := p.wanted.Load()
	if now-last < int64(wantGap) || !p.wanted.CompareAndSwap(last, now) {
		return
	}
	select {
	case t.wants <- p:
	default:
		p.wanted.Store(0)
		t.counters.add(wantFull)
	}
}

// ask calls Config.Want until ctx ends, and throws out what waited too long.
func (t *Tunnel) ask(ctx context.Context) {
	sweep := time.NewTimer(time.Hour)
	defer sweep.Stop()
	waiting := false
	for {
		var due <-chan time.Time
		if waiting {
			due = sweep.C
		}
		select {
		case <-ctx.Done():
			return
		case p := <-t.wants:
			t.cfg.Want(p.id)
			if !waiting {
				waiting = true
				sweep.Reset(time.Second)
			}
		case now := <-due:
			waiting = t.tap.lot.sweep(now)
			sweep.Reset(time.Second)
		}
	}
}
