package proxy

import (
	"io"
	"net"
	"sync"
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
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		src.Close()
		return
	}
	if h, ok := dst.(halfCloser); !ok || h.CloseWrite() != nil {
		dst.Close()
	}
}
