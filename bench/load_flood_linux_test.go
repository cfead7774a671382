package main

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/internal/netlab"
	"github.com/meshnet/meshnet/magicsock/disco"
	"github.com/meshnet/meshnet/magicsock/hop"
)

// Packets of every kind are what they are to be taken for, and no two are the same.
func TestForeignPackets(t *testing.T) {
	for _, kind := range floodKinds() {
		pkts := foreignPackets([]string{kind}, 100)
		for i, p := range pkts {
			if len(p) == 0 || len(p) > floodMost || i > 0 && slices.Equal(p, pkts[i-1]) {
				t.Fatalf("%s: packet %d is %x", kind, i, p)
			}
			var ok bool
			switch kind {
			case floodSTUN:
				ok = len(p) == 32 && p[0] == 1 && p[1] == 1 && p[4] == 0x21 && p[5] == 0x12 && p[6] == 0xA4 && p[7] == 0x42
			case floodDisco:
				_, err := disco.PacketTag(p)
				ok = err == nil
			case floodFrames:
				sid, n := hop.Run(p, len(p))
				ok = n == len(p) && sid != 0
			case floodRandom:
				ok = true
			}
			if !ok {
				t.Errorf("%s: packet %d is not one: %x", kind, i, p[:min(len(p), 40)])
			}
		}
	}
	mixed := foreignPackets(floodKinds(), 8)
	if _, n := hop.Run(mixed[3], len(mixed[3])); n == 0 {
		t.Error("not all kinds take turns")
	}
}

// A flood arrives, at about its rate, from many addresses.
func TestFlooder(t *testing.T) {
	sink, err := udpSocket()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sink)
	if err := unix.Bind(sink, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(sink)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(own.(*unix.SockaddrInet4).Port))
	f, err := newFlooder(to, foreignPackets(floodKinds(), 50))
	netlab.Need(t, err == nil, "a flood has addresses that are not the host's, which takes root")
	defer f.close()
	sent, err := pace(2000, 50*time.Millisecond, f.send)
	if err != nil || sent < 20 || sent > 200 {
		t.Fatalf("%d packets sent, %v", sent, err)
	}
	from, buf := make(map[[4]byte]bool), make([]byte, 2048)
	for range sent {
		_, sa, err := unix.Recvfrom(sink, buf, unix.MSG_DONTWAIT)
		if err != nil {
			t.Fatal(err)
		}
		from[sa.(*unix.SockaddrInet4).Addr] = true
	}
	if len(from) < 5 {
		t.Errorf("from %d addresses", len(from))
	}
}
