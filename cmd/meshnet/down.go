package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet/localapi"
)

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "Stop the running node; returns when it is gone",
		Example: "  meshnet down",
		Args:    exactly(0),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
			_, err := c.Down(ctx)
			return err
		}),
	}
}
