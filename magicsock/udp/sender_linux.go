package udp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendMessages = 64
	sendPieces   = 256
)

func pointer[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

// sender is the memory of one Write in progress. Owned by the goroutine that writes.
//
//	plan ─► sendmmsg ─► position moves by what was taken ─► plan …
//
// The plan is made anew after every system call, so a partial send needs no bookkeeping. A refusal concerns the first
// message of a plan; what it tells changes how the next plan is made (withoutSource, plain) or leaves a packet out.
type sender struct {
	socket  *Socket
	control func(fd uintptr) // made once: a closure a call would allocate

	pkts [][]byte // borrowed: from the caller of Write
	one  [1][]byte
	src  Source
	head [headSize]byte
	pos  int // packets done
	err  error
	full time.Time // when the send buffer was first full; zero before
	result
	plan

	name    unix.RawSockaddrInet6
	nameLen uint32
	poll    [1]unix.PollFd
}

// result is what refusals have told so far.
type result struct {
	withoutSource bool
	plain         bool       // no trains in this call any more
	suspect       unix.Errno // why: with this error the train was refused
	tooLarge      bool
}

// plan is the next system call.
type plan struct {
	msgs  [sendMessages]message
	iovs  [sendPieces]unix.Iovec
	ctls  [sendMessages]controlBuffer
	count [sendMessages]int // packets in each message
	n     int               // messages
	used  int               // of iovs
}

func newSender(s *Socket) *sender {
	w := &sender{socket: s}
	w.control = w.sendAll
	return w
}

func (w *sender) send(to netip.AddrPort, src Source, pkts [][]byte) error {
	s := w.socket
	if to.Addr().Unmap().Is4() == s.v6 || !to.IsValid() {
		return ErrFamily
	}
	var scope uint32
	if s.v6 {
		scope = s.zones.scope(to.Addr().Zone())
	}
	w.nameLen = putAddr(&w.name, to, s.v6, scope)
	w.pkts, w.src, w.pos, w.err, w.full = pkts, src, 0, nil, time.Time{}
	w.result = result{withoutSource: !usable(src, s.v6), plain: !s.gso.Load()}
	binary.BigEndian.PutUint64(w.head[:], src.Head)
	err := w.transmit(src.Fragment)
	w.pkts = nil
	switch {
	case err != nil:
		return plainError(err)
	case w.err != nil:
		return w.err
	case w.tooLarge:
		return ErrTooLarge
	}
	return nil
}

// transmit runs sendAll, with fragments allowed meanwhile where that is wanted.
func (w *sender) transmit(fragment bool) error {
	s := w.socket
	if !fragment || !s.df.Load() {
		return s.raw.Control(w.control)
	}
	s.fragmenting.Lock()
	defer s.fragmenting.Unlock()
	w.plain = true // a segment has to fit the link
	if err := s.SetDontFragment(false); err != nil {
		return err
	}
	err := s.raw.Control(w.control)
	return errors.Join(err, s.SetDontFragment(true))
}

// usable reports whether src says something to a socket of the family.
func usable(src Source, v6 bool) bool {
	if src.Addr.IsValid() && src.Addr.Unmap().Is4() == v6 {
		return false
	}
	return src.Addr.IsValid() || src.IfIndex != 0
}

// sendAll runs with the descriptor held open and never waits for longer than maxBlock.
func (w *sender) sendAll(fd uintptr) {
	for w.pos < len(w.pkts) {
		w.prepare()
		n, errno := transfer(unix.SYS_SENDMMSG, fd, w.msgs[:w.n])
		if errno != 0 {
			w.release()
			if !w.refused(fd, errno) {
				return
			}
			continue
		}
		w.taken(n)
		w.release()
	}
}

// taken moves on by the n messages that the kernel took.
func (w *sender) taken(n int) {
	for i := range n {
		w.pos += w.count[i]
	}
	// The same packets went through one by one: it was the train that the kernel or the card does not like. With
	// fragments allowed it may as well have been the size of its segments.
	if w.suspect == unix.EINVAL && w.socket.df.Load() {
		w.socket.gso.Store(false)
	}
	w.suspect = 0
}

// refused decides what to do about the first message of the plan; false ends the call.
func (w *sender) refused(fd uintptr, errno unix.Errno) bool {
	train := w.count[0] > 1
	switch {
	case errno == unix.EINTR || errno == unix.ECONNREFUSED: // the second is about an earlier datagram
		return true
	case errno == unix.EAGAIN:
		return w.wait(fd)
	case errno == unix.ENOBUFS:
		return w.drop()
	case train && errno == unix.EIO:
		w.socket.gso.Store(false)
		w.plain = true
		return true
	case train && (errno == unix.EINVAL || errno == unix.EMSGSIZE):
		w.plain, w.suspect = true, errno
		return true
	case !w.withoutSource && sourceGone(errno):
		w.withoutSource = true
		w.plain, w.suspect = !w.socket.gso.Load(), 0 // the train was blameless
		w.socket.txNoSource.Add(1)
		return true
	case errno == unix.EMSGSIZE:
		w.suspect = 0
		w.tooLarge = true
		w.socket.txTooLarge.Add(1)
		w.pos++
		return true
	}
	w.err = os.NewSyscallError("sendmmsg", errno)
	return false
}

// sourceGone: the address (EADDRNOTAVAIL, EINVAL) or the link (ENODEV, ENXIO) left the host, or the link lost its
// route (ENETUNREACH).
func sourceGone(errno unix.Errno) bool {
	switch errno {
	case unix.EADDRNOTAVAIL, unix.EINVAL, unix.ENODEV, unix.ENXIO, unix.ENETUNREACH:
		return true
	}
	return false
}

// wait blocks until the send buffer has room; false when the call's time is over.
func (w *sender) wait(fd uintptr) bool {
	now := time.Now()
	if w.full.IsZero() {
		w.full = now
	}
	left := maxBlock - now.Sub(w.full)
	if left <= 0 {
		return w.drop()
	}
	w.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
	ms := int((left + time.Millisecond - 1) / time.Millisecond)
	_, _ = unix.Poll(w.poll[:], ms) // whatever it says, the next attempt knows better
	return true
}

func (w *sender) drop() bool {
	w.socket.txFull.Add(uint64(len(w.pkts) - w.pos))
	return false
}

// prepare plans as many messages as one system call takes, from position on.
func (w *sender) prepare() {
	maxBytes := maxTrain4
	if w.socket.v6 {
		maxBytes = maxTrain6
	}
	pieces := 1 // of a datagram
	if w.src.Head != 0 {
		maxBytes -= maxSegments * headSize
		pieces = 2
	}
	w.n, w.used = 0, 0
	for rest := w.pkts[w.pos:]; len(rest) > 0 && w.n < sendMessages; {
		n := 1
		if !w.plain {
			n = run(rest, maxBytes)
		}
		if w.used+n*pieces > sendPieces {
			return
		}
		w.message(rest[:n])
		rest = rest[n:]
	}
}

// message appends one message that gathers pkts from where they are.
func (w *sender) message(pkts [][]byte) {
	i := w.n
	iovs := w.gather(pkts)
	h := &w.msgs[i].hdr
	h.Name, h.Namelen = (*byte)(pointer(&w.name)), w.nameLen
	h.Iov = &iovs[0]
	h.SetIovlen(len(iovs))
	segment := 0
	if len(pkts) > 1 {
		segment = len(pkts[0])
		if w.src.Head != 0 {
			segment += headSize
		}
	}
	h.Control = nil
	size := w.putControl(&w.ctls[i], segment)
	if size > 0 {
		h.Control = (*byte)(pointer(&w.ctls[i]))
	}
	h.SetControllen(size)
	w.count[i] = len(pkts)
	w.n++
	w.used += len(iovs)
}

// gather describes where a message's pieces are, from the next free one on.
func (w *sender) gather(pkts [][]byte) []unix.Iovec {
	iovs := w.iovs[w.used:]
	if w.src.Head == 0 {
		return iovs[:gather(iovs, pkts)]
	}
	for i, p := range pkts {
		iovs[2*i].Base = &w.head[0]
		iovs[2*i].SetLen(headSize)
		iovs[2*i+1].Base = unsafe.SliceData(p)
		iovs[2*i+1].SetLen(len(p))
	}
	return iovs[:2*len(pkts)]
}

// gather describes where pkts are and returns how many pieces of memory that is: what lies one behind the other, as in
// an arena that was sealed in place, is one. The kernel reads no byte outside of pkts, all of which the caller holds.
func gather(iovs []unix.Iovec, pkts [][]byte) (n int) {
	end := uintptr(0)
	size := 0
	for _, p := range pkts {
		base := unsafe.SliceData(p)
		if at := uintptr(unsafe.Pointer(base)); n > 0 && at == end {
			size += len(p)
			end += uintptr(len(p))
		} else {
			iovs[n].Base = base
			size, end = len(p), at+uintptr(len(p))
			n++
		}
		iovs[n-1].SetLen(size)
	}
	return n
}

// putControl writes the source and the segment size, and returns the bytes used.
func (w *sender) putControl(c *controlBuffer, segment int) (at int) {
	b := c.bytes()
	var data []byte
	if !w.withoutSource {
		if w.socket.v6 {
			at, data = appendControl(b, at, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
			putSource6(data, w.src)
		} else {
			at, data = appendControl(b, at, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
			putSource4(data, w.src)
		}
	}
	if w.src.Ahead {
		level, kind := int32(unix.IPPROTO_IP), int32(unix.IP_TOS)
		if w.socket.v6 {
			level, kind = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		}
		at, data = appendControl(b, at, level, kind, 4)
		binary.NativeEndian.PutUint32(data, aheadTOS)
	}
	if segment > 0 {
		at, data = appendControl(b, at, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(data, uint16(segment))
	}
	return at
}

func putSource4(data []byte, src Source) {
	clear(data)
	binary.NativeEndian.PutUint32(data, uint32(src.IfIndex))
	if src.Addr.IsValid() {
		a := src.Addr.Unmap().As4()
		copy(data[4:8], a[:]) // ipi_spec_dst
	}
}

func putSource6(data []byte, src Source) {
	clear(data)
	if src.Addr.IsValid() {
		a := src.Addr.As16()
		copy(data[:16], a[:])
	}
	binary.NativeEndian.PutUint32(data[16:], uint32(src.IfIndex))
}

// release forgets the caller's memory.
func (w *sender) release() { clear(w.iovs[:w.used]) }
