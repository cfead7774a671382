//go:build !linux

package udp

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/meshnet/meshnet/internal/datagram"
)

// Socket is one bound UDP socket. One goroutine may read; any number may call everything else.
type Socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	v6   bool
	port uint16
	counters
	oob   []byte // owned by the reader
	whole []byte // takes a datagram for ReadTrains, from its first call on; owned by the reader

	writing sync.Mutex // a write deadline belongs to one Write at a time
	framed  []byte     // a head and its datagram; guarded by writing
}

// controlSpace takes the control messages of one datagram on every system.
const controlSpace = 128

// Listen opens a socket. The port is shared with nobody, and a udp6 socket takes IPv6 only.
func Listen(c Config) (*Socket, error) { return open(c) }

// equip does nothing: reading makes its memory.
func (s *Socket) equip() {}

func open(c Config) (*Socket, error) {
	conn, err := bind(c, nil)
	if err != nil {
		return nil, err
	}
	s := &Socket{conn: conn, v6: c.Network == "udp6", port: localPort(conn), oob: make([]byte, controlSpace)}
	if s.raw, err = conn.SyscallConn(); err != nil {
		conn.Close()
		return nil, err
	}
	setBuffer(conn.SetReadBuffer)
	setBuffer(conn.SetWriteBuffer)
	s.enablePktinfo()
	if err := s.SetDontFragment(true); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// setBuffer asks for less until the system agrees.
func setBuffer(set func(int) error) {
	for size := socketBuffer; size >= 256<<10; size /= 2 {
		if set(size) == nil {
			return
		}
	}
}

// enablePktinfo is best effort: Windows has it only by another way.
func (s *Socket) enablePktinfo() {
	if s.v6 {
		_ = ipv6.NewPacketConn(s.conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		return
	}
	_ = ipv4.NewPacketConn(s.conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
}

// ReadTrains blocks until a datagram is there and returns it as a train of one, in the socket's own memory; it returns 1
// when err is nil. The train is the caller's, to change too, until the next call. After Close it returns net.ErrClosed,
// past the read deadline os.ErrDeadlineExceeded. One call at a time.
func (s *Socket) ReadTrains(trains []datagram.Train) (int, error) {
	if len(trains) == 0 {
		return 0, nil
	}
	if s.whole == nil {
		s.whole = make([]byte, TrainSize)
	}
	for {
		n, oobn, flags, from, err := s.conn.ReadMsgUDPAddrPort(s.whole, s.oob)
		switch {
		case err != nil && truncated(err), err == nil && flags&flagTruncated != 0:
			s.rxTooLong.Add(1)
		case err != nil && (errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)):
			return 0, plainError(err)
		case err != nil && aboutEarlier(err):
		case err != nil:
			return 0, err
		case n == 0:
			s.rxEmpty.Add(1)
		default:
			t := datagram.Train{Data: s.whole[:n:n], Size: n}
			t.From.Addr = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			t.From.Local, t.From.IfIndex = s.arrival(s.oob[:oobn])
			trains[0] = t
			return 1, nil
		}
	}
}

// PollTrains is ReadTrains that does not wait: here it never finds anything.
func (s *Socket) PollTrains([]datagram.Train) (int, error) { return 0, nil }

// Keep leaves the caller the memory of the last train for good, and returns it; fresh, of TrainSize bytes, takes its
// place.
func (s *Socket) Keep(_ int, fresh []byte) (kept []byte) {
	kept, s.whole = s.whole, fresh
	return kept
}

func (s *Socket) arrival(oob []byte) (local netip.Addr, ifIndex int) {
	if len(oob) == 0 {
		return
	}
	if s.v6 {
		var m ipv6.ControlMessage
		if m.Parse(oob) == nil {
			local, _ = netip.AddrFromSlice(m.Dst)
			ifIndex = m.IfIndex
		}
		return local.Unmap(), ifIndex
	}
	var m ipv4.ControlMessage
	if m.Parse(oob) == nil {
		local, _ = netip.AddrFromSlice(m.Dst)
		ifIndex = m.IfIndex
	}
	return local.Unmap(), ifIndex
}

// Write sends pkts to one address. It takes at most 10 ms; what the send buffer does not take by then is dropped and
// counted, without an error. A source the host no longer has is replaced by the kernel's choice. pkts are borrowed
// for the call and not changed.
//
// ErrTooLarge tells that some of pkts did not fit and were left out; any other error that the rest of pkts was not
// sent.
func (s *Socket) Write(to netip.AddrPort, src Source, pkts [][]byte) error {
	if !to.IsValid() || to.Addr().Unmap().Is4() == s.v6 {
		return ErrFamily
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	oob := s.source(src)
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(maxBlock)) // fails on a closed socket, and so does the write
	if src.Fragment {
		_ = s.SetDontFragment(false) // where that cannot be said, nothing forbids fragments
		defer func() { _ = s.SetDontFragment(true) }()
	}
	var refused error
	for i, p := range pkts {
		p = s.frame(src.Head, p)
		_, _, err := s.conn.WriteMsgUDPAddrPort(p, oob, to)
		if err != nil && oob != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !truncated(err) {
			s.txNoSource.Add(1)
			oob = nil
			_, _, err = s.conn.WriteMsgUDPAddrPort(p, nil, to)
		}
		switch {
		case err == nil || aboutEarlier(err):
		case errors.Is(err, os.ErrDeadlineExceeded) || noBuffers(err):
			s.txFull.Add(uint64(len(pkts) - i))
			return refused
		case truncated(err):
			s.txTooLarge.Add(1)
			refused = ErrTooLarge
		default:
			return plainError(err)
		}
	}
	return refused
}

// frame puts the head before a datagram. Called with writing held.
func (s *Socket) frame(head uint64, pkt []byte) []byte {
	if head == 0 {
		return pkt
	}
	s.framed = append(binary.BigEndian.AppendUint64(s.framed[:0], head), pkt...)
	return s.framed
}

// WriteOne is Write of a single datagram. It needs no slice of them.
func (s *Socket) WriteOne(to netip.AddrPort, src Source, pkt []byte) error {
	return s.Write(to, src, [][]byte{pkt})
}

// source is src as a control message; nil when there is nothing to say or no way to say it.
func (s *Socket) source(src Source) []byte {
	if !pktinfoOut || !src.Addr.IsValid() && src.IfIndex == 0 || src.Addr.IsValid() && src.Addr.Unmap().Is4() == s.v6 {
		return nil
	}
	var ip net.IP
	if src.Addr.IsValid() {
		ip = src.Addr.Unmap().AsSlice()
	}
	if s.v6 {
		return (&ipv6.ControlMessage{Src: ip, IfIndex: src.IfIndex}).Marshal()
	}
	return (&ipv4.ControlMessage{Src: ip, IfIndex: src.IfIndex}).Marshal()
}

// SetDontFragment chooses between "don't fragment" (the state after Listen) and letting the host and, with IPv4,
// routers fragment.
func (s *Socket) SetDontFragment(on bool) error {
	var failed error
	err := s.raw.Control(func(fd uintptr) { failed = setDontFragment(fd, s.v6, on) })
	if err != nil {
		return plainError(err)
	}
	return failed
}

// SetMark does nothing: marks are Linux's.
func (s *Socket) SetMark(uint32) error { return nil }

// Port is the local port.
func (s *Socket) Port() uint16 { return s.port }

// SetReadDeadline makes ReadTrains return os.ErrDeadlineExceeded from t on, a blocked one too; the zero time lifts it.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// Close ends the socket and a blocked ReadTrains.
func (s *Socket) Close() error { return s.conn.Close() }

// Counters returns the totals.
func (s *Socket) Counters() Counters { return s.snapshot() }
