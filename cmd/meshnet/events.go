package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

func (a *app) eventsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "events",
		Short:   "Print what happens, as it happens",
		Example: "  meshnet events --json",
		Args:    exactly(0),
		RunE: a.asks(func(ctx context.Context, c *localapi.Client, _ []string) error {
			err := c.Events(ctx, func(e meshnet.Event) error {
				if asJSON {
					return a.line(e)
				}
				return a.showEvent(e)
			})
			switch {
			case interrupted(ctx, err):
				return nil
			case err == nil:
				a.note("the node has stopped")
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document per event")
	return cmd
}

func (a *app) showEvent(e meshnet.Event) error {
	line := e.Time.Local().Format(time.TimeOnly) + " " + string(e.Type)
	if e.Name != nil || e.Peer != nil {
		who := e.Name
		if who == nil {
			who = e.Peer
		}
		line += " " + text(who)
	}
	if len(e.Data) > 0 {
		data, err := json.Marshal(e.Data)
		if err != nil {
			return err
		}
		line += " " + string(data)
	}
	_, err := fmt.Fprintln(a.stdout, oneLine(line))
	return failed("write", err)
}
