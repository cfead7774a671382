package proxy

import (
	"io"
	"net"
	"sync"

	"github.com/meshnet/meshnet/internal/stream"
)

// halfCloser is a connection that can say that it said all: *net.TCPConn, *tls.Conn, netstack's.
type halfCloser interface{ CloseWrite() error }

// Pipe copies from each connection to the other until both have ended, then closes both. The end of one direction is
// passed on by CloseWrite and leaves the other open; a connection without CloseWrite is closed instead. An error ends
// both directions at once.
func Pipe(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { flow(a, b) })
	flow(b, a)
	wg.Wait()
	a.Close()
	b.Close()
}

// flow copies from src to dst until src ends.
func flow(dst, src net.Conn) {
	if err := transfer(dst, src); err != nil {
		dst.Close()
		src.Close()
		return
	}
	if h, ok := dst.(halfCloser); !ok || h.CloseWrite() != nil {
		dst.Close()
	}
}

// transfer copies until src ends. Between two sockets of the system it leaves that to the kernel.
func transfer(dst, src net.Conn) error {
	_, to := dst.(*net.TCPConn)
	_, from := src.(*net.TCPConn)
	if to && from {
		_, err := io.Copy(dst, src)
		return err
	}
	return stream.Copy(dst, src)
}
