package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

// run measures everything at one MTU. Owned by one goroutine.
type run struct {
	gauge
	table *table
	lanes []*lane
	log   io.Writer
	calm  *calm
}

// onStage gives f a lab and takes everything down again that it built there.
func onStage(dir string, log io.Writer, f func(lab *netlab.Lab) error) (err error) {
	st := &stage{log: log, dir: dir}
	defer st.close()
	defer func() {
		if r := recover(); r != nil {
			refused, ok := r.(refusal)
			if !ok {
				panic(r)
			}
			err = errors.New(refused.text)
		}
	}()
	return f(netlab.New(st))
}

// measureTable builds the lanes for one MTU, measures them and takes them down.
func measureTable(ctx context.Context, p plan, mtu string, bins *site, log io.Writer) (*table, error) {
	t := newTable(mtu)
	err := onStage(bins.dir, log, func(lab *netlab.Lab) (err error) {
		s := *bins
		s.lab = lab
		if s.mtu, err = parseMTU(mtu); err != nil {
			return err
		}
		r := &run{gauge: gauge{self: s.self, plan: p}, table: t, log: log, calm: &calm{left: p.patience}}
		if err := r.start(ctx, &s); err != nil {
			return err
		}
		bins.meshnet, bins.bare, bins.taken = s.meshnet, s.bare, s.taken
		if err := r.measure(ctx); err != nil {
			return err
		}
		return r.flames(ctx, s.dir)
	})
	if err != nil {
		return t, err
	}
	t.Verdicts = judge(t)
	return t, nil
}

// start brings up all carriers. They stay up, idle but for the one that is measured: what is compared is a daemon
// that has run for a while.
func (r *run) start(ctx context.Context, s *site) error {
	for _, c := range carriers() {
		if !slices.Contains(r.plan.carriers, c.name) {
			continue
		}
		l, err := c.start(ctx, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			r.failed("starting "+c.name, err)
			continue
		}
		fmt.Fprintf(r.log, "%s is up\n", c.name)
		r.lanes = append(r.lanes, l)
		r.table.Carriers = append(r.table.Carriers, c.name)
	}
	if len(r.lanes) == 0 {
		return fmt.Errorf("no carrier is up:\n%s", strings.Join(r.table.Failures, "\n"))
	}
	return nil
}

// failed notes a measurement that gave nothing.
func (r *run) failed(what string, err error) {
	text := fmt.Sprintf("%s: %v", what, err)
	r.table.Failures = append(r.table.Failures, text)
	fmt.Fprintln(r.log, text)
}

