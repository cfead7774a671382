package udp

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const ipDontFrag = 28 // IP_DONTFRAG of netinet/in.h, since macOS 11; x/sys has it for IPv6 only

func setDontFragment(fd uintptr, v6, on bool) error {
	value := 0
	if on {
		value = 1
	}
	level, option := unix.IPPROTO_IP, ipDontFrag
	if v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG
	}
	if err := unix.SetsockoptInt(int(fd), level, option, value); err != nil {
		return fmt.Errorf("set don't fragment: %w", os.NewSyscallError("setsockopt", err))
	}
	return nil
}
