package relay

import (
	"net"
	"syscall"
)

// unsentBytes is how much of a connection's may wait in the kernel unsent. More would have signals stand in a queue that
// nobody can reorder or cut, and slow clients be known late.
const unsentBytes = 128 << 10

// LimitUnsent keeps the kernel's queue of a TCP connection short, so that what waits does so in an outbox. Wrappers are
// looked through by their method NetConn. It does nothing where the system cannot, or the connection is another one.
func LimitUnsent(conn net.Conn) {
	for range 8 {
		if socket, ok := conn.(syscall.Conn); ok {
			if raw, err := socket.SyscallConn(); err == nil {
				raw.Control(limitUnsent)
			}
			return
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		conn = wrapper.NetConn()
	}
}
