package relay

import (
	"crypto/tls"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// wrapped is a connection that tells what it wraps.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// TestLimitUnsent finds the socket below TLS and other wrappers.
func TestLimitUnsent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	LimitUnsent(wrapped{tls.Client(wrapped{conn}, &tls.Config{InsecureSkipVerify: true})})
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	raw.Control(func(fd uintptr) {
		got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
	})
	if err != nil || got != unsentBytes {
		t.Errorf("limit %d: %v", got, err)
	}
	near, far := net.Pipe()
	LimitUnsent(near)
	near.Close()
	far.Close()
}
