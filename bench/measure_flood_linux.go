package main

import (
	"context"
	"net/netip"
	"strconv"
	"time"
)

// startFlood begins to send foreign packets from a's host to an address of b's.
func (g *gauge) startFlood(ctx context.Context, l *lane, to netip.AddrPort, warm, length time.Duration, flags ...string) (*job, error) {
	j, err := g.launch(l.a, append([]string{
		"flood", "-to", to.String(), "-rate", strconv.Itoa(steadyRate), "-warm", warm.String(), "-for", length.String(),
		"-pids", strconv.Itoa(l.b.daemon.Pid()),
	}, flags...)...)
	if err != nil {
		return nil, err
	}
	if _, err := j.port(ctx); err != nil {
		j.proc.Kill()
		return nil, err
	}
	return j, nil
}

// beside measures TCP beside a flood of all kinds at an address.
func (g *gauge) beside(ctx context.Context, l *lane, to netip.AddrPort) (outcome, error) {
	j, err := g.startFlood(ctx, l, to, 0, g.plan.tcp+g.plan.warm+afterglow)
	if err != nil {
		return outcome{}, err
	}
	defer j.proc.Kill()
	return g.tcp(ctx, l, 1, false)
}

// sunk measures TCP beside a flood that a socket on b's host discards: one that is full and that nobody reads.
func (g *gauge) sunk(ctx context.Context, l *lane) (outcome, error) {
	sink, err := l.b.host.ListenPacket("udp4", netip.AddrPortFrom(l.b.outer, 0).String())
	if err != nil {
		return outcome{}, err
	}
	defer sink.Close()
	to, err := netip.ParseAddrPort(sink.LocalAddr().String())
	if err != nil {
		return outcome{}, err
	}
	return g.beside(ctx, l, to)
}

// drowned measures the CPU that b's daemon spends on a flood of one kind, while nothing else is sent.
func (g *gauge) drowned(ctx context.Context, l *lane, to netip.AddrPort, kind string) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, g.plan.warm+g.plan.udp+afterglow)
	defer cancel()
	j, err := g.startFlood(ctx, l, to, g.plan.warm, g.plan.udp, "-kinds", kind)
	if err != nil {
		return outcome{}, err
	}
	return j.outcome(ctx)
}

// floods measures all that is about floods. load runs a measurement, unless one before it failed.
func (g *gauge) floods(ctx context.Context, l *lane, load func(func() (outcome, error)) outcome) map[string]float64 {
	node := netip.AddrPortFrom(l.b.outer, l.port)
	sunk := load(func() (outcome, error) { return g.sunk(ctx, l) })
	beside := load(func() (outcome, error) { return g.beside(ctx, l, node) })
	alone := make(map[string]outcome)
	for _, kind := range floodKinds() {
		alone[kind] = load(func() (outcome, error) { return g.drowned(ctx, l, node, kind) })
	}
	return floodFigures(sunk, beside, alone)
}
