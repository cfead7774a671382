package platform

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
)

// Polled is a System for userspace nodes, the same on darwin and windows: it looks, and makes no interface. Immutable.
type Polled struct {
	name string
	log  *slog.Logger
}

// NewPolled returns a system that calls itself name in errors. A nil logger discards.
func NewPolled(name string, log *slog.Logger) *Polled {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Polled{name: name, log: log}
}

// Apply fails with ErrNoTUN.
func (p *Polled) Apply(Desired) error {
	return fmt.Errorf("configure interface on %s: %w", p.name, ErrNoTUN)
}

// Clear has nothing to take back.
func (p *Polled) Clear() error { return nil }

// Snapshot tells links and addresses; of routes only those that the addresses imply.
func (p *Polled) Snapshot() (Host, error) { return Interfaces() }

// Watch calls changed when the network changed, seen at most PollInterval late, until ctx is done. It returns ctx's
// error.
func (p *Polled) Watch(ctx context.Context, changed func()) error {
	return Poll(ctx, p.log, func() string { return "" }, p.Snapshot, changed)
}

// Problems tells what overlaps the network.
func (p *Polled) Problems(d Desired, _ uint16) []Problem {
	host, err := p.Snapshot()
	if err != nil {
		return nil
	}
	return OverlapProblems(host, d)
}

// CleanLeftovers has nothing to clean: nothing is made here.
func (p *Polled) CleanLeftovers(string) error { return nil }

// OverlapProblems are the overlaps of the desired addresses and routes with the host's, each network once.
func OverlapProblems(host Host, d Desired) (problems []Problem) {
	seen := map[netip.Prefix]bool{}
	for _, p := range append(append([]netip.Prefix(nil), d.Routes...), d.Addrs...) {
		p = p.Masked()
		if seen[p] {
			continue
		}
		seen[p] = true
		if problem, ok := Overlaps(host, d.Interface, p); ok {
			problems = append(problems, problem)
		}
	}
	return problems
}
