package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

const maxQR = 2900 // bytes of the largest QR code with the least redundancy

func (a *app) inviteCommand() *cobra.Command {
	var expires time.Duration
	var uses uint64
	var tags []string
	var qr bool
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make a token with which others join",
		Long: `Makes an invite and prints its token, alone, on stdout. The token is a password: hand it over in a file
or through a pipe. Its id, for list and revoke, goes to stderr.`,
		Example: `  meshnet invite > token
  meshnet invite --uses 10 --expires 168h --tag laptop
  meshnet invite list
  meshnet invite revoke 3f9a`,
		Args: exactly(0),
	}
	f := cmd.Flags()
	f.DurationVar(&expires, "expires", 24*time.Hour, "how long the token is good for; 0: for ever")
	f.Uint64Var(&uses, "uses", 1, "how many nodes may join with it; 0: any number")
	f.StringSliceVar(&tags, "tag", nil, "`tag` of nodes that join with it; may be repeated")
	f.BoolVar(&qr, "qr", false, "also draw the token as a QR code on stderr")
	cmd.RunE = a.does(func(cmd *cobra.Command, args []string) error {
		if expires < 0 {
			return a.bad("expires", errors.New("less than nothing"))
		}
		return a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
			return a.invite(ctx, c, meshnet.InviteOptions{Expires: expires, Uses: uses, Tags: tags}, qr)
		})(cmd, args)
	})
	cmd.AddCommand(a.inviteListCommand(), a.inviteRevokeCommand())
	return cmd
}

// invite makes one; options that never expire have none of Expires here.
func (a *app) invite(ctx context.Context, c *localapi.Client, o meshnet.InviteOptions, qr bool) error {
	var until *time.Time
	if o.Expires == 0 {
		o.Expires = -1 // zero is a default beyond this point
	} else {
		t := time.Now().Add(o.Expires)
		until = &t
	}
	made, err := c.Invite(ctx, o)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.stdout, made.Token); err != nil {
		return failed("write", err)
	}
	a.note("invite %s expires %s, uses %s", made.ID, moment(until), usesText(o.Uses))
	if qr {
		a.drawQR(made.Token)
	}
	if s, err := c.Status(ctx); err == nil { // beside the answer: nothing to fail for
		a.warnUnmeetable(s.Health)
	}
	return nil
}

func (a *app) drawQR(token string) {
	if len(token) > maxQR {
		a.note("the token is too long for a QR code")
		return
	}
	qrterminal.GenerateHalfBlock(token, qrterminal.L, a.stderr)
}

func (a *app) inviteListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the invites",
		Example: "  meshnet invite list --json",
		Args:    exactly(0),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
			invites, err := c.Invites(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.document(localapi.Document(invites))
			}
			var t table
			t.row("ID", "STATE", "USED", "EXPIRES", "TAGS")
			for _, i := range invites {
				t.row(i.ID, i.State, strconv.FormatUint(i.Used, 10)+"/"+usesText(i.Uses), moment(i.Expires), list(i.Tags))
			}
			t.write(a.stdout, a.colours(a.stdout))
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) inviteRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "End an invite; those who joined with it stay",
		Example: "  meshnet invite revoke 3f9a",
		Args:    exactly(1),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, args []string) error {
			if err := c.RevokeInvite(ctx, args[0]); err != nil {
				return err
			}
			a.note("invite %s is revoked", args[0])
			return nil
		}),
	}
}

// moment is a time for people.
func moment(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

func usesText(uses uint64) string {
	if uses == 0 {
		return "unlimited"
	}
	return strconv.FormatUint(uses, 10)
}
