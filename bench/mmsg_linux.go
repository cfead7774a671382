package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsg is the kernel's struct mmsghdr.
type mmsg struct {
	hdr unix.Msghdr
	n   uint32
	_   [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// batch is a vector of datagrams for sendmmsg and recvmmsg on a connected or receiving socket.
type batch struct {
	msgs []mmsg
	iovs []unix.Iovec
}

// newBatch makes a vector of n datagrams, each with size bytes of its own.
func newBatch(n, size int) *batch {
	b := &batch{msgs: make([]mmsg, n), iovs: make([]unix.Iovec, n)}
	data := make([]byte, n*size)
	for i := range b.msgs {
		b.iovs[i].Base = &data[i*size]
		b.iovs[i].SetLen(size)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// send sends the first n datagrams and returns how many the kernel took.
func (b *batch) send(fd, n int) (int, error) {
	got, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), uintptr(n), 0, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(got), nil
}

// receive waits for one datagram, takes all that are there and returns how many.
func (b *batch) receive(fd int) (int, error) {
	got, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])),
		uintptr(len(b.msgs)), unix.MSG_WAITFORONE, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(got), nil
}
