//go:build !linux && !darwin && !windows

package udp

import "errors"

func setDontFragment(uintptr, bool, bool) error { return errors.ErrUnsupported }
