package proxy

import "golang.org/x/sys/windows"

// The errors of sockets. Package syscall's names are other numbers here.
const (
	errnoRefused         = windows.WSAECONNREFUSED
	errnoNetUnreachable  = windows.WSAENETUNREACH
	errnoHostUnreachable = windows.WSAEHOSTUNREACH
	errnoTimedOut        = windows.WSAETIMEDOUT
)
