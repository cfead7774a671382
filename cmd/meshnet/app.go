package main

import (
	"context"
	"io"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet/localapi"
)

// app is one run of the program. Owned by run.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	host           host
	global         globals
	from           map[string]string // flag → where its value came from, if not from the command line
}

// globals are the flags of every command.
type globals struct {
	state, socket, config, logFormat string
	verbose, noColor                 bool
}

// run is the program: it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, h host) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: &lockedWriter{w: stderr, terminal: isTerminal(stderr)}, host: h, from: map[string]string{}}
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // never nil: cobra would take the process's own
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteC()
	return a.report(cmd, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "meshnet",
		Short: "A private network that machines make among themselves",
		Long: `meshnet gives every machine of a group a private, named, encrypted address,
with no server to rent, no account, and nothing in the middle that can read the traffic.`,
		Example: `  sudo meshnet up                     # found a network, or come back to the one of this machine
  meshnet invite > token              # on a machine that is in
  sudo meshnet up --join @token       # on one that is not
  meshnet status`,
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true, // report gives its own hint
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	g, f := &a.global, root.PersistentFlags()
	f.StringVar(&g.state, "state", "", "state `folder` (default: "+a.defaultStateText()+")")
	f.StringVar(&g.socket, "socket", "", "`path` of the node's socket")
	f.StringVar(&g.config, "config", "", "TOML `file` with values of flags, under the same names")
	f.StringVar(&g.logFormat, "log-format", "text", "form of logs: text or json")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "log more")
	f.BoolVar(&g.noColor, "no-color", false, "no colours, also with NO_COLOR in the environment")
	root.AddCommand(a.upCommand(), a.downCommand(), a.inviteCommand(), a.statusCommand(), a.pingCommand(), a.whyCommand(),
		a.netcheckCommand(), a.ipCommand(), a.whoIsCommand(), a.membersCommand(), a.keyCommand(), a.eventsCommand(),
		a.metricsCommand(), a.relayCommand(), a.debugCommand(), a.versionCommand(), a.completionCommand())
	root.SetHelpCommand(a.helpCommand())
	root.InitDefaultHelpFlag()
	return root
}

func (a *app) defaultStateText() string {
	dir, err := stateFolder(a.host)
	if err != nil {
		return "none"
	}
	return dir
}

// does makes a command's body of f: settings from the environment and the file come first, and errors get the
// command's name.
func (a *app) does(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := a.settle(cmd)
		if err == nil {
			err = f(cmd, args)
		}
		return inCommand(cmd, err)
	}
}

// asks makes a command's body that talks to the running node. An interrupt ends ctx.
func (a *app) asks(f func(ctx context.Context, c *localapi.Client, args []string) error) func(*cobra.Command, []string) error {
	return a.does(func(_ *cobra.Command, args []string) error {
		ctx, stop := a.interruptible()
		defer stop()
		sockets, err := a.sockets()
		if err != nil {
			return err
		}
		c, err := localapi.Locate(ctx, sockets...)
		if err != nil {
			return err
		}
		defer c.Close()
		return f(ctx, c, args)
	})
}

// interruptible is a context that the first signal ends; the second one ends the process.
func (a *app) interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals, unhook := a.host.signals()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-signals:
				if ctx.Err() != nil {
					a.host.abort(exitFailed)
				}
				cancel()
			}
		}
	})
	return ctx, func() {
		unhook()
		close(done)
		wg.Wait()
		cancel()
	}
}

// stateDir is the state folder, as an absolute path.
func (a *app) stateDir() (string, error) {
	dir := a.global.state
	if dir == "" {
		var err error
		if dir, err = stateFolder(a.host); err != nil {
			return "", hinted(err, "name one with --state")
		}
	}
	return filepath.Abs(dir)
}

// sockets are where to look for the node, in order.
func (a *app) sockets() ([]string, error) {
	if a.global.socket != "" {
		return []string{a.global.socket}, nil
	}
	if a.global.state != "" {
		return []string{filepath.Join(a.global.state, localapi.SocketFile)}, nil
	}
	var found []string
	if dir, err := stateFolder(a.host); err == nil {
		found = append(found, filepath.Join(dir, localapi.SocketFile))
	}
	if a.host.system != "" {
		found = append(found, a.host.system)
	}
	return found, nil
}

// atMost refuses more than n arguments.
func atMost(n int) cobra.PositionalArgs { return between(0, n) }

// exactly refuses any other number of arguments.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > high && high == 0 && cmd.HasSubCommands():
			return &unknownCommand{args[0]}
		case len(args) > high:
			return usagef("unexpected argument %q", args[high])
		case len(args) < low:
			return usagef("an argument is missing: meshnet %s", cmd.UseLine()[len("meshnet "):])
		}
		return nil
	}
}

// lockedWriter lets logs and messages share a stream. Guarded by mu.
type lockedWriter struct {
	terminal bool

	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
