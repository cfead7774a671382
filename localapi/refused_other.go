//go:build !windows

package localapi

import (
	"errors"
	"syscall"
)

// refused tells the error of dialling a socket that nobody serves any more.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
