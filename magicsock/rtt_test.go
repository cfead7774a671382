package magicsock

import (
	"testing"
	"time"
)

// TestRTTStats compares what is told of made-up round-trip times with what can be reckoned by hand.
func TestRTTStats(t *testing.T) {
	const ms = time.Millisecond
	fill := func(fates ...time.Duration) *path { // negative: lost
		p := newPath(way{addr: addrA})
		for _, f := range fates {
			if f < 0 {
				p.lost()
			} else {
				p.sample(f)
			}
		}
		return p
	}
	var rising, alternating []time.Duration
	for i := range 250 {
		rising = append(rising, time.Duration(i+1)*ms)
		alternating = append(alternating, 10*ms, -1)
	}
	for name, c := range map[string]struct {
		fates []time.Duration
		want  RTTStats
	}{
		"none":                      {},
		"lost before the first":     {[]time.Duration{-1, -1}, RTTStats{}},
		"one":                       {[]time.Duration{7 * ms}, RTTStats{Count: 1, Last: 7 * ms, Avg: 7 * ms, P95: 7 * ms}},
		"two":                       {[]time.Duration{10 * ms, 20 * ms}, RTTStats{Count: 2, Last: 20 * ms, Avg: 15 * ms, Stddev: 5 * ms, P95: 20 * ms}},
		"textbook":                  {[]time.Duration{2 * ms, 4 * ms, 4 * ms, 4 * ms, 5 * ms, 5 * ms, 7 * ms, 9 * ms}, RTTStats{Count: 8, Last: 9 * ms, Avg: 5 * ms, Stddev: 2 * ms, P95: 9 * ms}},
		"the last is lost":          {[]time.Duration{8 * ms, 4 * ms, 6 * ms, -1}, RTTStats{Count: 4, Last: 6 * ms, Avg: 6 * ms, Stddev: 1633 * time.Microsecond, P95: 8 * ms, Loss: 0.25}},
		"only the last hundred":     {rising, RTTStats{Count: 100, Last: 250 * ms, Avg: 200500 * time.Microsecond, Stddev: 28866 * time.Microsecond, P95: 245 * ms}},
		"every other one is lost":   {alternating, RTTStats{Count: 100, Last: 10 * ms, Avg: 10 * ms, P95: 10 * ms, Loss: 0.5}},
		"below a microsecond":       {[]time.Duration{100}, RTTStats{Count: 1}},
		"longer than anything real": {[]time.Duration{100 * time.Hour}, RTTStats{Count: 1, Last: (lostSample - 1) * time.Microsecond, Avg: (lostSample - 1) * time.Microsecond, P95: (lostSample - 1) * time.Microsecond}},
	} {
		if got := fill(c.fates...).samples.stats(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestPathsAreCounted counts pings, pongs and losses of one path.
func TestPathsAreCounted(t *testing.T) {
	b := newBench(t, false, addrA)
	b.up(addrA)
	before := b.core.info(b.now, b.p).Candidates[0]
	for i := range 8 {
		b.core.ping(b.now, b.p, b.p.best)
		if i < 6 {
			b.pong(addrA, time.Duration(i+1)*time.Millisecond)
		}
	}
	b.core.schedule(b.now, b.p)
	b.pass(pingTimeout - time.Millisecond)
	b.core.ping(b.now, b.p, b.p.best) // whose fate is open
	info := b.core.info(b.now, b.p).Candidates[0]
	if info.Pongs-before.Pongs != 6 || info.Pings < before.Pings+9 || info.Stats.Last != 6*time.Millisecond {
		t.Errorf("%d pings, %d pongs, %+v", info.Pings-before.Pings, info.Pongs-before.Pongs, info.Stats)
	}
	b.pass(time.Millisecond)
	info = b.core.info(b.now, b.p).Candidates[0]
	if lost := info.Stats.Loss * float64(info.Stats.Count); lost < 1.99 || lost > 2.01 || before.Size != 1312 {
		t.Errorf("%+v: %.1f lost", info, lost)
	}
}
