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
	details, err := eventDetails(e)
	if err != nil {
		return err
	}
	if details != "" {
		line += " " + details
	}
	_, err = fmt.Fprintln(a.stdout, oneLine(line))
	return failed("write", err)
}

// eventData are the fields of the events that are told in words.
type eventData struct {
	Path, From *meshnet.PathStatus // path_changed
	URL        string              // relay_connected, relay_lost
	Reason     string
	Homes      []string // home_changed
	Text, Hint string   // health
	Severity   string
	Lost       int // of any: events that this subscriber was too slow for
}

// eventDetails is what the data of an event says, for people; of one that is not known here it is the data.
func eventDetails(e meshnet.Event) (string, error) {
	if len(e.Data) == 0 {
		return "", nil
	}
	raw, err := json.Marshal(e.Data)
	if err != nil {
		return "", err
	}
	var d eventData
	if json.Unmarshal(raw, &d) != nil {
		return string(raw), nil
	}
	words := d.words(e.Type)
	switch {
	case words == "":
		return string(raw), nil
	case d.Lost > 0:
		words += fmt.Sprintf(" (%d events before it were lost: this reader is too slow)", d.Lost)
	}
	return words, nil
}

func (d *eventData) words(t meshnet.EventType) string {
	switch {
	case t == meshnet.EventPathChanged && d.Path != nil:
		return d.pathChange()
	case (t == meshnet.EventRelayConnected || t == meshnet.EventRelayLost) && d.URL != "":
		return because(short(d.URL), d.Reason)
	case t == meshnet.EventHomeChanged && d.Homes != nil:
		return because(places(d.Homes), d.Reason)
	case t == meshnet.EventHealth && d.Text != "":
		words := d.Severity + ": " + d.Text
		if d.Hint != "" {
			words += "; hint: " + d.Hint
		}
		return words
	}
	return ""
}

func (d *eventData) pathChange() string {
	words := path(*d.Path)
	if d.Path.RTTMs != nil {
		words += " in " + milliseconds(d.Path.RTTMs)
	}
	if d.From != nil && path(*d.From) != "-" {
		words += ", was " + path(*d.From)
	}
	return because(words, text(d.Path.Reason))
}

// because is words with the reason behind them, if there is one.
func because(words, reason string) string {
	if reason == "" || reason == "-" {
		return words
	}
	return words + " (" + reason + ")"
}
