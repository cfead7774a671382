package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"
)

// What Dial may tell beyond the errors of the system.
var (
	ErrNotMember   = errors.New("no such member")     // the name or address is nobody's
	ErrDenied      = errors.New("not allowed")        // by policy, or an address that proxies never reach
	ErrRefused     = errors.New("connection refused") // for networks that have no ECONNREFUSED
	ErrUnreachable = errors.New("member unreachable") // no path, or no answer
)

const (
	maxConns         = 1024             // a further connection waits to be accepted
	handshakeTimeout = 10 * time.Second // for a client to say what it wants
	dialTimeout      = 30 * time.Second
)

// Config is common to both proxies.
type Config struct {
	Logger *slog.Logger // nil discards
	// Dial connects to a host and port, which may be a name. network is "tcp".
	Dial func(ctx context.Context, network, hostport string) (net.Conn, error)
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

func (c Config) dial(ctx context.Context, hostport string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return c.Dial(ctx, "tcp", hostport)
}

// outcome is what a dial's error means to a client.
type outcome int

const (
	failed outcome = iota
	denied
	netUnreachable
	hostUnreachable
	refused
)

func outcomeOf(err error) outcome {
	_, unresolved := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, ErrDenied):
		return denied
	case errors.Is(err, ErrRefused) || errors.Is(err, errnoRefused):
		return refused
	case errors.Is(err, errnoNetUnreachable):
		return netUnreachable
	case errors.Is(err, ErrNotMember), errors.Is(err, ErrUnreachable), errors.Is(err, errnoHostUnreachable), timedOut(err), unresolved:
		return hostUnreachable
	}
	return failed
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errnoTimedOut)
}
