package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	if code, ok := runWorker(os.Args[1:]); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the command line.
type options struct {
	settings
	plan    plan
	svg     string
	save    string
	compare string
}

// command is the program: it parses, measures and prints, and returns the exit code.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == scaleName {
		return scaleCommand(ctx, args[1:], stdout, stderr)
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return refuse(err, stderr)
	}
	ok, err := o.execute(ctx, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	if !ok {
		return exitFailed
	}
	return exitOK
}

// parseOptions reads the command line.
func parseOptions(args []string, stderr io.Writer) (*options, error) {
	var o options
	f := o.flagSet("bench", stderr)
	quick := f.Bool("quick", false, "two short rounds of tcp1, udp200 and ping, for development")
	rounds := f.Int("rounds", 0, "`rounds` of all tests (default 5, with -quick 2)")
	only := f.String("only", "", "`tests` to run, of "+strings.Join(tests(), ","))
	which := f.String("carriers", "", "`carriers` to measure, of "+strings.Join(carrierNames(), ",")+" (default: all that are there)")
	mtus := f.String("mtu", "", "inner `MTU`s, a table each: a number, or "+mtuDefault+" for every carrier's own (default 1280)")
	long := f.Bool("memory", false, "memory: a minute under load and a minute idle, not 20 s and 30 s")
	overload := f.Int("overload", 0, "`datagrams` of 200 B a second that are offered in the overload tests; half of it of 1200 B (default 600000)")
	f.StringVar(&o.svg, "svg", "", "write charts into this `folder`")
	flame := f.String("flame", "", "write a flame graph of the meshnet carrier under one TCP stream to this `file`; needs perf")
	f.StringVar(&o.save, "save", "", "write a baseline to this `file`")
	f.StringVar(&o.compare, "compare", "", "compare with the baseline in this `file`; exit 1 when something is worse")
	if err := o.parse(f, args); err != nil {
		return nil, err
	}
	o.plan = fullPlan()
	if *quick {
		o.plan = quickPlan()
	}
	if *rounds < 0 || *rounds > 100 {
		return nil, fmt.Errorf("-rounds %d: want 1 to 100", *rounds)
	} else if *rounds > 0 {
		o.plan.rounds = *rounds
	}
	if *overload < 0 {
		return nil, fmt.Errorf("-overload %d is negative", *overload)
	} else if *overload > 0 {
		o.plan.overload = *overload
	}
	if *long {
		o.plan.saturate, o.plan.rest = time.Minute, time.Minute
	}
	o.plan.flame = *flame
	return &o, o.choose(*only, *which, *mtus)
}

// choose fills in the lists.
func (o *options) choose(only, which, mtus string) (err error) {
	if only != "" {
		if o.plan.tests, err = choose(only, tests()); err != nil {
			return fmt.Errorf("-only: %w", err)
		}
	}
	if which != "" {
		if o.plan.carriers, err = choose(which, carrierNames()); err != nil {
			return fmt.Errorf("-carriers: %w", err)
		}
	}
	if o.plan.flame != "" && which != "" && !slices.Contains(o.plan.carriers, nameMeshnet) {
		return fmt.Errorf("-flame is about %s, which -carriers leaves out", nameMeshnet)
	}
	if mtus != "" {
		o.plan.mtus = strings.Split(mtus, ",")
	}
	for _, m := range o.plan.mtus {
		if _, err := parseMTU(m); err != nil {
			return fmt.Errorf("-mtu: %w", err)
		}
	}
	return nil
}

func carrierNames() (names []string) {
	for _, c := range carriers() {
		names = append(names, c.name)
	}
	return names
}

// findCarriers leaves in the plan what is on this machine and returns what is not. A carrier that was asked for by
// name has to be there.
func (o *options) findCarriers() (absent []string, err error) {
	var there []string
	for _, c := range carriers() {
		asked := strings.Contains(","+strings.Join(o.plan.carriers, ",")+",", ","+c.name+",")
		if len(o.plan.carriers) > 0 && !asked {
			continue
		}
		switch why := c.absent(); {
		case why == "":
			there = append(there, c.name)
		case asked:
			return nil, errors.New(why)
		default:
			absent = append(absent, why)
		}
	}
	o.plan.carriers = there
	return absent, nil
}

// execute measures and writes what was asked for. It reports whether everything was measured and nothing is worse
// than the baseline.
func (o *options) execute(ctx context.Context, stdout, stderr io.Writer) (ok bool, err error) {
	var base *baseline
	if o.compare != "" {
		if base, err = readBaseline(o.compare); err != nil {
			return false, err
		}
	}
	absent, err := o.findCarriers()
	if err != nil {
		return false, err
	}
	if o.plan.flame != "" {
		if why := absentPerf(); why != "" {
			absent = append(absent, why)
			o.plan.flame = ""
		}
	}
	for _, why := range absent {
		fmt.Fprintf(stderr, "not here: %s\n", why)
	}
	r, err := o.measure(ctx, newReport(absent), stderr)
	if err != nil {
		return false, err
	}
	r.print(stdout)
	if err := o.write(r); err != nil {
		return false, err
	}
	ok = r.complete()
	if base != nil {
		all, missing := compare(base.Verdicts, r.tableFor(base.MTU).Verdicts)
		ok = printComparison(stdout, base, all, missing) && ok
	}
	return ok, nil
}

// measure measures one table for each MTU, within the time limit.
func (o *options) measure(ctx context.Context, r *report, stderr io.Writer) (*report, error) {
	estimate := o.plan.estimate(len(o.plan.carriers), o.count(nameUserspace), o.count(nameVeth))
	ctx, cancel := o.limit(ctx, strings.Join(o.plan.carriers, ", "), estimate, stderr)
	defer cancel()
	dir, err := os.MkdirTemp("", "meshnet-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bins := &site{dir: dir, meshnet: o.meshnet}
	if bins.self, err = os.Executable(); err != nil {
		return nil, err
	}
	for i, mtu := range o.plan.mtus {
		p := o.plan
		if i > 0 {
			p.flame = "" // one is enough
		}
		t, err := measureTable(ctx, p, mtu, bins, stderr)
		if err != nil {
			return nil, err
		}
		r.Tables = append(r.Tables, t)
	}
	r.Took = time.Since(r.Started).Seconds()
	return r, nil
}

// count is 1 when the carrier is measured.
func (o *options) count(name string) (n int) {
	for _, c := range o.plan.carriers {
		if c == name {
			n++
		}
	}
	return n
}

// write writes the files.
func (o *options) write(r *report) error {
	if o.json != "" {
		if err := writeJSON(o.json, r); err != nil {
			return err
		}
	}
	if o.save != "" {
		if err := writeJSON(o.save, r.baseline()); err != nil {
			return err
		}
	}
	if o.svg != "" {
		return writeCharts(o.svg, r)
	}
	return nil
}
