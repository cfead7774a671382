package localapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/meshnet/meshnet"
)

// Errors of this package that callers branch on.
var (
	// ErrNoNode: nothing answers on the socket.
	ErrNoNode = errors.New("no node is running")
	// ErrNotPermitted: the caller may look at the node and not change it.
	ErrNotPermitted = errors.New("only root, the node's user and group meshnet may change it")
	// ErrUnsupported: the node does not know this request; it is of another version.
	ErrUnsupported = errors.New("the running node does not know this request")
	// ErrRequest: the node did not accept the form of the request.
	ErrRequest = errors.New("bad request")
)

const codeFailed = "failed" // any other error

// sentinels are the errors that keep their identity across the socket.
var sentinels = []struct {
	code   string
	err    error
	status int
}{
	{"unknown_peer", meshnet.ErrUnknownPeer, http.StatusNotFound},
	{"revoked", meshnet.ErrRevoked, http.StatusForbidden},
	{"invite_expired", meshnet.ErrInviteExpired, http.StatusForbidden},
	{"invite_used", meshnet.ErrInviteUsed, http.StatusForbidden},
	{"denied", meshnet.ErrDenied, http.StatusForbidden},
	{"not_admin", meshnet.ErrNotAdmin, http.StatusForbidden},
	{"message_too_long", meshnet.ErrMessageTooLong, http.StatusRequestEntityTooLarge},
	{"token", meshnet.ErrToken, http.StatusBadRequest},
	{"other_network", meshnet.ErrOtherNetwork, http.StatusConflict},
	{"in_use", meshnet.ErrInUse, http.StatusConflict},
	{"join_timeout", meshnet.ErrJoinTimeout, http.StatusGatewayTimeout},
	{"no_tun", meshnet.ErrNoTUN, http.StatusConflict},
	{"closed", meshnet.ErrClosed, http.StatusServiceUnavailable},
	{"not_permitted", ErrNotPermitted, http.StatusForbidden},
	{"unsupported", ErrUnsupported, http.StatusNotFound},
	{"bad_request", ErrRequest, http.StatusBadRequest},
	{"timeout", context.DeadlineExceeded, http.StatusGatewayTimeout},
	{"canceled", context.Canceled, http.StatusServiceUnavailable},
}

// Error is an error that came from the node. errors.Is finds the sentinel of its code. Immutable.
type Error struct {
	Code string `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint"` // "": none
}

// Error is the text.
func (e *Error) Error() string { return e.Text }

// Unwrap is the sentinel that Code stands for, or nil.
func (e *Error) Unwrap() error {
	for _, s := range sentinels {
		if s.code == e.Code {
			return s.err
		}
	}
	return nil
}

// describe makes an Error of err, and the HTTP status that goes with it.
func describe(err error) (*Error, int) {
	e, status := &Error{Code: codeFailed, Text: err.Error()}, http.StatusInternalServerError
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			e.Code, status = s.code, s.status
			break
		}
	}
	if h, ok := errors.AsType[*meshnet.Hinted](err); ok {
		e.Hint = h.Hint
	}
	return e, status
}
