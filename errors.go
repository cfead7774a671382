package meshnet

import (
	"errors"
	"fmt"
	"net"
)

// Errors that callers branch on.
var (
	// ErrClosed is returned by everything on a closed node. It is net.ErrClosed.
	ErrClosed = fmt.Errorf("node closed: %w", net.ErrClosed)
	// ErrUnknownPeer: no member has that name, address or id.
	ErrUnknownPeer = errors.New("unknown peer")
	// ErrRevoked: this node, or the invite it came with, was revoked.
	ErrRevoked = errors.New("revoked")
	// ErrInviteExpired: the token's time is over.
	ErrInviteExpired = errors.New("invite expired")
	// ErrInviteUsed: the token was used as often as it may be.
	ErrInviteUsed = errors.New("invite used up")
	// ErrDenied: a rule forbids it.
	ErrDenied = errors.New("denied")
	// ErrMessageTooLong: larger than the path carries.
	ErrMessageTooLong = errors.New("message too long")
	// ErrToken: not a token, truncated, altered, or made by a newer version.
	ErrToken = errors.New("bad token")
	// ErrOtherNetwork: the state folder belongs to another network than the token.
	ErrOtherNetwork = errors.New("this state folder belongs to another network")
	// ErrInUse: another node runs on the state folder.
	ErrInUse = errors.New("already running")
	// ErrJoinTimeout: nobody let us in within Config.JoinTimeout.
	ErrJoinTimeout = errors.New("nobody answered in time")
	// ErrNoTUN: a TUN was asked for and cannot be had.
	ErrNoTUN = errors.New("no TUN")
	// ErrNotAdmin: only an admin of the network may do that.
	ErrNotAdmin = errors.New("not an admin of this network")
)

// Hinted is an error with a line that says what can be done about it.
type Hinted struct {
	Err  error
	Hint string
}

// Error is the error without the hint.
func (h *Hinted) Error() string { return h.Err.Error() }

// Unwrap is for errors.Is.
func (h *Hinted) Unwrap() error { return h.Err }
