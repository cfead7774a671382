package tunnel

import (
	"bytes"
	"io"
	"net/netip"
	"testing"
)

// BenchmarkTCP is one TCP flow between two userspace tunnels in one process: both netstacks and both ends' crypto.
func BenchmarkTCP(b *testing.B) {
	x, y, _ := pair(b)
	l, err := y.Listen("tcp", netip.AddrPortFrom(y.ip4, 80))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	received := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, c)
		received <- n
	}()
	c, err := x.Dial(b.Context(), "tcp", netip.AddrPortFrom(y.ip4, 80))
	if err != nil {
		b.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
	<-received
}
