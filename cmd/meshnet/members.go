package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

func (a *app) membersCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List who belongs to the network",
		Example: `  meshnet members
  meshnet members revoke alice
  meshnet members approve alice relay`,
		Args: exactly(0),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
			members, err := c.Members(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.document(localapi.Document(members))
			}
			a.showMembers(members)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(a.membersRevokeCommand(), a.membersApproveCommand())
	return cmd
}

func (a *app) showMembers(members []meshnet.MemberStatus) {
	var t table
	t.row("NAME", "ADDRESSES", "ROLES", "TAGS", "SINCE", "STATE", "ID")
	for _, m := range members {
		state := "member"
		switch {
		case m.Revoked != nil:
			state = "revoked"
		case m.Self:
			state = "this node"
		}
		t.row(text(m.Name), list(m.IPs), list(m.Roles), list(m.Tags), moment(&m.Admitted), state, m.ID)
		if m.Revoked != nil {
			t.style(5, red)
		}
	}
	t.write(a.stdout, a.colours(a.stdout))
}

func (a *app) membersRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "revoke PEER",
		Short:             "End a node's membership for good",
		Example:           "  meshnet members revoke alice",
		Args:              exactly(1),
		ValidArgsFunction: a.completes(),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, args []string) error {
			if err := c.RevokeMember(ctx, args[0]); err != nil {
				return err
			}
			a.note("%s is revoked", args[0])
			return nil
		}),
	}
}

// approvable is what members offer and an admin approves.
var approvable = []string{"relay"}

func (a *app) membersApproveCommand() *cobra.Command {
	var withdraw bool
	cmd := &cobra.Command{
		Use:   "approve PEER [relay]",
		Short: "Make what a node offers count for everybody: its relay server",
		Long: `A node offers to be a relay server with: meshnet up --relay. The others use it once an admin approves; an
admin's own counts at once. --withdraw takes an approval back.`,
		Example: `  meshnet members approve alice
  meshnet members approve --withdraw alice relay`,
		Args:              between(1, 2),
		ValidArgsFunction: a.completes(approvable...),
	}
	cmd.Flags().BoolVar(&withdraw, "withdraw", false, "take the approval back")
	cmd.RunE = a.does(func(cmd *cobra.Command, args []string) error {
		what := approvable[0]
		if len(args) == 2 {
			what = args[1]
		}
		if !slices.Contains(approvable, what) {
			return usagef("%q is nothing that can be approved: %s", what, strings.Join(approvable, ", "))
		}
		return a.asks(func(ctx context.Context, c *localapi.Client, args []string) error {
			if err := c.Approve(ctx, args[0], what, !withdraw); err != nil {
				return err
			}
			if withdraw {
				a.note("%s does not count as a %s any more", args[0], what)
			} else {
				a.note("%s counts as a %s, once it offers to be one", args[0], what)
			}
			return nil
		})(cmd, args)
	})
	return cmd
}
