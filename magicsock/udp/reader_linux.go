package udp

import (
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	// readMessages trains, 512 KiB, stay in a second-level cache beside what is made of them. With a deep queue that is
	// a sixth faster than 16, single datagrams cost the same; with 4 they cost 8 % more.
	readMessages = 8
)

// reader receives batches of trains and hands them out. Owned by the goroutine that reads.
type reader struct {
	socket *Socket
	recv   func(fd uintptr) bool // made once: a closure a call would allocate
	errno  unix.Errno

	poll bool // do not wait

	msgs    [readMessages]message
	iovs    [readMessages]unix.Iovec
	names   [readMessages]unix.RawSockaddrInet6
	control [readMessages]controlBuffer
	buffers [readMessages][]byte
	handed  [readMessages]int // which of them each train of the last read lies in

	next, filled int    // messages handed out so far, received
	train        []byte // the current one
	segment      int
	from         netip.AddrPort
	local        netip.Addr
	ifIndex      int
	arrived      int64 // Unix time in nanoseconds; 0 unknown
	ahead        bool

	lastName  unix.RawSockaddrInet6 // the kernel's form of from
	lastZones *zoneTable            // that from's zone was read in; nil without one

	overflow uint32 // the kernel's own total, which wraps
}

func newReader(s *Socket) *reader {
	r := &reader{socket: s}
	for i := range r.msgs {
		r.put(i, make([]byte, TrainSize))
		h := &r.msgs[i].hdr
		h.Name = (*byte)(pointer(&r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = (*byte)(pointer(&r.control[i]))
		r.rearm(i)
	}
	r.recv = r.receive
	return r
}

// put has message i received into buf.
func (r *reader) put(i int, buf []byte) {
	r.buffers[i] = buf
	r.iovs[i].Base = &buf[0]
	r.iovs[i].SetLen(TrainSize)
}

// rearm restores the lengths that the kernel overwrote.
func (r *reader) rearm(i int) {
	h := &r.msgs[i].hdr
	h.Namelen = unix.SizeofSockaddrInet6
	h.SetControllen(len(r.control[i].bytes()))
	h.Flags = 0
}

// readTrains hands out messages as they were received.
func (r *reader) readTrains(trains []datagram.Train, poll bool) (int, error) {
	if len(trains) == 0 {
		return 0, nil
	}
	r.poll = poll
	for {
		n := 0
		for n < len(trains) && r.advance() {
			trains[n] = datagram.Train{
				Data: r.train, Size: min(r.segment, len(r.train)),
				From: datagram.Source{Addr: r.from, Local: r.local, IfIndex: r.ifIndex}, Arrived: r.arrived,
				Ahead: r.ahead,
			}
			r.handed[n] = r.next - 1
			n++
		}
		if n > 0 {
			return n, nil
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
		if r.filled == 0 && r.poll {
			return 0, nil // poll
		}
	}
}

// advance takes up the next received message that holds something.
func (r *reader) advance() bool {
	for r.next < r.filled {
		i := r.next
		r.next++
		m := &r.msgs[i]
		if m.hdr.Flags&unix.MSG_TRUNC != 0 {
			r.socket.rxTooLong.Add(1)
			continue
		}
		a := parseControl(r.control[i].bytes()[:m.hdr.Controllen])
		if a.dropped {
			r.socket.rxOverflow.Add(uint64(a.overflow - r.overflow))
			r.overflow = a.overflow
		}
		if m.n == 0 {
			r.socket.rxEmpty.Add(1)
			continue
		}
		r.train = r.buffers[i][:m.n:m.n]
		r.segment = a.segment
		if r.segment <= 0 {
			r.segment = len(r.train)
		}
		r.local, r.ifIndex, r.arrived, r.ahead = a.local, int(a.ifIndex), a.at, a.ahead
		r.setFrom(&r.names[i])
		return true
	}
	return false
}

// setFrom converts the kernel's address, unless it is that of the message before. A zone is looked up again when the
// names of the links were read anew.
func (r *reader) setFrom(name *unix.RawSockaddrInet6) {
	var zones *zoneTable
	if name.Scope_id != 0 {
		zones = r.socket.zones.current(time.Now())
	}
	if *name == r.lastName && zones == r.lastZones {
		return
	}
	r.lastName, r.lastZones, r.from = *name, zones, r.socket.addr(name)
}

// fill blocks for the next batch.
func (r *reader) fill() error {
	for i := range r.filled {
		r.rearm(i)
	}
	r.next, r.filled = 0, 0
	if err := r.socket.raw.Read(r.recv); err != nil {
		return plainError(err)
	}
	if r.errno != 0 {
		return os.NewSyscallError("recvmmsg", r.errno)
	}
	return nil
}

// receive is tried whenever the socket may be readable; false waits on.
func (r *reader) receive(fd uintptr) bool {
	for {
		n, errno := transfer(unix.SYS_RECVMMSG, fd, r.msgs[:])
		switch errno {
		case 0:
			r.filled, r.errno = n, 0
			return true
		case unix.EAGAIN:
			r.errno = 0
			return r.poll
		case unix.EINTR, unix.ECONNREFUSED, unix.ECONNRESET, unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.ENETUNREACH,
			unix.ENETDOWN, unix.ENETRESET, unix.EMSGSIZE, unix.EPROTO, unix.ENOPROTOOPT, unix.EACCES, unix.EPERM,
			unix.EOPNOTSUPP, unix.ETIMEDOUT:
			// An ICMP message about something sent; the kernel tells each once.
		default:
			r.errno = errno
			return true
		}
	}
}