// measure runs all tests: memory first, while the daemons are fresh, then the rounds.
func (r *run) measure(ctx context.Context) error {
	if r.plan.has("memory") {
		if err := r.memory(ctx); err != nil {
			return err
		}
	}
	for round := 1; round <= r.plan.rounds; round++ {
		for _, test := range r.plan.tests {
			if test == "memory" {
				continue
			}
			for i := range r.lanes {
				// Every round begins with another carrier, so that none always comes behind the same one.
				if err := r.one(ctx, round, test, r.lanes[(i+round-1)%len(r.lanes)]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// flames writes the flame graph that was asked for.
func (r *run) flames(ctx context.Context, dir string) error {
	for _, l := range r.lanes {
		if r.plan.flame == "" || l.name != nameMeshnet {
			continue
		}
		fmt.Fprintf(r.log, "flame graph: %v of %s\n", flameTime, l.name)
		if err := r.flame(ctx, l, dir, r.plan.flame); ctx.Err() != nil {
			return context.Cause(ctx)
		} else if err != nil {
			r.failed("flame graph", errors.Join(err, l.alive()))
		}
	}
	return nil
}

// one runs a test on a lane. Its error is the end of the run; what only the lane is to blame for is noted.
func (r *run) one(ctx context.Context, round int, test string, l *lane) error {
	if l.tcpOnly && !strings.HasPrefix(test, "tcp") || test == "flood" && l.port == 0 {
		return nil
	}
	what := fmt.Sprintf("round %d/%d %s %s", round, r.plan.rounds, test, l.name)
	if err := l.alive(); err != nil {
		r.failed(what, err)
		return nil
	}
	figures, noisy, err := r.figures(ctx, test, l)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		r.failed(what, errors.Join(err, l.alive()))
		return nil
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		r.table.add(l.name, name, reading{Round: round, Value: figures[name], Noisy: noisy})
		words = append(words, name+" "+short(figures[name]))
	}
	if noisy {
		words = append(words, "(busy machine)")
	}
	fmt.Fprintf(r.log, "%s: %s\n", what, strings.Join(words, ", "))
	return nil
}

// figures runs a test, each load of which waits for a calm machine, and returns its metrics.
func (r *run) figures(ctx context.Context, test string, l *lane) (figures map[string]float64, noisy bool, err error) {
	load := func(f func() (outcome, error)) (o outcome) {
		if err != nil {
			return o
		}
		noisy = r.calm.wait(ctx) || noisy
		o, err = f()
		return o
	}
	tcp := func(streams int, back bool) map[string]float64 {
		return tcpFigures(test, load(func() (outcome, error) { return r.tcp(ctx, l, streams, back) }))
	}
	udp := func(size int) map[string]float64 {
		steady := load(func() (outcome, error) { return r.udp(ctx, l, size, steadyRate) })
		over := load(func() (outcome, error) { return r.udp(ctx, l, size, r.plan.overloadRate(size)) })
		return udpFigures(test, steady, over)
	}
	switch test {
	case "tcp1":
		figures = tcp(1, false)
	case "tcp4":
		figures = tcp(4, false)
	case "tcp16":
		figures = tcp(16, false)
	case "tcp1r":
		figures = tcp(1, true)
	case "udp200":
		figures = udp(200)
	case "udp1200":
		figures = udp(1200)
	case "ping":
		idle := load(func() (outcome, error) { return r.ping(ctx, l, false) })
		loaded := load(func() (outcome, error) { return r.ping(ctx, l, true) })
		figures = pingFigures(idle, loaded)
	case "flood":
		figures = r.floods(ctx, l, load)
	}
	if len(l.pids()) == 0 {
		delete(figures, test+"_cpu") // no daemons, no figure
	}
	return figures, noisy, err
}

// memory saturates one lane after the other and reads how much memory its daemons have: before, under load, right
// after it, and when they have rested. The most of the two daemons counts.
func (r *run) memory(ctx context.Context) error {
	type resting struct {
		l     *lane
		until time.Time
	}
	var asleep []resting
	for _, l := range r.lanes {
		if len(l.pids()) > 0 {
			r.resident(l, "rss_idle")
		}
	}
	for _, l := range r.lanes {
		if len(l.pids()) == 0 {
			continue
		}
		fmt.Fprintf(r.log, "memory %s: %v under load\n", l.name, r.plan.saturate)
		if err := r.saturate(ctx, l); ctx.Err() != nil {
			return context.Cause(ctx)
		} else if err != nil {
			r.failed("memory "+l.name, err)
			continue
		}
		r.resident(l, "rss_after")
		asleep = append(asleep, resting{l, time.Now().Add(r.plan.rest)})
	}
	for _, s := range asleep {
		fmt.Fprintf(r.log, "memory %s: idle until %s\n", s.l.name, s.until.Format(time.TimeOnly))
		select {
		case <-time.After(time.Until(s.until)):
			r.resident(s.l, "rss_rest")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// saturate loads a lane and notes the most memory that a daemon of it had meanwhile.
func (r *run) saturate(ctx context.Context, l *lane) error {
	ctx, cancel := context.WithTimeout(ctx, r.plan.saturate+r.plan.warm+afterglow)
	defer cancel()
	const streams = 4
	load, err := r.startTCP(ctx, l, l.a, l.b, streams, r.plan.saturate)
	if err != nil {
		return err
	}
	most := 0.0
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			most = max(most, mostResident(l))
		case <-load.receiver.proc.Done():
			running = false
		case <-ctx.Done():
			running = false
		}
	}
	if _, err := load.end(ctx); err != nil {
		return err
	}
	r.table.add(l.name, "rss_load", reading{Round: 1, Value: most})
	return nil
}

// resident notes the memory of a lane's daemons now.
func (r *run) resident(l *lane, metric string) {
	if mb := mostResident(l); mb > 0 {
		r.table.add(l.name, metric, reading{Round: 1, Value: mb})
	}
}

// mostResident is the memory of the larger of a lane's daemons; 0 when both are gone.
func mostResident(l *lane) (most float64) {
	for _, pid := range l.pids() {
		if mb, err := residentMB(pid); err == nil {
			most = max(most, mb)
		}
	}
	return most
}

// newReport describes the machine.
func newReport(absent []string) *report {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // empty where /proc is not there, and then nothing works
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	return &report{
		Started: time.Now().Round(time.Second), Absent: absent,
		Machine: thisMachine(strings.TrimSpace(string(kernel)), string(cpuinfo)),
	}
}
