package localapi

import (
	"net"

	"golang.org/x/sys/unix"
)

const tellsCredentials = true

// callerOf asks for the credentials with which the other end connected (LOCAL_PEERCRED; unix(4)).
func callerOf(conn *net.UnixConn) caller {
	raw, err := conn.SyscallConn()
	if err != nil {
		return caller{}
	}
	var c caller
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err != nil {
			return
		}
		n := min(max(int(cred.Ngroups), 0), len(cred.Groups))
		c = caller{known: true, uid: cred.Uid, groups: append([]uint32(nil), cred.Groups[:n]...)}
	})
	return c
}
