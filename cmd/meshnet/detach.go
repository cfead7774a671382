package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/internal/safefile"
)

const (
	logFile     = "meshnet.log"
	readyPrefix = "ready: "
	maxErrors   = 1 << 20 // bytes of the log that are searched for what went wrong
)

// settledByParent are flags whose values a detached node does not take from its surroundings.
var settledByParent = []string{"config", "detach", "join", "ready-fd", "state"}

// paths are flags whose values are files.
var paths = []string{"socket", "bootstrap-file", "relay-ca", "relay-tls-cert", "relay-tls-key"}

// detach runs the same command in the background and waits until it is ready or has failed. Its output goes to the
// log in the state folder; the token goes through a pipe.
func (a *app) detach(cmd *cobra.Command, cfg meshnet.Config, told *readyPipe) error {
	log, from, err := openLog(cfg.Dir)
	if err != nil {
		return failed("start", err)
	}
	defer log.Close()
	program, err := a.host.executable()
	if err != nil {
		return failed("start", err)
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return failed("start", err)
	}
	defer ready.Close()
	child := exec.Command(program)
	child.Stdout, child.Stderr, child.Dir = log, log, cfg.Dir
	child.Env = withoutVariables(a.host.environ, settledByParent)
	fd, err := background(child, theirs)
	if err == nil {
		child.Args = append(child.Args, childArgs(cmd, cfg, fd)...)
		err = a.spawn(child, cfg.Join)
	}
	theirs.Close()
	if err != nil {
		return failed("start", err)
	}
	line, err := a.await(child, ready, log.Name(), from)
	if err != nil {
		return err
	}
	a.note("%s", line)
	told.tell(line)
	return nil
}

// spawn starts the child with the token on its stdin.
func (a *app) spawn(child *exec.Cmd, token string) error {
	if token == "" {
		return child.Start()
	}
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	defer out.Close()
	child.Stdin = in
	if err := child.Start(); err != nil {
		return err
	}
	_, err = io.WriteString(out, token+"\n") // fits a pipe: it never blocks
	return err
}

// await returns the child's ready line, or how it failed.
func (a *app) await(child *exec.Cmd, ready io.Reader, logName string, from int64) (string, error) {
	ctx, release := a.interruptible()
	defer release()
	defer context.AfterFunc(ctx, func() { terminate(child.Process) })()
	line, _ := bufio.NewReader(ready).ReadString('\n')
	if strings.HasPrefix(line, readyPrefix) {
		return strings.TrimSuffix(line, "\n"), failed("start", child.Process.Release())
	}
	err := child.Wait()
	code := child.ProcessState.ExitCode()
	if code > 0 {
		if told := errorLines(logName, from); told != "" {
			io.WriteString(a.stderr, told)
			return "", &reported{code}
		}
	}
	switch {
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	case err == nil:
		err = errors.New("the node ended before it was ready")
	}
	return "", failed("start", hinted(err, "see "+logName))
}

// openLog opens the log of a state folder for appending, and tells where it ends now.
func openLog(dir string) (*os.File, int64, error) {
	state, err := safefile.Open(dir)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(state.Path(logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// errorLines are the error, and the hint, that a child wrote to its log from an offset on.
func errorLines(name string, from int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return ""
	}
	data, _ := io.ReadAll(io.LimitReader(f, maxErrors))
	var told string
	for line := range strings.Lines(string(data)) {
		switch {
		case strings.HasPrefix(line, "meshnet: "):
			told = line
		case strings.HasPrefix(line, "hint: ") && told != "":
			told += line
		}
	}
	return told
}

// childArgs are the settings of this run as arguments, wherever they came from. The token is not among them.
func childArgs(cmd *cobra.Command, cfg meshnet.Config, readyFD string) []string {
	args := []string{cmd.Name(), "--state=" + cfg.Dir, "--detach=false", "--ready-fd=" + readyFD}
	if cfg.Join != "" {
		args = append(args, "--join=-")
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed || slices.Contains(settledByParent, f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if s, ok := f.Value.(pflag.SliceValue); ok {
			values = s.GetSlice()
		}
		if slices.Contains(paths, f.Name) && values[0] != "" {
			values[0], _ = filepath.Abs(values[0]) // the child runs in the state folder
		}
		for _, v := range values {
			args = append(args, fmt.Sprintf("--%s=%s", f.Name, v))
		}
	})
	return args
}

// withoutVariables is an environment without the variables of some flags.
func withoutVariables(environ, flags []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.ContainsFunc(flags, func(flag string) bool { return name == variable(flag) })
	})
}
