package udp

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
)

// Socket is one bound UDP socket. One goroutine may read; any number may call everything else.
type Socket struct {
	conn  *net.UDPConn // as long as own is nil
	own   *descriptor
	raw   raw // of either
	v6    bool
	port  uint16
	gro   bool
	gso   atomic.Bool // cleared for ever when the kernel refuses a train
	df    atomic.Bool
	zones zones
	counters
	reader  *reader
	senders chan *sender // idle ones; a writer that finds none makes one

	fragmenting sync.Mutex // held while a call has its datagrams fragmented
}

// raw runs system calls on a socket's descriptor.
type raw interface {
	Control(f func(fd uintptr)) error
	Read(f func(fd uintptr) (done bool)) error
}

// idleSenders bounds the memory kept for writers: a sender is about 15 KiB.
const idleSenders = 8

// Listen opens a socket. The port is shared with nobody, and a udp6 socket takes IPv6 only.
func Listen(c Config) (*Socket, error) {
	s, err := open(c)
	if err != nil {
		return nil, err
	}
	s.equip()
	if s.own, err = detach(s.conn, s.raw); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("listen %s: %w", c.Network, err)
	}
	s.raw = s.own
	return s, nil
}

// equip makes the memory of a socket that is read in trains.
func (s *Socket) equip() { s.reader = newReader(s) }

// open opens a socket that has none yet.
func open(c Config) (*Socket, error) {
	s := &Socket{v6: c.Network == "udp6", senders: make(chan *sender, idleSenders)}
	conn, err := bind(c, s.control(c.Mark))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("listen %s: %w", c.Network, err)
	}
	s.conn, s.raw, s.port = conn, raw, localPort(conn)
	return s, nil
}

// control sets the options between socket and bind.
func (s *Socket) control(mark uint32) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = s.configure(int(fd), mark) })
		if err != nil {
			return err
		}
		return failed
	}
}

// ReadTrains blocks until a datagram is there and returns how many trains, at least 1 when err is nil, in order of
// arrival. Each is what the kernel put together (UDP_GRO) and lies in the socket's own memory. It is the caller's, to
// change too, until the next call. What has no place in trains is returned by the next call. After Close it returns
// net.ErrClosed, past the read deadline os.ErrDeadlineExceeded. One call at a time.
func (s *Socket) ReadTrains(trains []datagram.Train) (int, error) {
	return s.reader.readTrains(trains, false)
}

// PollTrains is ReadTrains that does not wait: it returns 0 and nil when there is nothing.
func (s *Socket) PollTrains(trains []datagram.Train) (int, error) {
	return s.reader.readTrains(trains, true)
}

// Keep leaves the caller the memory of train i of the last read for good, and returns all of it; fresh, of TrainSize
// bytes, takes its place.
func (s *Socket) Keep(i int, fresh []byte) (kept []byte) {
	at := s.reader.handed[i]
	kept = s.reader.buffers[at]
	s.reader.put(at, fresh)
	return kept
}

// Write sends pkts to one address. It takes at most 10 ms; what the send buffer does not take by then is dropped and
// counted, without an error. A source the host no longer has is replaced by the kernel's choice. pkts are borrowed
// for the call and not changed.
//
// ErrTooLarge tells that some of pkts did not fit and were left out; any other error that the rest of pkts was not
// sent.
func (s *Socket) Write(to netip.AddrPort, src Source, pkts [][]byte) error {
	if len(pkts) == 0 {
		return nil
	}
	w := s.borrowSender()
	err := w.send(to, src, pkts)
	s.returnSender(w)
	return err
}

// WriteOne is Write of a single datagram. It needs no slice of them.
func (s *Socket) WriteOne(to netip.AddrPort, src Source, pkt []byte) error {
	w := s.borrowSender()
	w.one[0] = pkt
	err := w.send(to, src, w.one[:])
	w.one[0] = nil
	s.returnSender(w)
	return err
}

func (s *Socket) borrowSender() *sender {
	select {
	case w := <-s.senders:
		return w
	default:
		return newSender(s)
	}
}

func (s *Socket) returnSender(w *sender) {
	select {
	case s.senders <- w:
	default: // enough are idle
	}
}

// Port is the local port.
func (s *Socket) Port() uint16 { return s.port }

// SetReadDeadline makes ReadTrains return os.ErrDeadlineExceeded from t on, a blocked one too; the zero time lifts it.
func (s *Socket) SetReadDeadline(t time.Time) error {
	if s.own != nil {
		return s.own.setDeadline(t)
	}
	return s.conn.SetReadDeadline(t)
}

// Close ends the socket and a blocked ReadTrains.
func (s *Socket) Close() error {
	if s.own != nil {
		return s.own.Close()
	}
	return s.conn.Close()
}

// Counters returns the totals.
func (s *Socket) Counters() Counters {
	c := s.snapshot()
	c.GSO, c.GRO = s.gso.Load(), s.gro
	return c
}
