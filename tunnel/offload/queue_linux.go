package offload

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	batchReads = 64        // of one ReadBatch
	batchBytes = 256 << 10 // what fits the second-level cache, with its copies
)

// Queue reads and writes the packets of a TUN that has virtio-net headers. ReadBatch belongs to one goroutine, every
// Join to another. The file stays its owner's.
type Queue struct {
	conn     syscall.RawConn
	offloads Offloads

	buf    []byte
	read   func(fd uintptr) bool // readReady, made once
	handle func(buf []byte) bool // of the ReadBatch that runs
	poll   bool                  // it does not wait
	err    error                 // of it

	file    *os.File
	stopped atomic.Bool
}

// NewQueue takes a TUN's file, opened with IFF_VNET_HDR and non-blocking, and turns on the offloads that the kernel has.
func NewQueue(f *os.File) (*Queue, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("tun queue: %w", err)
	}
	q := &Queue{conn: conn, buf: make([]byte, MaxRead), file: f}
	q.read = q.readReady
	var failed error
	err = conn.Control(func(fd uintptr) {
		if failed = plainHeaders(int(fd)); failed == nil {
			q.offloads, failed = SetOffloads(int(fd))
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("tun queue: %w", err)
	}
	if err := f.SetReadDeadline(time.Time{}); err != nil { // ReadBatch could neither wait nor be woken
		return nil, fmt.Errorf("tun queue: %w", err)
	}
	return q, nil
}

// Stop ends a ReadBatch that waits, and every later one, with os.ErrClosed.
func (q *Queue) Stop() {
	q.stopped.Store(true)
	_ = q.file.SetReadDeadline(time.Unix(1, 0)) // fails only when it is closed already
}

// Offloads are the superpackets that the TUN takes and gives.
func (q *Queue) Offloads() Offloads { return q.offloads }

// ReadBatch waits until the TUN can be read and then reads until nothing is left, handle returns false, or 64 reads or
// 256 KiB were made. Each read goes to handle at once, as it is: the virtio-net header and the packet, in a buffer
// that is handle's until it returns. handle may use a Join, but must not read the file.
//
// It returns nil after a batch, os.ErrClosed after Stop or the file's Close, and otherwise an *os.SyscallError: the
// interface is gone.
func (q *Queue) ReadBatch(handle func(buf []byte) bool) error { return q.batch(handle, false) }

// PollBatch is ReadBatch that does not wait: with nothing to read it returns nil at once.
func (q *Queue) PollBatch(handle func(buf []byte) bool) error { return q.batch(handle, true) }

// Keep, called by handle, leaves it the buffer at hand for good. fresh, of MaxRead bytes, takes its place.
func (q *Queue) Keep(fresh []byte) { q.buf = fresh[:MaxRead] }

func (q *Queue) batch(handle func(buf []byte) bool, poll bool) error {
	if q.stopped.Load() {
		return os.ErrClosed
	}
	q.handle, q.poll, q.err = handle, poll, nil
	err := q.conn.Read(q.read)
	q.handle = nil
	if err == nil {
		return q.err
	}
	return q.pollError()
}

// readReady reads one batch; false when there is nothing, so that the runtime's poller waits.
func (q *Queue) readReady(fd uintptr) bool {
	for reads, size := 0, 0; reads < batchReads && size < batchBytes; {
		n, err := unix.Read(int(fd), q.buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return reads > 0 || q.poll || q.stopped.Load()
		case err != nil:
			q.err = os.NewSyscallError("read", err)
			return true
		}
		reads++
		size += n
		if !q.handle(q.buf[:n]) {
			return true
		}
	}
	return true
}

// pollError says why the runtime's poller refused: Close, or an error condition, which a TUN has only after it was
// deleted and which may come before the next read would tell.
func (q *Queue) pollError() error {
	if q.stopped.Load() || q.conn.Control(func(uintptr) {}) != nil {
		return os.ErrClosed
	}
	return os.NewSyscallError("poll", unix.EBADFD)
}

// SetOffloads asks the kernel to hand out superpackets instead of segments, and reports what it agreed to: TCP with all
// kernels, UDP since Linux 6.2. It fails if fd is not a TUN with virtio-net headers.
func SetOffloads(fd int) (Offloads, error) {
	const tcp, udp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6, unix.TUN_F_USO4 | unix.TUN_F_USO6
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|udp) == nil {
		return Offloads{TCP: true, UDP: true}, nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp); err != nil {
		return Offloads{}, os.NewSyscallError("TUNSETOFFLOAD", err)
	}
	return Offloads{TCP: true}, nil
}

// plainHeaders fails unless fd is a TUN whose virtio-net headers are of the form that this package speaks.
func plainHeaders(fd int) error {
	ifr, err := unix.NewIfreq("tun")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return os.NewSyscallError("TUNGETIFF", err)
	}
	const want = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if ifr.Uint16()&want != want {
		return errors.New("the interface has no virtio-net headers")
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, HeaderLen); err != nil {
		return os.NewSyscallError("TUNSETVNETHDRSZ", err)
	}
	return nil
}
