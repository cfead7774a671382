package proxy

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// TestPipeLarge: whatever the connections are, much arrives as it was sent, both ways.
func TestPipeLarge(t *testing.T) {
	data := make([]byte, 3<<20+1)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	sockets := func() (a, b net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		if b, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	for name, makers := range map[string][2]func() (a, b net.Conn){
		"sockets":          {sockets, sockets},
		"in memory":        {net.Pipe, net.Pipe},
		"one of each":      {sockets, net.Pipe},
		"the other way up": {net.Pipe, sockets},
	} {
		client, near := makers[0]()
		far, target := makers[1]()
		done := make(chan struct{})
		go func() {
			defer close(done)
			Pipe(near, far)
		}()
		for _, ends := range [][2]net.Conn{{client, target}, {target, client}} {
			go func() { _, _ = ends[0].Write(data) }()
			h := sha256.New()
			n, err := io.CopyN(h, ends[1], int64(len(data)))
			want := sha256.Sum256(data)
			if err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
				t.Errorf("%s: %d of %d bytes, %v", name, n, len(data), err)
			}
		}
		_ = client.Close()
		_ = target.Close()
		<-done
	}
}
