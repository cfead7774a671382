package localapi

import (
	"errors"

	"golang.org/x/sys/windows"
)

// refused tells the error of dialling a socket that nobody serves any more.
func refused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
