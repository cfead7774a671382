package udp

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

const dontFragment = 14 // IP_DONTFRAGMENT and IPV6_DONTFRAG of ws2ipdef.h

func setDontFragment(fd uintptr, v6, on bool) error {
	value := 0
	if on {
		value = 1
	}
	level := windows.IPPROTO_IP
	if v6 {
		level = windows.IPPROTO_IPV6
	}
	if err := windows.SetsockoptInt(windows.Handle(fd), level, dontFragment, value); err != nil {
		return fmt.Errorf("set don't fragment: %w", os.NewSyscallError("setsockopt", err))
	}
	return nil
}
