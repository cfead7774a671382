package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/meshnet/meshnet/internal/netlab"
)

const (
	steadyRate = 20_000           // datagrams a second that every carrier should bear
	afterglow  = 30 * time.Second // that a measurement may take beyond its own time
)

// gauge measures lanes. It keeps nothing between two measurements.
type gauge struct {
	self string
	plan plan
}

// job is a worker at work on a side.
type job struct{ proc *netlab.Process }

func (g *gauge) launch(x *side, args ...string) (*job, error) {
	proc, err := x.host.Start(netlab.Proc{Path: g.self, Args: args})
	if err != nil {
		return nil, err
	}
	return &job{proc}, nil
}

// port waits until the worker is ready and returns the port that it says.
func (j *job) port(ctx context.Context) (uint16, error) {
	if err := j.proc.WaitOutput(ctx, "\n"); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, j.proc.Output())
	}
	line, _, _ := strings.Cut(j.proc.Output(), "\n")
	number, ok := strings.CutPrefix(line, saysReady+" ")
	if !ok {
		return 0, fmt.Errorf("a worker began with %q", line)
	}
	port, err := strconv.ParseUint(number, 10, 16)
	return uint16(port), err
}

// outcome waits for the worker's end and returns what it printed last.
func (j *job) outcome(ctx context.Context) (o outcome, err error) {
	select {
	case <-j.proc.Done():
	case <-ctx.Done():
		j.proc.Kill()
		return o, ctx.Err()
	}
	if err := j.proc.Wait(); err != nil {
		return o, fmt.Errorf("%w\n%s", err, j.proc.Output())
	}
	return parseOutcome(j.proc.Output())
}

// parseOutcome reads the outcome among a worker's output.
func parseOutcome(output string) (o outcome, err error) {
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "{") {
			err := json.Unmarshal([]byte(line), &o)
			return o, err
		}
	}
	return o, fmt.Errorf("a worker ended without a result:\n%s", output)
}

// tcpLoad is a TCP load that runs.
type tcpLoad struct{ receiver, sender *job }

// startTCP begins to send over some streams from one side to the other.
func (g *gauge) startTCP(ctx context.Context, l *lane, from, to *side, streams int, length time.Duration) (*tcpLoad, error) {
	count := strconv.Itoa(streams)
	receiver, err := g.launch(to, "tcp-receive", "-listen", to.listen.String(), "-streams", count,
		"-warm", g.plan.warm.String(), "-for", length.String(), "-pids", formatPIDs(l.pids()))
	if err != nil {
		return nil, err
	}
	port, err := receiver.port(ctx)
	if err != nil {
		receiver.proc.Kill()
		return nil, err
	}
	sender, err := g.launch(from, "tcp-send", "-to", netip.AddrPortFrom(to.inner, port).String(),
		"-socks", from.socks, "-streams", count)
	if err != nil {
		receiver.proc.Kill()
		return nil, err
	}
	return &tcpLoad{receiver, sender}, nil
}

// end waits for the load's end.
func (t *tcpLoad) end(ctx context.Context) (outcome, error) {
	o, err := t.receiver.outcome(ctx)
	if err != nil {
		err = fmt.Errorf("%w\nsender: %s", err, t.sender.proc.Output())
	}
	t.sender.proc.Kill()
	return o, err
}

// tcp measures throughput; back is from b to a.
func (g *gauge) tcp(ctx context.Context, l *lane, streams int, back bool) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, g.plan.tcp+g.plan.warm+afterglow)
	defer cancel()
	from, to := l.a, l.b
	if back {
		from, to = to, from
	}
	load, err := g.startTCP(ctx, l, from, to, streams, g.plan.tcp)
	if err != nil {
		return outcome{}, err
	}
	return load.end(ctx)
}

// udp measures datagrams of a size at a rate, from a to b. Sent and Total are of the whole load.
func (g *gauge) udp(ctx context.Context, l *lane, size, rate int) (outcome, error) {
	length := g.plan.warm + g.plan.udp + udpTailTime
	ctx, cancel := context.WithTimeout(ctx, length+afterglow)
	defer cancel()
	receiver, err := g.launch(l.b, "udp-receive", "-listen", l.b.listen.String(),
		"-warm", g.plan.warm.String(), "-for", g.plan.udp.String(), "-lasts", length.String(), "-pids", formatPIDs(l.pids()))
	if err != nil {
		return outcome{}, err
	}
	port, err := receiver.port(ctx)
	if err != nil {
		receiver.proc.Kill()
		return outcome{}, err
	}
	sender, err := g.launch(l.a, "udp-send", "-to", netip.AddrPortFrom(l.b.inner, port).String(),
		"-size", strconv.Itoa(size), "-rate", strconv.Itoa(rate), "-for", length.String())
	if err != nil {
		receiver.proc.Kill()
		return outcome{}, err
	}
	sent, err := sender.outcome(ctx)
	if err != nil {
		receiver.proc.Kill()
		return outcome{}, err
	}
	o, err := receiver.outcome(ctx)
	o.Sent = sent.Sent
	return o, err
}

// ping measures round trips from a to b, with or without a TCP stream in the same direction.
func (g *gauge) ping(ctx context.Context, l *lane, loaded bool) (outcome, error) {
	length := time.Duration(g.plan.pings) * pingEvery
	ctx, cancel := context.WithTimeout(ctx, length+g.plan.warm+afterglow)
	defer cancel()
	if loaded {
		load, err := g.startTCP(ctx, l, l.a, l.b, 1, length+2*time.Second) // beyond the last reply
		if err != nil {
			return outcome{}, err
		}
		defer load.receiver.proc.Kill()
		defer load.sender.proc.Kill()
		if err := load.receiver.proc.WaitOutput(ctx, saysBegin); err != nil {
			return outcome{}, err
		}
	}
	j, err := g.launch(l.a, "ping", "-to", l.b.inner.String(), "-every", pingEvery.String(),
		"-count", strconv.Itoa(g.plan.pings))
	if err != nil {
		return outcome{}, err
	}
	o, err := j.outcome(ctx)
	if err == nil && o.RTT50 == 0 {
		err = fmt.Errorf("no reply to %d echoes", o.Sent)
	}
	return o, err
}
