package main

import (
	"context"

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
  meshnet members revoke alice`,
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
	cmd.AddCommand(a.membersRevokeCommand())
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
		Use:     "revoke PEER",
		Short:   "End a node's membership for good",
		Example: "  meshnet members revoke alice",
		Args:    exactly(1),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, args []string) error {
			if err := c.RevokeMember(ctx, args[0]); err != nil {
				return err
			}
			a.note("%s is revoked", args[0])
			return nil
		}),
	}
}
