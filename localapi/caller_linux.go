package localapi

import (
	"net"
	"os/user"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const tellsCredentials = true

// callerOf asks for the credentials with which the other end connected (SO_PEERCRED, SO_PEERGROUPS; unix(7)).
func callerOf(conn *net.UnixConn) caller {
	raw, err := conn.SyscallConn()
	if err != nil {
		return caller{}
	}
	var c caller
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		c = caller{known: true, uid: cred.Uid, groups: []uint32{cred.Gid}}
		groups, err := peerGroups(fd)
		if err != nil {
			groups = accountGroups(cred.Uid)
		}
		c.groups = append(c.groups, groups...)
	})
	return c
}

// peerGroups are the supplementary groups of the process that connected, since Linux 4.13.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// accountGroups are the groups of a user by the account database: for kernels that do not tell those of the process.
func accountGroups(uid uint32) []uint32 {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return nil
	}
	names, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var groups []uint32
	for _, name := range names {
		if gid, err := strconv.ParseUint(name, 10, 32); err == nil {
			groups = append(groups, uint32(gid))
		}
	}
	return groups
}
