package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

func (a *app) netcheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "netcheck",
		Short: "Tell what the networks around this node let through",
		Long: `Has the running node ask STUN servers, relay servers and the router, and tells what they say: whether UDP
passes, the addresses others see, how the NAT maps and filters (RFC 5780), port mappings and relays.
Takes a few seconds.`,
		Example: `  meshnet netcheck
  meshnet netcheck --json | jq .nat`,
		Args: exactly(0),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
			n, err := c.Netcheck(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.document(localapi.Document(n))
			}
			a.showNetcheck(n)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) showNetcheck(n *meshnet.Netcheck) {
	var t table
	fact := func(name, value string) {
		t.row(name, value)
		t.style(0, grey)
	}
	udp := "blocked: packets go through relay servers, over TCP"
	if n.UDP {
		udp = "works"
	}
	fact("UDP", udp)
	fact("IPv4", seenAs(n.IPv4))
	fact("IPv6", seenAs(n.IPv6))
	fact("NAT", meaning(n.NAT, natMeanings))
	fact("mapping", meaning(n.Mapping, mappingMeanings))
	fact("filtering", meaning(n.Filtering, filteringMeanings))
	fact("hairpin", hairpinText(n.Hairpin))
	fact("port mapping", portMapText(n.PortMap))
	fact("took", time.Duration(n.Took*float64(time.Millisecond)).Round(time.Millisecond).String())
	t.write(a.stdout, a.colours(a.stdout))
	a.showServers(n.STUN)
	a.showRelays(n.Relays)
}

func (a *app) showServers(servers []meshnet.NetcheckServer) {
	fmt.Fprintln(a.stdout)
	if len(servers) == 0 {
		fmt.Fprintln(a.stdout, "no STUN server to ask; name one with: meshnet up --stun HOST:PORT")
		return
	}
	var t table
	t.header("STUN SERVER", "SEES", "LATENCY")
	for _, s := range servers {
		seen := "no answer"
		switch {
		case s.Mapped != nil:
			seen = s.Mapped.String()
		case s.Error != nil:
			seen = text(s.Error)
		}
		t.row(printable(s.Server), seen, milliseconds(s.LatencyMs))
		if s.Mapped == nil {
			t.style(1, red)
		}
	}
	t.write(a.stdout, a.colours(a.stdout))
}

func (a *app) showRelays(relays []meshnet.NetcheckRelay) {
	fmt.Fprintln(a.stdout)
	if len(relays) == 0 {
		fmt.Fprintln(a.stdout, "no relay server; start one with: meshnet relay, and name it with: meshnet up --relay-server URL")
		return
	}
	var t table
	t.header("RELAY", "STATE", "LATENCY")
	for _, r := range relays {
		state := "not connected"
		switch {
		case r.Connected && r.Home:
			state = "home"
		case r.Connected:
			state = "connected"
		case r.Error != nil:
			state = text(r.Error)
		}
		t.row(short(printable(r.URL)), state, milliseconds(r.LatencyMs))
		switch {
		case r.Connected:
			t.style(1, green)
		case r.Error != nil:
			t.style(1, red)
		}
	}
	t.write(a.stdout, a.colours(a.stdout))
}

// The words of meshnet.Netcheck, and what they mean for people.
var (
	natMeanings = map[string]string{
		"none":    "others reach this node at its own address",
		"easy":    "one port for all destinations; direct paths to all but some hard NATs",
		"hard":    "a port per destination; direct paths need an easy NAT on the other side",
		"blocked": "no UDP passes; packets go through relay servers",
	}
	mappingMeanings = map[string]string{
		"none":                       "no translation",
		"endpoint-independent":       "the same port for all destinations",
		"address-dependent":          "another port for each address",
		"address-and-port-dependent": "another port for each address and port",
		"varying":                    "several NATs, or one that changes its mind",
	}
	filteringMeanings = map[string]string{
		"endpoint-independent":       "once open, everybody gets in",
		"address-dependent":          "only from addresses that were written to",
		"address-and-port-dependent": "only from addresses and ports that were written to",
	}
)

// meaning is a word with what it means.
func meaning(word *string, meanings map[string]string) string {
	if word == nil {
		return "unknown"
	}
	if m := meanings[*word]; m != "" {
		return *word + ": " + m
	}
	return text(word)
}

func seenAs(addr *netip.AddrPort) string {
	if addr == nil {
		return "not seen by anybody"
	}
	return "seen as " + addr.String()
}

func hairpinText(works *bool) string {
	switch {
	case works == nil:
		return "unknown"
	case *works:
		return "yes: nodes behind this NAT reach each other by its outside addresses"
	}
	return "no: nodes behind this NAT reach each other by inside addresses only"
}

// portMapText says what the router offers and what is in use.
func portMapText(p meshnet.NetcheckPortMap) string {
	var offers, unknown []string
	for _, o := range []struct {
		name string
		has  *bool
	}{{"PCP", p.PCP}, {"NAT-PMP", p.NATPMP}, {"UPnP", p.UPnP}} {
		switch {
		case o.has == nil:
			unknown = append(unknown, o.name)
		case *o.has:
			offers = append(offers, o.name)
		}
	}
	var parts []string
	if p.External != nil {
		parts = append(parts, fmt.Sprintf("%s is ours by %s", p.External, text(p.Protocol)))
	}
	switch {
	case len(offers) > 0:
		parts = append(parts, "the router speaks "+strings.Join(offers, ", "))
	case len(unknown) == 0:
		parts = append(parts, "the router offers none")
	case p.External == nil:
		parts = append(parts, "unknown")
	}
	return strings.Join(parts, "; ")
}
