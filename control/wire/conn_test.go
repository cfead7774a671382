package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type note struct {
	Text string `cbor:"0,keyasint"`
}

func pair() (a, b *Conn) {
	x, y := net.Pipe()
	return New(x, time.Minute, time.Minute), New(y, time.Minute, time.Minute)
}

func TestRoundTripSplitAtEveryByte(t *testing.T) {
	a, b := pair()
	var sent bytes.Buffer
	go func() {
		a.WritePreface(KindJoin)
		a.WriteMessage(7, &note{"hello"})
		a.Close()
	}()
	io.Copy(&sent, b.Conn)
	for cut := 1; cut < sent.Len(); cut++ {
		a, b := pair()
		go func() {
			a.Conn.Write(sent.Bytes()[:cut])
			a.Conn.Write(sent.Bytes()[cut:])
		}()
		if k, err := b.ReadPreface(); k != KindJoin || err != nil {
			t.Fatalf("cut at %d: preface %v, %v", cut, k, err)
		}
		if typ, body, err := b.ReadMessage(); typ != 7 || err != nil || !bytes.Contains(body, []byte("hello")) {
			t.Fatalf("cut at %d: %v %q %v", cut, typ, body, err)
		}
		a.Close()
		b.Close()
	}
}

func TestBadLengths(t *testing.T) {
	for _, size := range []uint32{0, 1, MaxFrame + 1, 1<<32 - 1} {
		a, b := pair()
		go a.Conn.Write(append(binary.BigEndian.AppendUint32(nil, size), 0, 0))
		if _, _, err := b.ReadMessage(); !errors.Is(err, ErrFrame) {
			t.Errorf("length %d: %v, want ErrFrame", size, err)
		}
		a.Close()
		b.Close()
	}
	a, _ := pair()
	if err := a.WriteRaw(1, make([]byte, MaxFrame)); !errors.Is(err, ErrFrame) {
		t.Errorf("too large a frame was written: %v", err)
	}
}

func TestPrefaceRefusals(t *testing.T) {
	for _, c := range []struct {
		preface string
		want    error
	}{
		{"GET / HT", ErrPreface},
		{"mesh\x02\x01\x00\x00", ErrVersion},
		{"mesh\x01\x01\x00\x01", ErrPreface},
		{"mes", io.ErrUnexpectedEOF},
	} {
		a, b := pair()
		go func() {
			a.Conn.Write([]byte(c.preface))
			a.Close()
		}()
		if _, err := b.ReadPreface(); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.preface, err, c.want)
		}
		b.Close()
	}
}

// TestSlowSender sends a frame a byte at a time: the deadline holds for the frame, not for each byte.
func TestSlowSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair()
		var wg sync.WaitGroup
		defer wg.Wait()
		defer b.Close()
		wg.Go(func() {
			for _, c := range append([]byte{0, 0, 0, 200, 0, 1}, make([]byte, 198)...) {
				time.Sleep(time.Second)
				if _, err := a.Conn.Write([]byte{c}); err != nil {
					return
				}
			}
		})
		start := time.Now()
		_, _, err := b.ReadMessage()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("err = %v", err)
		}
		if took := time.Since(start); took > 61*time.Second {
			t.Fatalf("held for %v", took)
		}
	})
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 0, 1, 0xa0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := pair()
		go func() {
			a.Conn.Write(data)
			a.Close()
		}()
		typ, body, err := b.ReadMessage()
		b.Close()
		if err == nil && (len(body)+6 > len(data) || typ != Type(binary.BigEndian.Uint16(data[4:]))) {
			t.Fatalf("read %d bytes of type %d from %x", len(body), typ, data)
		}
	})
}
