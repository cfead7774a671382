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
	if err := transfer(dst, src); err != nil {
		dst.Close()
		src.Close()
		return
	}
	if h, ok := dst.(halfCloser); !ok || h.CloseWrite() != nil {
		dst.Close()
	}
}

// The buffer of one direction grows while reads fill it: a netstack's connection costs less by the byte the more it is
// given at a time, and most connections need little.
const (
	leastBuffer = 16 << 10
	mostBuffer  = 256 << 10
)

// transfer copies until src ends. Between two sockets of the system it leaves that to the kernel.
func transfer(dst, src net.Conn) error {
	_, to := dst.(*net.TCPConn)
	_, from := src.(*net.TCPConn)
	if to && from {
		_, err := io.Copy(dst, src)
		return err
	}
	for buf := make([]byte, leastBuffer); ; {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == len(buf) && n < mostBuffer:
			buf = make([]byte, 4*n)
		}
	}
}
