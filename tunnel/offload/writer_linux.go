package offload

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writer writes packets to a TUN's file, each with one system call. Owned by a Join.
type writer struct {
	conn  syscall.RawConn
	write func(fd uintptr) // writev, made once
	iov   []unix.Iovec
	err   error
}

// NewJoin returns a Join that writes to the TUN. Several may do so at the same time.
func (q *Queue) NewJoin() *Join {
	w := &writer{conn: q.conn, iov: make([]unix.Iovec, 0, maxSegments+1)}
	w.write = w.writev
	return NewJoin(w.writePacket, q.offloads)
}

// writePacket writes the parts of a packet as one. Control, unlike RawConn.Write, lets other goroutines write too:
// the kernel takes packets whole.
func (w *writer) writePacket(packet [][]byte) error {
	w.iov = w.iov[:0]
	for _, b := range packet {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		w.iov = append(w.iov, v)
	}
	err := w.conn.Control(w.write)
	clear(w.iov)
	if err != nil {
		return os.ErrClosed
	}
	return w.err
}

func (w *writer) writev(fd uintptr) {
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(w.iov))), uintptr(len(w.iov)))
		if errno != unix.EINTR {
			w.err = writeError(errno)
			return
		}
	}
}

// writeError says what the errno of a write to a TUN means. One that is full says EAGAIN; one that is down says EIO,
// whatever is written; one that was deleted EBADFD.
func writeError(errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EINVAL:
		return ErrRefused
	case unix.EIO, unix.ENETDOWN, unix.EBADFD:
		return ErrDown
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		return ErrFull
	}
	return errno
}
