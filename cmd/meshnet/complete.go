package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet/localapi"
)

// completeTimeout bounds how long a shell waits for names.
const completeTimeout = time.Second

// completes offers the names of peers for the first argument, and values for the second.
func (a *app) completes(second ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return a.peerNames(), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return second, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// peerNames are the names of the running node's peers; none where there is no node.
func (a *app) peerNames() []string {
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	sockets, err := a.sockets()
	if err != nil {
		return nil
	}
	c, err := localapi.Locate(ctx, sockets...)
	if err != nil {
		return nil
	}
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range s.Peers {
		if p.Name != nil {
			names = append(names, printable(*p.Name))
		}
	}
	slices.Sort(names)
	return names
}
