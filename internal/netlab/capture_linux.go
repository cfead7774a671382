package netlab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// Frame is one captured frame, from its link header on; on a TUN, which has none, from its IP header on.
type Frame struct {
	At       time.Time // when it was read, not before it passed
	Outgoing bool      // sent by the host
	Data     []byte
}

// Capture records every frame of an interface, both ways. Frames are complete: segments that the kernel would cut
// later (TSO, UDP_SEGMENT) are one large frame. Guarded by mu.
type Capture struct {
	host  *Host
	iface string
	file  *os.File
	ended chan struct{}

	mu      sync.Mutex
	buf     []byte
	frames  []Frame
	stopped bool
}

// Capture starts to record the frames of an interface of the host, until Stop or the test's end.
func (h *Host) Capture(iface string) *Capture {
	h.lab.t.Helper()
	c := &Capture{host: h, iface: iface, ended: make(chan struct{}), buf: make([]byte, 1<<18)}
	h.must("capture "+iface, h.Do(func() (err error) {
		c.file, err = packetSocket(h.link(iface).Attrs().Index)
		return err
	}))
	h.lab.own(c)
	go c.run() // ends in Stop
	return c
}

// packetSocket opens a socket for all frames of an interface. It is bound before it gets any protocol, so that no
// frame of another interface slips in between.
func packetSocket(ifindex int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err == nil {
		all := binary.NativeEndian.Uint16(binaryutil.BigEndian.PutUint16(unix.ETH_P_ALL)) // in network order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// Packets are the frames that have passed so far. They must not be changed.
func (c *Capture) Packets() []Frame {
	c.drain()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames[:len(c.frames):len(c.frames)]
}

// Contains reports whether any frame so far holds text. Text that lies across two frames is not found.
func (c *Capture) Contains(text []byte) bool {
	for _, f := range c.Packets() {
		if bytes.Contains(f.Data, text) {
			return true
		}
	}
	return false
}

// Stop ends the recording; what was recorded stays. Frames lost for want of buffer fail the test, since "it was
// not seen" would mean nothing then. It may be called twice.
func (c *Capture) Stop() {
	c.host.lab.t.Helper()
	if err := c.Close(); err != nil {
		c.host.lab.t.Errorf("netlab: %v", err)
	}
}

// Close is Stop for the lab.
func (c *Capture) Close() error {
	c.mu.Lock()
	stopped := c.stopped
	c.stopped = true
	c.mu.Unlock()
	if stopped {
		return nil
	}
	c.drain()
	lost := c.lost()
	c.file.Close()
	<-c.ended
	c.host.lab.disown(c)
	if lost > 0 {
		return fmt.Errorf("capture of %s on %s lost %d frames", c.iface, c.host.name, lost)
	}
	return nil
}

// run keeps the socket's buffer empty.
func (c *Capture) run() {
	defer close(c.ended)
	rc, err := c.file.SyscallConn()
	for err == nil {
		err = rc.Read(func(fd uintptr) bool {
			return c.take(int(fd)) > 0 // false waits for more
		})
	}
}

// drain takes what has already passed but was not read yet: a frame is in the socket's buffer before the call that
// sent it returns.
func (c *Capture) drain() {
	if rc, err := c.file.SyscallConn(); err == nil {
		// A closed file has nothing more to give.
		_ = rc.Control(func(fd uintptr) { c.take(int(fd)) })
	}
}

// take reads all that is there and returns how many frames that were.
func (c *Capture) take(fd int) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		size, from, err := unix.Recvfrom(fd, c.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n
		}
		f := Frame{At: time.Now(), Data: bytes.Clone(c.buf[:size])}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			f.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
		}
		c.frames = append(c.frames, f)
		n++
	}
}

func (c *Capture) lost() (n uint32) {
	rc, err := c.file.SyscallConn()
	if err != nil {
		return 0
	}
	_ = rc.Control(func(fd uintptr) {
		if s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			n = s.Drops
		}
	})
	return n
}
