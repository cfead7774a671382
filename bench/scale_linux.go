package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/netlab"
)

// scaleOptions are the command line of `bench scale`.
type scaleOptions struct {
	settings
	plan scalePlan
}

// scaleCommand measures a node in a large network and prints what it costs.
func scaleCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseScale(args, stderr)
	if err != nil {
		return refuse(err, stderr)
	}
	r, err := o.measure(ctx, stderr)
	if err == nil {
		r.print(stdout)
		if o.json != "" {
			err = writeJSON(o.json, r)
		}
		if failed := r.Figures["scale_failed"]; failed > 0 {
			err = errors.Join(err, fmt.Errorf("%.0f times a member had no handshake or no echo", failed))
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	return exitOK
}

func parseScale(args []string, stderr io.Writer) (*scaleOptions, error) {
	o := scaleOptions{plan: fullScale()}
	f := o.flagSet("bench "+scaleName, stderr)
	f.IntVar(&o.plan.members, "members", o.plan.members, "`members` of the network, the node under test included")
	f.IntVar(&o.plan.active, "active", o.plan.active, "`members` that make a handshake within a minute")
	long := f.Bool("long", false, "look at memory once more when all sessions are over, 4 minutes later")
	if err := o.parse(f, args); err != nil {
		return nil, err
	}
	if err := checkCrowd(o.plan.members, o.plan.active); err != nil {
		return nil, err
	}
	if *long {
		o.plan.later = scaleLater
	}
	return &o, nil
}

// measure makes the network up, measures, and removes everything.
func (o *scaleOptions) measure(ctx context.Context, log io.Writer) (*scaleReport, error) {
	what := fmt.Sprintf("%d members, %d active", o.plan.members, o.plan.active)
	ctx, cancel := o.limit(ctx, what, o.plan.estimate(), log)
	defer cancel()
	dir, err := os.MkdirTemp("", "meshnet-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	about := newReport(nil)
	r := &scale{
		plan: o.plan, log: log, calm: &calm{left: time.Minute},
		report: &scaleReport{
			Started: about.Started, Machine: about.Machine, Members: o.plan.members, Active: o.plan.active,
			Figures: make(map[string]float64),
		},
	}
	err = onStage(dir, log, func(lab *netlab.Lab) error {
		return r.run(ctx, &site{lab: lab, dir: dir, self: self, meshnet: o.meshnet})
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r.report.judge()
	r.report.Took = time.Since(about.Started).Seconds()
	return r.report, err
}

// scale measures one node in a large network. Owned by one goroutine.
type scale struct {
	plan   scalePlan
	log    io.Writer
	calm   *calm
	report *scaleReport

	crowd *crowd
	lane  *lane // a: the node, b: the swarm
	swarm *netlab.Process
	tell  *os.File // the swarm's standard input
}

func (s *scale) run(ctx context.Context, at *site) error {
	if err := at.buildMeshnet(ctx); err != nil {
		return err
	}
	if err := s.prepare(at); err != nil {
		return err
	}
	s.report.Noisy = s.calm.wait(ctx)
	for _, step := range []func(context.Context, *site) error{s.start, s.idle, s.visit, s.burst, s.later} {
		if err := step(ctx, at); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return errors.Join(err, s.lane.alive())
		}
	}
	return s.lookups()
}

// prepare makes the network up and gives the node its folder and its cable.
func (s *scale) prepare(at *site) (err error) {
	began := time.Now()
	if s.crowd, err = newCrowd(s.plan.members, s.plan.active, began); err != nil {
		return err
	}
	s.lane = at.lane("scale", 0)
	if err := s.crowd.write(s.lane.a.dir, began); err != nil {
		return err
	}
	if err := s.crowd.roster(netip.AddrPortFrom(s.lane.a.outer, crowdPort), s.plan.active).write(s.lane.b.dir); err != nil {
		return err
	}
	s.report.Made = time.Since(began).Seconds()
	s.note("made the network up in %.1f s", s.report.Made)
	s.lane.a.host.DefaultRoute(addrB)
	return s.lane.b.host.Do(func() error { return routeLocal(activeRoute) })
}

// routeLocal makes all addresses of a prefix the namespace's own.
func routeLocal(cidr string) error {
	dst, err := netlink.ParseIPNet(cidr)
	if err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL,
	})
}

// start starts the node and lets it settle.
func (s *scale) start(ctx context.Context, at *site) error {
	began := time.Now()
	if err := at.startNode(ctx, s.lane.a, []string{"--hostname", "node"}); err != nil {
		return err
	}
	s.set("scale_ready", time.Since(began).Seconds())
	used, err := usageNow(s.lane.pids())
	if err != nil {
		return err
	}
	s.set("scale_ready_cpu", used.Daemons.Seconds())
	return s.settle(ctx, "scale_rss_idle")
}

// idle counts the node's CPU while nothing happens.
func (s *scale) idle(ctx context.Context, _ *site) error {
	before, err := usageNow(s.lane.pids())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := wait(ctx, s.plan.idle); err != nil {
		return err
	}
	after, err := usageNow(s.lane.pids())
	s.set("scale_cpu_idle", after.since(before).Daemons.Seconds()*1e3/time.Since(began).Seconds())
	return err
}

// visit has the active members come, one after the other.
func (s *scale) visit(ctx context.Context, at *site) error {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	s.tell = ours
	s.swarm, err = s.lane.b.host.Start(netlab.Proc{Path: at.self, Stdin: theirs, Args: []string{
		"swarm", "-roster", s.lane.b.dir, "-within", s.plan.within.String(), "-pids", formatPIDs(s.lane.pids()),
	}})
	theirs.Close()
	if err != nil {
		ours.Close()
		return err
	}
	if err := s.pass(ctx, passSpread); err != nil {
		return err
	}
	return s.settle(ctx, "scale_rss_active")
}

// burst has them come all at once.
func (s *scale) burst(ctx context.Context, _ *site) error {
	if _, err := s.tell.WriteString("\n"); err != nil {
		return err
	}
	if err := s.pass(ctx, passBurst); err != nil {
		return err
	}
	return s.settle(ctx, "scale_rss_burst")
}

// later ends the swarm, and looks at memory when its sessions are over.
func (s *scale) later(ctx context.Context, _ *site) error {
	err := s.tell.Close()
	if err == nil {
		err = s.swarm.Wait()
	}
	if err != nil || s.plan.later == 0 {
		return err
	}
	s.note("waiting %v for the sessions' end", s.plan.later)
	if err := wait(ctx, s.plan.later); err != nil {
		return err
	}
	return s.resident("scale_rss_later")
}

func (s *scale) lookups() error {
	addrs := s.crowd.addresses()
	for metric, want := range map[string]func(netip.Addr) bool{"scale_route4": netip.Addr.Is4, "scale_route6": netip.Addr.Is6} {
		ns, err := routeLookup(addrs, want, s.plan.lookup)
		if err != nil {
			return err
		}
		s.set(metric, ns)
	}
	session, err := sessionLookup(lookupSessions, s.plan.lookup)
	s.set("scale_session", session)
	return err
}

// pass waits for what a pass came to.
func (s *scale) pass(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, s.plan.within+swarmPatient*time.Duration(2+s.plan.active/burstWidth))
	defer cancel()
	mark := fmt.Sprintf("{%q:%q", "pass", name)
	if err := s.swarm.WaitOutput(ctx, mark); err != nil {
		return fmt.Errorf("%w\n%s", err, s.swarm.Output())
	}
	for line := range strings.Lines(s.swarm.Output()) {
		if !strings.HasPrefix(line, mark) {
			continue
		}
		var o passOutcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			return err
		}
		passFigures(o, s.report.Figures)
		s.report.Passes = append(s.report.Passes, o)
		s.note("%s: %d of %d handshakes, %d echoes, in %.1f s", name, o.Shaken, o.Members, o.Echoed, o.Seconds)
	}
	return nil
}

// settle waits and then looks at the node's memory.
func (s *scale) settle(ctx context.Context, metric string) error {
	if err := wait(ctx, s.plan.settle); err != nil {
		return err
	}
	return s.resident(metric)
}

func (s *scale) resident(metric string) error {
	mb, err := residentMB(s.lane.a.daemon.Pid())
	s.set(metric, mb)
	return err
}

func (s *scale) set(metric string, value float64) {
	s.report.Figures[metric] = value
	s.note("%s %s", metric, short(value))
}

func (s *scale) note(format string, args ...any) { fmt.Fprintf(s.log, format+"\n", args...) }

// wait returns after a while, or when ctx ends, with its error.
func wait(ctx context.Context, length time.Duration) error {
	select {
	case <-time.After(length):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
