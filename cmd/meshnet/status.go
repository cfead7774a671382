package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

const (
	watchEvery = time.Second
	clear      = "\x1b[H\x1b[2J" // cursor home, erase the screen
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON, watch, peers bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node and every peer",
		Example: `  meshnet status
  meshnet status --watch --peers
  meshnet status --json | jq '.peers[] | select(.state == "connected") | .name'`,
		Args: exactly(0),
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON, always the whole document; with --watch one per line")
	f.BoolVar(&watch, "watch", false, "repeat every second")
	f.BoolVar(&peers, "peers", false, "only the peers")
	show := func(s *meshnet.Status) error {
		switch {
		case asJSON && watch:
			return a.line(s)
		case asJSON:
			return a.document(localapi.Document(s))
		}
		if watch && isTerminal(a.stdout) {
			io.WriteString(a.stdout, clear)
		}
		if !peers {
			a.showSelf(s)
		}
		a.showPeers(s, time.Now())
		if !peers {
			a.showHealth(s.Health)
		}
		return nil
	}
	cmd.RunE = a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			s, err := c.Status(ctx)
			if interrupted(ctx, err) {
				return nil
			}
			if err == nil {
				err = show(s)
			}
			if err != nil || !watch {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	return cmd
}

func (a *app) showSelf(s *meshnet.Status) {
	var t table
	fact := func(name, value string) {
		t.row(name, value)
		t.style(0, grey)
	}
	fact("node", text(s.Self.Name)+" ("+s.Self.ID+")")
	fact("state", s.State)
	fact("network", fmt.Sprintf("%s, members: %d", text(s.Network.Name), s.Network.Members))
	fact("addresses", list(s.Self.IPs))
	fact("mode", mode(s.Self))
	fact("port", "udp "+strconv.Itoa(int(s.Self.Port)))
	if len(s.Self.Homes) > 0 {
		fact("homes", places(s.Self.Homes))
	}
	if s.Self.Listen.Relay != nil {
		fact("relay", text(s.Self.Listen.Relay))
	}
	if s.Self.Listen.Metrics != nil {
		fact("metrics", text(s.Self.Listen.Metrics))
	}
	if len(s.Self.Roles) > 0 {
		fact("roles", list(s.Self.Roles))
	}
	fact("up since", moment(&s.Self.Started))
	fact("version", s.Version)
	t.write(a.stdout, a.colours(a.stdout))
	fmt.Fprintln(a.stdout)
}

func (a *app) showPeers(s *meshnet.Status, now time.Time) {
	if len(s.Peers) == 0 {
		fmt.Fprintln(a.stdout, "no peers yet; invite some with: meshnet invite")
		return
	}
	var t table
	header := []string{"PEER", "ADDRESSES", "STATE", "PATH", "RTT", "LOSS", "RECEIVED", "SENT", "HANDSHAKE"}
	reasons := slices.ContainsFunc(s.Peers, func(p meshnet.PeerStatus) bool { return notDirect(p.Path) != "" })
	if reasons {
		header = append(header, "WHY NOT DIRECT")
	}
	t.header(header...)
	for _, p := range s.Peers {
		name := p.ID
		if p.Name != nil {
			name = text(p.Name)
		}
		row := []string{
			name, list(p.IPs), string(p.State), path(p.Path), rttText(p.RTT), lossText(p.RTT.Loss), size(p.RxBytes), size(p.TxBytes),
			ago(now, p.LastHandshake),
		}
		if reasons {
			row = append(row, notDirect(p.Path))
		}
		t.row(row...)
		t.style(2, peerStyle(p.State))
	}
	t.write(a.stdout, a.colours(a.stdout))
}

// notDirect is why a path is no better; nothing for a direct one.
func notDirect(p meshnet.PathStatus) string {
	if p.Kind == "direct" || p.Reason == nil {
		return ""
	}
	return text(p.Reason)
}

// rttText is the last round trip time, and how far the last ones lay apart.
func rttText(r meshnet.RTTStatus) string {
	out := milliseconds(r.LastMs)
	if r.LastMs != nil && r.StddevMs != nil {
		out += fmt.Sprintf(" ±%.1f", *r.StddevMs)
	}
	return out
}

func lossText(loss *float64) string {
	if loss == nil {
		return "-"
	}
	return strconv.FormatFloat(*loss*100, 'f', 0, 64) + "%"
}

func peerStyle(state meshnet.PeerState) string {
	switch state {
	case meshnet.PeerConnected:
		return green
	case meshnet.PeerConnecting:
		return yellow
	case meshnet.PeerUnreachable:
		return red
	}
	return grey
}

// path is a path for people: its kind, then who or what it leads over.
func path(p meshnet.PathStatus) string {
	out := p.Kind
	if out == "" || out == "none" {
		return "-"
	}
	if p.Via != nil {
		out += " " + short(text(p.Via))
	}
	if p.Addr != nil {
		out += " " + text(p.Addr)
	}
	return out
}

// noRendezvous is the code of a node that nobody from outside can find.
const noRendezvous = "no_rendezvous"

// warnUnmeetable says so to who is about to have others join.
func (a *app) warnUnmeetable(health []meshnet.Health) {
	for _, h := range health {
		if h.Code != noRendezvous {
			continue
		}
		a.note("%s", oneLine(h.Text))
		if h.Hint != "" {
			a.note("hint: %s", oneLine(h.Hint))
		}
	}
}

func (a *app) showHealth(health []meshnet.Health) {
	if len(health) > 0 {
		fmt.Fprintln(a.stdout)
	}
	for _, h := range health {
		style := yellow
		switch h.Severity {
		case "error":
			style = red
		case "info":
			style = grey
		}
		fmt.Fprintf(a.stdout, "%s %s\n", paint(h.Severity+":", style, a.colours(a.stdout)), oneLine(h.Text))
		if h.Hint != "" {
			fmt.Fprintf(a.stdout, "  hint: %s\n", oneLine(h.Hint))
		}
	}
}
