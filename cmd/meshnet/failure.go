package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet"
	"github.com/meshnet/meshnet/localapi"
)

// The exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitNoNode  = 3
	exitRefused = 4
)

// failure is an error with the operation that failed.
type failure struct {
	what string // "": err says it
	err  error
}

func (f *failure) Error() string {
	if f.what == "" {
		return f.err.Error()
	}
	return f.what + ": " + f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// failed says what failed.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return &failure{what, err}
}

// usageError is a mistake of the caller.
type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// reported is a failure that has been told already.
type reported struct{ code int }

func (r *reported) Error() string { return fmt.Sprintf("exit code %d", r.code) }

func hinted(err error, hint string) error { return &meshnet.Hinted{Err: err, Hint: hint} }

// inCommand names the command that failed, unless the error says already what did.
func inCommand(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*failure](err); ok {
		return err
	}
	what := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "meshnet"), " ")
	if strings.HasPrefix(err.Error(), what+": ") { // the node named it
		what = ""
	}
	return &failure{what, err}
}

// report prints err as the contract has it and returns the exit code.
func (a *app) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitDone
	}
	if r, ok := errors.AsType[*reported](err); ok {
		return r.code
	}
	if _, ok := errors.AsType[*failure](err); !ok { // cobra's own, before the command ran
		err = inCommand(cmd, &usageError{plainUsage(err)})
	}
	fmt.Fprintf(a.stderr, "meshnet: %s\n", oneLine(err.Error()))
	if hint := hintFor(cmd, err); hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", oneLine(hint))
	}
	return exitCode(err)
}

// plainUsage rewords what cobra says of a command that is not there.
func plainUsage(err error) error {
	var name string
	if n, scanErr := fmt.Sscanf(err.Error(), "unknown command %q", &name); scanErr == nil && n == 1 {
		return &unknownCommand{name}
	}
	return err
}

type unknownCommand struct{ name string }

func (u *unknownCommand) Error() string { return "unknown command: " + u.name }

func exitCode(err error) int {
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if errors.Is(err, localapi.ErrNoNode) {
		return exitNoNode
	}
	for _, refusal := range []error{meshnet.ErrRevoked, meshnet.ErrInviteExpired, meshnet.ErrInviteUsed, meshnet.ErrDenied} {
		if errors.Is(err, refusal) {
			return exitRefused
		}
	}
	return exitFailed
}

// hints are for errors that bring none of their own. The first that fits is given.
var hints = []struct {
	err  error
	hint string
}{
	{localapi.ErrNoNode, "start one with: meshnet up"},
	{localapi.ErrNotPermitted, "run it with sudo, or join the group: sudo usermod -aG meshnet $USER, and log in again"},
	{localapi.ErrUnsupported, "the node runs another version of meshnet: restart it"},
	{meshnet.ErrInviteExpired, "ask for a new token: an admin makes it with: meshnet invite"},
	{meshnet.ErrInviteUsed, "ask for a new token: an admin makes it with: meshnet invite"},
	{meshnet.ErrToken, "copy the whole token, or ask for a new one: an admin makes it with: meshnet invite"},
	{meshnet.ErrRevoked, "an admin of the network ended this; only a new invite, to a node with a new key, leads back in"},
	{meshnet.ErrOtherNetwork, "use another folder with --state, or leave out --join"},
	{meshnet.ErrInUse, "see it with: meshnet status; stop it with: meshnet down; run a second one with --state"},
	{meshnet.ErrJoinTimeout, "is a member of the network running, and reachable from here? name one with --bootstrap HOST:PORT"},
	{meshnet.ErrNoTUN, "run it with sudo, or without a network interface: --userspace"},
	{meshnet.ErrNotAdmin, "ask an admin of the network; see who is one with: meshnet members"},
	{meshnet.ErrUnknownPeer, "see who is there with: meshnet status"},
	{fs.ErrPermission, "run it with sudo, or join the group meshnet"},
}

func hintFor(cmd *cobra.Command, err error) string {
	if h, ok := errors.AsType[*meshnet.Hinted](err); ok {
		return h.Hint
	}
	if e, ok := errors.AsType[*localapi.Error](err); ok && e.Hint != "" {
		return e.Hint
	}
	if u, ok := errors.AsType[*unknownCommand](err); ok {
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(u.name); len(near) > 0 {
			return "did you mean: " + cmd.CommandPath() + " " + near[0]
		}
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return "see: " + cmd.CommandPath() + " --help"
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return ""
}

// oneLine is text without line breaks and control characters.
func oneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return printable(text)
}

// interrupted tells the error of a command that a signal ended.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}
