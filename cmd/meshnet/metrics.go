package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet/localapi"
)

func (a *app) metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print the counters of the node, as Prometheus reads them",
		Long: `Prints the counters and gauges of the running node in the text format of Prometheus. It reads the same over
HTTP when the node runs with: meshnet up --metrics ADDR.`,
		Example: `  meshnet metrics
  meshnet metrics | grep drops`,
		Args: exactly(0),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
			metrics, err := c.Metrics(ctx)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.stdout, metrics)
			return failed("write", err)
		}),
	}
}
