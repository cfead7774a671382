package udp

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// descriptor is a socket outside of the runtime's poller. There, every datagram that arrives would wake a thread, whether
// somebody waits for one or not; here only the one that waits is woken. Safe for concurrent use.
type descriptor struct {
	fd   int
	bell int // eventfd that wakes who waits, to look at over and deadline

	use      sync.RWMutex // held for reading while fd and bell are used, for writing when they are closed
	over     atomic.Bool
	deadline atomic.Int64 // of Read, Unix time in nanoseconds; 0: none
}

// detach takes a socket out of the runtime's poller, and closes conn unless it fails.
func detach(conn *net.UDPConn, raw raw) (*descriptor, error) {
	d := new(descriptor)
	var failed error
	err := raw.Control(func(fd uintptr) { d.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate socket: %w", err)
	}
	if d.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(d.fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	conn.Close()
	return d, nil
}

// Control runs f with the descriptor held open.
func (d *descriptor) Control(f func(fd uintptr)) error {
	d.use.RLock()
	defer d.use.RUnlock()
	if d.over.Load() {
		return net.ErrClosed
	}
	f(uintptr(d.fd))
	return nil
}

// Read runs f, and again whenever the socket may have become readable, until it returns true. Errors: net.ErrClosed,
// os.ErrDeadlineExceeded.
func (d *descriptor) Read(f func(fd uintptr) bool) error {
	d.use.RLock()
	defer d.use.RUnlock()
	for {
		timeout, err := d.left()
		if err != nil {
			return err
		}
		if f(uintptr(d.fd)) {
			return nil
		}
		d.wait(timeout)
	}
}

// left is how long a Read may wait, in milliseconds; -1: as long as it takes.
func (d *descriptor) left() (timeout int, err error) {
	if d.over.Load() {
		return 0, net.ErrClosed
	}
	deadline := d.deadline.Load()
	if deadline == 0 {
		return -1, nil
	}
	left := time.Until(time.Unix(0, deadline))
	if left <= 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return int(min(left, time.Hour)/time.Millisecond) + 1, nil
}

// wait returns when the socket may be readable, the bell rang, or the time is over.
func (d *descriptor) wait(timeout int) {
	fds := [2]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(d.bell), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds[:], timeout) // whatever it says, the next attempt knows better
	if fds[1].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(d.bell, count[:]) // another reader may have taken it
	}
}

// ring wakes who waits.
func (d *descriptor) ring() {
	_, _ = unix.Write(d.bell, binary.NativeEndian.AppendUint64(nil, 1)) // fails only where it rings already
}

// setDeadline makes Read return os.ErrDeadlineExceeded from t on; the zero time lifts it.
func (d *descriptor) setDeadline(t time.Time) error {
	d.use.RLock()
	defer d.use.RUnlock()
	if d.over.Load() {
		return net.ErrClosed
	}
	var at int64
	if !t.IsZero() {
		at = t.UnixNano()
	}
	d.deadline.Store(at)
	d.ring()
	return nil
}

// Close ends a Read that waits, and frees the port before it returns.
func (d *descriptor) Close() error {
	if d.over.Swap(true) {
		return net.ErrClosed
	}
	d.ring()
	d.use.Lock()
	defer d.use.Unlock()
	unix.Close(d.bell)
	return os.NewSyscallError("close", unix.Close(d.fd))
}
