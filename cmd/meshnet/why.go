package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

func (a *app) whyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why PEER",
		Short: "Explain the path to a peer",
		Long: `Tells by which path packets to a peer go and the rule that decided it: every address where each end may be
found, and what became of each path that was tried. The peer is named by name, address or id.`,
		Example: `  meshnet why alice
  meshnet why alice --json | jq '.probes[] | {addr: .path.addr, verdict}'`,
		Args:              exactly(1),
		ValidArgsFunction: a.completes(),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, args []string) error {
			w, err := c.Why(ctx, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return a.document(localapi.Document(w))
			}
			a.showWhy(w, time.Now())
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) showWhy(w *meshnet.Why, now time.Time) {
	var t table
	fact := func(name, value string) {
		t.row(name, value)
		t.style(0, grey)
	}
	name := "this peer"
	if w.Peer.Name != nil {
		name = text(w.Peer.Name)
	}
	fact("peer", whoText(w.Peer))
	fact("path", whyPath(w.Path, now))
	fact("because", printable(w.Rule))
	fact("our NAT", meaning(w.Ours.NAT, natMeanings))
	fact("their NAT", meaning(w.Theirs.NAT, natMeanings))
	fact("our homes", places(w.Ours.Homes))
	fact("their homes", places(w.Theirs.Homes))
	t.write(a.stdout, a.colours(a.stdout))
	fmt.Fprintln(a.stdout)
	a.showCandidates("this node", name, w)
	fmt.Fprintln(a.stdout)
	a.showProbes(w.Probes, now)
}

// whyPath is the path with what is known of it.
func whyPath(p meshnet.PathStatus, now time.Time) string {
	out := path(p)
	if out == "-" {
		out = "none"
	}
	if p.RTTMs != nil {
		out += " in " + milliseconds(p.RTTMs)
	}
	if p.Since != nil {
		out += ", chosen " + ago(now, p.Since)
	}
	if p.Reason != nil {
		out += " (" + text(p.Reason) + ")"
	}
	return out
}

func (a *app) showCandidates(us, them string, w *meshnet.Why) {
	if len(w.Ours.Candidates)+len(w.Theirs.Candidates) == 0 {
		fmt.Fprintln(a.stdout, "no address of either side is known")
		return
	}
	var t table
	t.header("ADDRESS OF", "ADDRESS", "LEARNT FROM")
	for _, side := range []struct {
		who        string
		candidates []meshnet.EndpointStatus
	}{{us, w.Ours.Candidates}, {them, w.Theirs.Candidates}} {
		for _, c := range side.candidates {
			t.row(side.who, c.Addr.String(), printable(c.Source))
		}
	}
	t.write(a.stdout, a.colours(a.stdout))
}

func (a *app) showProbes(probes []meshnet.WhyProbe, now time.Time) {
	if len(probes) == 0 {
		fmt.Fprintln(a.stdout, "no path was tried yet; try one with: meshnet ping")
		return
	}
	var t table
	t.header("PATH", "PINGS", "PONGS", "LAST PONG", "RTT", "FITS", "RECEIVED", "SENT", "VERDICT")
	for _, p := range probes {
		fits := "-"
		if p.Size > 0 {
			fits = strconv.Itoa(p.Size)
		}
		t.row(path(p.Path), strconv.FormatUint(p.Pings, 10), strconv.FormatUint(p.Pongs, 10), ago(now, p.LastPong),
			milliseconds(p.Path.RTTMs), fits, size(p.RxBytes), size(p.TxBytes), printable(p.Verdict))
		if p.Verdict == "in use" {
			t.style(8, green)
		}
	}
	t.write(a.stdout, a.colours(a.stdout))
}
