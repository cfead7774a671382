package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
)

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  meshnet version --json",
		Args:    exactly(0),
		RunE: a.does(func(*cobra.Command, []string) error {
			if asJSON {
				return a.document(struct {
					Version string `json:"version"`
					Go      string `json:"go"`
					OS      string `json:"os"`
					Arch    string `json:"arch"`
				}{meshnet.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			_, err := fmt.Fprintln(a.stdout, "meshnet", meshnet.Version)
			return failed("write", err)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
