package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Explain a command",
		Example: "  meshnet help invite revoke",
		RunE: a.does(func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				name := args[0]
				if len(rest) > 0 {
					name = rest[0]
				}
				return &usageError{&unknownCommand{name}}
			}
			target.InitDefaultHelpFlag()
			return target.Help()
		}),
	}
}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script with which a shell completes commands",
		Example: `  meshnet completion bash > /etc/bash_completion.d/meshnet
  meshnet completion zsh > "${fpath[1]}/_meshnet"
  meshnet completion fish > ~/.config/fish/completions/meshnet.fish
  meshnet completion powershell | Out-String | Invoke-Expression`,
		Args:      exactly(1),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: a.does(func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return &usageError{fmt.Errorf("%q is none of bash, zsh, fish, powershell", args[0])}
		}),
	}
}
