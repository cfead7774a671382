package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

func (a *app) ipCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ip [PEER]",
		Short: "Print the addresses of a node, by default of this one",
		Example: `  meshnet ip
  ssh "$(meshnet ip alice | head -1)"`,
		Args:              atMost(1),
		ValidArgsFunction: a.completes(),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, args []string) error {
			peer := ""
			if len(args) == 1 {
				peer = args[0]
			}
			who, err := c.Lookup(ctx, peer)
			if err != nil {
				return err
			}
			if asJSON {
				return a.document(localapi.Document(who))
			}
			for _, ip := range who.IPs {
				fmt.Fprintln(a.stdout, ip)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) whoIsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "whois ADDR",
		Short:   "Tell who owns an address",
		Example: "  meshnet whois 100.88.3.4",
		Args:    exactly(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = a.does(func(cmd *cobra.Command, args []string) error {
		addr, err := netip.ParseAddr(args[0])
		if err != nil {
			return usagef("%q is not an IP address", args[0])
		}
		return a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
			who, err := c.WhoIs(ctx, addr.Unmap())
			if err != nil {
				return err
			}
			if asJSON {
				return a.document(localapi.Document(who))
			}
			a.showWho(who)
			return nil
		})(cmd, args)
	})
	return cmd
}

func (a *app) showWho(who meshnet.WhoIs) {
	var t table
	for _, fact := range [][2]string{
		{"name", text(who.Name)},
		{"fqdn", text(who.FQDN)},
		{"id", who.ID},
		{"addresses", list(who.IPs)},
		{"roles", list(who.Roles)},
		{"tags", list(who.Tags)},
	} {
		t.row(fact[0], fact[1])
		t.style(0, grey)
	}
	t.write(a.stdout, a.colours(a.stdout))
}
