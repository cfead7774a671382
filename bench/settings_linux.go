package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// settings are what both commands can be told.
type settings struct {
	meshnet string // the binary under test; "": one of the working tree
	json    string
	timeout time.Duration
}

// flagSet has the flags of settings; a command adds its own.
func (s *settings) flagSet(name string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.meshnet, "meshnet", "", "measure this `binary` instead of one built from the working tree")
	f.StringVar(&s.json, "json", "", "write everything that was measured to this `file`")
	f.DurationVar(&s.timeout, "timeout", 0, "end after this `time` (default: twice the estimate and two minutes)")
	return f
}

// parse reads a command line that has nothing but flags. What is wrong with a flag has been printed already.
func (s *settings) parse(f *flag.FlagSet, args []string) (err error) {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected %q", f.Arg(0))
	}
	s.meshnet, err = program(s.meshnet)
	return err
}

// program is the absolute path of the program to measure; "" stays that.
func program(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("-meshnet: %w", err)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("-meshnet: %w", err)
	}
	return path, nil
}

// refuse prints what is wrong with a command line and returns the exit code.
func refuse(err error, stderr io.Writer) int {
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	fmt.Fprintf(stderr, "bench: %v\n", err)
	return exitUsage
}

// limit says how long a run takes and ends it when it takes far longer.
func (s *settings) limit(ctx context.Context, what string, estimate time.Duration, log io.Writer) (context.Context, context.CancelFunc) {
	if s.timeout == 0 {
		s.timeout = 2*estimate + 2*time.Minute
	}
	fmt.Fprintf(log, "%s; about %v, at most %v\n", what, estimate.Round(time.Second), s.timeout.Round(time.Second))
	return context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("the run is not over after %v: see -timeout", s.timeout))
}
