package udp

import (
	"net/netip"
	"time"
)

// Light is a socket that has no memory for trains yet: hundreds of them cost little more than their descriptors. One
// goroutine may read; any number may call everything else.
type Light struct{ s *Socket }

// ListenLight opens one. What it receives in trains (UDP_GRO) is cut off by Read: it is for single small datagrams.
func ListenLight(c Config) (*Light, error) {
	s, err := open(c)
	if err != nil {
		return nil, err
	}
	return &Light{s}, nil
}

// Read blocks until a datagram is there and copies as much of it as fits into buf. After Close it returns
// net.ErrClosed, past the read deadline os.ErrDeadlineExceeded; other errors may be about an earlier datagram.
func (l *Light) Read(buf []byte) (n int, from netip.AddrPort, err error) {
	n, from, err = l.s.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return 0, netip.AddrPort{}, plainError(err)
	}
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), nil
}

// Write sends a datagram. A full send buffer loses it.
func (l *Light) Write(to netip.AddrPort, pkt []byte) error {
	_ = l.s.conn.SetWriteDeadline(time.Now().Add(maxBlock)) // fails on a closed socket, and so does the write
	_, err := l.s.conn.WriteToUDPAddrPort(pkt, to)
	return plainError(err)
}

// Socket gives it the memory that trains take. The Light must not be read any more.
func (l *Light) Socket() *Socket {
	l.s.equip()
	_ = l.s.conn.SetWriteDeadline(time.Time{}) // of a closed socket, which is not written to
	return l.s
}

// Port is the local port.
func (l *Light) Port() uint16 { return l.s.port }

// SetReadDeadline makes Read return os.ErrDeadlineExceeded from t on, a blocked one too; the zero time lifts it.
func (l *Light) SetReadDeadline(t time.Time) error { return l.s.conn.SetReadDeadline(t) }

// Close ends the socket and a blocked Read.
func (l *Light) Close() error { return l.s.conn.Close() }
