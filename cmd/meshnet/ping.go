package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

const (
	pingCount       = 4
	pingCountDirect = 30
	maxPingSize     = 65507
	maxPingTimeout  = time.Minute
)

// pingFlags are the flags of `ping`, as they were given.
type pingFlags struct {
	count       int
	untilDirect bool
	size        int
	timeout     time.Duration
	interval    time.Duration
	json        bool
}

func (a *app) pingCommand() *cobra.Command {
	var p pingFlags
	cmd := &cobra.Command{
		Use:   "ping PEER",
		Short: "Send echoes to a peer, through the tunnel",
		Long: `Sends sealed echoes inside the tunnel, so an answer proves that data passes, and tells the path and the
round trip time of each. The peer is named by name, address or id. Fails when nothing answered.`,
		Example: `  meshnet ping alice
  meshnet ping alice --until-direct
  meshnet ping 100.88.3.4 -c 0 --interval 200ms --json`,
		Args:              exactly(1),
		ValidArgsFunction: a.completes(),
	}
	f := cmd.Flags()
	f.IntVarP(&p.count, "count", "c", pingCount, fmt.Sprintf("how many; 0: until interrupted (with --until-direct %d)", pingCountDirect))
	f.BoolVar(&p.untilDirect, "until-direct", false, "stop at the first pong that came directly; fail if none did")
	f.IntVar(&p.size, "size", 56, "payload in `bytes`")
	f.DurationVar(&p.timeout, "timeout", 5*time.Second, "wait so long for each pong")
	f.DurationVar(&p.interval, "interval", time.Second, "from one ping to the next")
	f.BoolVar(&p.json, "json", false, "print one JSON document per pong")
	cmd.RunE = a.does(func(cmd *cobra.Command, args []string) error {
		if err := a.checkPing(p); err != nil {
			return err
		}
		if p.untilDirect && !cmd.Flags().Changed("count") {
			p.count = pingCountDirect
		}
		return a.asks(func(ctx context.Context, c *localapi.Client, args []string) error {
			return a.ping(ctx, c, args[0], p)
		})(cmd, args)
	})
	return cmd
}

func (a *app) checkPing(p pingFlags) error {
	switch {
	case p.count < 0:
		return a.bad("count", errors.New("less than nothing"))
	case p.size < 0 || p.size > maxPingSize:
		return a.bad("size", fmt.Errorf("%d is not within 0 to %d", p.size, maxPingSize))
	case p.timeout <= 0 || p.timeout > maxPingTimeout:
		return a.bad("timeout", fmt.Errorf("%s is not within 0s to %s", p.timeout, maxPingTimeout))
	case p.interval <= 0:
		return a.bad("interval", fmt.Errorf("%s is not more than nothing", p.interval))
	}
	return nil
}

func (a *app) ping(ctx context.Context, c *localapi.Client, peer string, p pingFlags) error {
	who, err := c.Lookup(ctx, peer) // tells an unknown peer from a silent one
	if err != nil {
		return err
	}
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	answered, direct, reason := 0, false, ""
	for seq := 1; p.count == 0 || seq <= p.count; seq++ {
		if seq > 1 {
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
		pong, err := c.Ping(ctx, who.ID, seq, p.size, p.timeout)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		if pong.OK {
			answered++
			direct = direct || pong.Path.Kind == "direct"
			reason = notDirect(pong.Path)
		}
		if err := a.showPong(who, pong, p.json); err != nil {
			return err
		}
		if p.untilDirect && direct {
			return nil
		}
	}
	explain := "what is in the way: meshnet why " + peer
	switch {
	case answered == 0:
		return fmt.Errorf("%s did not answer", whoText(who))
	case p.untilDirect && reason != "":
		return hinted(fmt.Errorf("no direct path to %s: %s", whoText(who), reason), explain)
	case p.untilDirect:
		return hinted(fmt.Errorf("no direct path to %s", whoText(who)), explain)
	}
	return nil
}

func (a *app) showPong(who meshnet.WhoIs, pong meshnet.PingResult, asJSON bool) error {
	if asJSON {
		return a.line(pong)
	}
	var err error
	if pong.OK {
		via := ""
		if p := path(pong.Path); p != "-" { // there is none to oneself
			via = " via " + p
		}
		_, err = fmt.Fprintf(a.stdout, "pong from %s%s in %s\n", whoText(who), via, milliseconds(pong.RTTMs))
	} else {
		_, err = fmt.Fprintf(a.stdout, "no answer from %s: %s\n", whoText(who), text(pong.Error))
	}
	return failed("write", err)
}

// whoText is a node for people: NAME (IP).
func whoText(who meshnet.WhoIs) string {
	name := who.ID
	if who.Name != nil {
		name = text(who.Name)
	}
	if len(who.IPs) == 0 {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, who.IPs[0])
}
