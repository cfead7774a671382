//go:build !windows

package proxy

import "syscall"

// The errors of sockets.
const (
	errnoRefused         = syscall.ECONNREFUSED
	errnoNetUnreachable  = syscall.ENETUNREACH
	errnoHostUnreachable = syscall.EHOSTUNREACH
	errnoTimedOut        = syscall.ETIMEDOUT
)
