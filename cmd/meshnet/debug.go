package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet/internal/meshsim"
)

func (a *app) debugCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "debug",
		Short:   "Look into how meshnet works",
		Example: `  meshnet debug sim --nodes 50`,
		Args:    exactly(0),
	}
	cmd.AddCommand(a.debugSimCommand())
	return cmd
}

// maxSimulated is how many nodes a simulation may have: what each knows of the others is in memory.
const maxSimulated = 3000

func (a *app) debugSimCommand() *cobra.Command {
	var nodes int
	var seed uint64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run a network of many nodes in virtual time",
		Long: `Runs the control side of a whole network in this process, in virtual time and without sockets: a cold start, a
node that says something new, idle hours, and a restart of all at once. It prints how long each took, in virtual time,
what it cost a node in bytes on the wire with all overhead, and the memory of a node. Nothing of this machine's own
network is touched. 100 nodes take seconds, 1000 take minutes.`,
		Example: `  meshnet debug sim
  meshnet debug sim --nodes 1000 --seed 7 --json`,
		Args: exactly(0),
		RunE: a.does(func(cmd *cobra.Command, _ []string) error {
			if nodes < 2 || nodes > maxSimulated {
				return usagef("--nodes %d is not between 2 and %d", nodes, maxSimulated)
			}
			if !cmd.Flags().Changed("seed") {
				seed = rand.Uint64N(1 << 32)
			}
			ctx, stop := a.interruptible()
			defer stop()
			fmt.Fprintf(a.stderr, "%d nodes, seed %d\n", nodes, seed)
			r, err := meshsim.Run(ctx, nodes, seed, func(s string) { fmt.Fprintln(a.stderr, s) })
			if err != nil {
				return failed("simulate", err)
			}
			if asJSON {
				return a.document(simulated(r))
			}
			a.showSimulation(r)
			return nil
		}),
	}
	cmd.Flags().IntVarP(&nodes, "nodes", "n", 100, "how `many` nodes, 2 to 3000")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "`number` that the network, delays and choices come from; default a random one")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// simulation is a report as JSON.
type simulation struct {
	Nodes         int     `json:"nodes"`
	Seed          uint64  `json:"seed"`
	ColdStartMs   int64   `json:"cold_start_ms"`
	ColdBytes     int64   `json:"cold_start_bytes"`
	Sessions      float64 `json:"sessions"`
	SessionsMost  int     `json:"sessions_most"`
	NewCardMs     int64   `json:"new_card_ms"`
	IdleBytes     int64   `json:"idle_bytes_per_second"`
	QuietBytes    int64   `json:"quiet_bytes_per_second"`
	RestartMs     int64   `json:"restart_ms"`
	RestartPeak   int     `json:"restart_peak_bytes"`
	MemoryPerNode uint64  `json:"memory_per_node"`
	TookMs        int64   `json:"took_ms"`
}

func simulated(r *meshsim.Report) simulation {
	return simulation{
		Nodes: r.Nodes, Seed: r.Seed, ColdStartMs: r.ColdStart.Milliseconds(), ColdBytes: int64(r.ColdBytes),
		Sessions: r.Sessions, SessionsMost: r.SessionsMost, NewCardMs: r.NewCard.Milliseconds(),
		IdleBytes: int64(r.Idle), QuietBytes: int64(r.Quiet), RestartMs: r.RestartAll.Milliseconds(),
		RestartPeak: r.RestartPeak, MemoryPerNode: r.MemoryPerNode, TookMs: r.Took.Milliseconds(),
	}
}

func (a *app) showSimulation(r *meshsim.Report) {
	var t table
	fact := func(name, format string, args ...any) {
		t.row(name, fmt.Sprintf(format, args...))
		t.style(0, grey)
	}
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
	fact("nodes", "%d, seed %d", r.Nodes, r.Seed)
	fact("cold start", "everybody knows all after %v, %.0f KB per node", round(r.ColdStart), r.ColdBytes/1000)
	fact("sessions", "%.1f of a node, %d at most", r.Sessions, r.SessionsMost)
	fact("new card", "known to all after %v", round(r.NewCard))
	fact("idle", "%.0f bytes a second of a node, %.0f after ten quiet minutes", r.Idle, r.Quiet)
	fact("all restarted", "everybody knows all after %v, at most %.0f KB of a node in a second", round(r.RestartAll), float64(r.RestartPeak)/1000)
	fact("memory", "%.0f KB per node", float64(r.MemoryPerNode)/1000)
	fact("took", "%v", r.Took.Round(time.Millisecond))
	t.write(a.stdout, a.colours(a.stdout))
}
