package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
)

func TestLightBecomesASocket(t *testing.T) {
	l, err := ListenLight(Config{Network: "udp4"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := ListenLight(Config{Network: "udp4"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	at := func(l *Light) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.Port()) }
	if err := other.Write(at(l), []byte("one")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := l.Read(buf)
	if err != nil || string(buf[:n]) != "one" || from != at(other) {
		t.Fatalf("%q from %v, %v", buf[:n], from, err)
	}
	if err := l.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("past the deadline: %v", err)
	}
	_ = l.SetReadDeadline(time.Time{})
	s := l.Socket()
	if err := other.Write(at(l), []byte("two")); err != nil {
		t.Fatal(err)
	}
	trains := make([]datagram.Train, 1)
	if n, err := s.ReadTrains(trains); err != nil || n != 1 || string(trains[0].Data) != "two" {
		t.Fatalf("%d trains, %v", n, err)
	}
	if err := s.WriteOne(at(other), Source{}, []byte("three")); err != nil {
		t.Fatal(err)
	}
	if n, _, err := other.Read(buf); err != nil || string(buf[:n]) != "three" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	s.Close()
	if _, _, err := l.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}
