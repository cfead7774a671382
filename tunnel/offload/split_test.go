package offload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestSum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		b, start := randomBytes(r, r.IntN(300)), r.Uint64()
		if r.IntN(4) == 0 {
			for i := range b {
				b[i] = 0xff
			}
		}
		var two [2]byte
		binary.NativeEndian.PutUint16(two[:], fold(sum(b, start)))
		var s [8]byte
		binary.NativeEndian.PutUint64(s[:], start)
		want := naiveFold(naiveSum(b) + naiveSum(s[:]))
		if got := binary.BigEndian.Uint16(two[:]); got%0xffff != want%0xffff {
			t.Fatalf("sum of %x and %x is %x, want %x", b, start, got, want)
		}
	}
}

func TestSplitRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 3000 {
		s := spec{
			v6: r.IntN(2) == 0, udp: r.IntN(2) == 0, seq: r.Uint32(), flags: uint8(r.Uint32()) | tcpACK,
			id: uint16(r.Uint32()), frag: fragDF * uint16(r.IntN(2)), tcpOpts: 4 * r.IntN(11), ipOpts: 8 * r.IntN(3),
			payload: randomBytes(r, r.IntN(9000)),
		}
		if i%5 == 0 {
			s.payload = s.payload[:min(len(s.payload), r.IntN(3))]
		}
		size := 1 + r.IntN(1500)
		if i%3 == 0 && len(s.payload) > size { // no short one at the end
			s.payload = s.payload[:len(s.payload)/size*size]
		}
		want := naiveSplit(s.build(), size)
		buf := s.super(size)
		binary.NativeEndian.PutUint16(buf[2:], uint16(r.Uint32())) // hdr_len says nothing
		if !s.udp && r.IntN(2) == 0 {
			buf[1] |= gsoECN
		}
		samePackets(t, splitAll(t, buf), want)
		if s.ipOpts > 0 && s.v6 {
			continue
		}
		buf = s.super(size) // received by a network card that has verified it, and forwarded
		buf[0] = 2
		clear(buf[6:10])
		samePackets(t, splitAll(t, buf), want)
	}
}

func TestSplitFlags(t *testing.T) {
	s := spec{flags: tcpCWR | tcpACK | tcpPSH | tcpFIN, payload: make([]byte, 250)}
	var got []uint8
	for _, p := range splitAll(t, s.super(100)) {
		got = append(got, p[33])
	}
	if want := []uint8{tcpCWR | tcpACK, tcpACK, tcpACK | tcpPSH | tcpFIN}; !bytes.Equal(got, want) {
		t.Errorf("flags %x, want %x", got, want)
	}
}

// TestSplitWhole: packets that are no superpackets come out as they are, with their checksum completed.
func TestSplitWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		s := spec{
			v6: r.IntN(2) == 0, udp: r.IntN(2) == 0, flags: tcpACK, ipOpts: 8 * r.IntN(2),
			payload: randomBytes(r, r.IntN(2000)),
		}
		want := s.build()
		samePackets(t, splitAll(t, append(make([]byte, HeaderLen), want...)), [][]byte{want})
		buf := s.super(0)
		buf[1] = gsoNone
		samePackets(t, splitAll(t, buf), [][]byte{want})
	}
	// ICMPv6, which has a pseudo header too, with an odd length.
	p := spec{v6: true, udp: true, payload: []byte("odd")}.build()
	p[6] = 58
	copy(p[40:], []byte{128, 0, 0, 0})
	want := bytes.Clone(p)
	pseudo := naiveSum(p[8:40]) + 58 + uint64(len(p)-40)
	binary.BigEndian.PutUint16(want[42:], ^naiveFold(pseudo+naiveSum(p[40:])))
	binary.BigEndian.PutUint16(p[42:], naiveFold(pseudo))
	buf := make([]byte, HeaderLen)
	header{flags: flagNeedsCsum, csumStart: 40, csumOffset: 2}.put(buf)
	samePackets(t, splitAll(t, append(buf, p...)), [][]byte{want})
}

func TestSplitRefuses(t *testing.T) {
	tcp := spec{flags: tcpACK, payload: make([]byte, 3000)}
	six := spec{v6: true, flags: tcpACK, payload: make([]byte, 3000)}
	udp := spec{udp: true, payload: make([]byte, 3000)}
	set16 := func(at int, v uint16) func(b []byte) []byte {
		return func(b []byte) []byte {
			binary.NativeEndian.PutUint16(b[at:], v)
			return b
		}
	}
	set8 := func(at int, v byte) func(b []byte) []byte {
		return func(b []byte) []byte {
			b[at] = v
			return b
		}
	}
	cut := func(n int) func(b []byte) []byte { return func(b []byte) []byte { return b[:n] } }
	for _, tt := range []struct {
		name   string
		from   spec
		change func(b []byte) []byte
		want   error
	}{
		{"intact", tcp, set8(2, 0), nil},
		{"empty", tcp, cut(0), ErrMalformed},
		{"header only", tcp, cut(10), ErrMalformed},
		{"short IPv4", tcp, cut(29), ErrMalformed},
		{"short IPv6", six, cut(49), ErrMalformed},
		{"short TCP", tcp, cut(49), ErrMalformed},
		{"short UDP", udp, cut(36), ErrMalformed},
		{"TCP options cut off", spec{flags: tcpACK, tcpOpts: 12}, cut(61), ErrMalformed},
		{"not IP", tcp, set8(10, 0x25), ErrMalformed},
		{"IHL of 16", tcp, set8(10, 0x44), ErrMalformed},
		{"IHL beyond the options", tcp, set8(10, 0x46), ErrMalformed},
		{"data offset of 16", tcp, set8(42, 0x40), ErrMalformed},
		{"segments of nothing", tcp, set16(4, 0), ErrMalformed},
		{"checksum in the addresses", tcp, set16(6, 12), ErrMalformed},
		{"checksum behind the end", tcp, set16(6, 3039), ErrMalformed},
		{"checksum offset behind the end", tcp, set16(8, 65535), ErrMalformed},
		{"a fragment", tcp, set8(16, 0x20), ErrMalformed},
		{"IPv6 as TSO4", six, set8(1, gsoTCP4), ErrUnsupported},
		{"IPv4 as TSO6", tcp, set8(1, gsoTCP6), ErrUnsupported},
		{"UFO", udp, set8(1, 3), ErrUnsupported},
		{"UDP with ECN", udp, set8(1, gsoUDPL4|gsoECN), ErrUnsupported},
		{"an inner segmentation", tcp, set8(1, gsoTCP4|0x20), ErrUnsupported},
	} {
		var s Split
		err := s.Start(tt.change(tt.from.super(1000)))
		if !errors.Is(err, tt.want) || (err == nil) != (s.Size() > 0) {
			t.Errorf("%s: %v, Size %d, want %v", tt.name, err, s.Size(), tt.want)
		}
	}
}

func TestSplitLargest(t *testing.T) {
	for _, tt := range []struct {
		from spec
		size int
		ok   bool
	}{
		{spec{udp: true, payload: make([]byte, 65535-28)}, 65535, true},
		{spec{udp: true, v6: true, payload: make([]byte, 65535-8)}, 65535, true},
		{spec{udp: true, payload: make([]byte, 65535-27)}, 65535, false},
		{spec{udp: true, v6: true, payload: make([]byte, 65535-7)}, 65535, false},
		{spec{udp: true, payload: make([]byte, 65535-27)}, 65000, true},
	} {
		buf := tt.from.super(tt.size)
		var s Split
		if err := s.Start(buf); (err == nil) != tt.ok {
			t.Errorf("%d bytes in segments of %d: %v", len(buf), tt.size, err)
		}
	}
}

func TestHeader(t *testing.T) {
	if Header(make([]byte, HeaderLen)) != nil || Header(nil) != nil {
		t.Error("a packet in nothing")
	}
	if p := Header([]byte("0123456789packet")); string(p) != "packet" {
		t.Errorf("Header is %q", p)
	}
	s := spec{udp: true, payload: make([]byte, 200)}
	if Super(nil) || Super(append(make([]byte, HeaderLen), s.build()...)) || !Super(s.super(100)) {
		t.Error("Super is wrong")
	}
}

func TestSplitAllocations(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	buf, dst := spec{flags: tcpACK, payload: make([]byte, 60000)}.super(1400), make([]byte, 2000)
	keep := bytes.Clone(buf)
	var s Split
	if n := testing.AllocsPerRun(100, func() {
		copy(buf, keep)
		if s.Start(buf) != nil {
			t.Error("refused")
		}
		for s.Fill(dst) > 0 {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSplit: no read makes it panic or write beyond what it said, and what a superpacket gives has the addresses that
// Header showed.
func FuzzSplit(f *testing.F) {
	f.Add(spec{flags: tcpACK, payload: make([]byte, 300)}.super(100))
	f.Add(spec{v6: true, flags: tcpACK, ipOpts: 8, tcpOpts: 12, payload: make([]byte, 300)}.super(100))
	f.Add(spec{udp: true, payload: make([]byte, 300)}.super(100))
	f.Add(spec{v6: true, udp: true, payload: make([]byte, 300)}.super(7))
	f.Add(append(make([]byte, HeaderLen), spec{udp: true}.build()...))
	f.Fuzz(func(t *testing.T, buf []byte) {
		if len(buf) > MaxRead {
			return
		}
		var s Split
		before := bytes.Clone(buf)
		if err := s.Start(buf); err != nil {
			if s.Size() != 0 || s.Fill(nil) != 0 {
				t.Fatal("packets after an error")
			}
			return
		}
		dst := make([]byte, MaxRead)
		for total := 0; s.Size() > 0; {
			n := s.Size()
			dst[n] = 0xa5
			if s.Fill(dst) != n || dst[n] != 0xa5 {
				t.Fatal("more than Size said")
			}
			if !sameHosts(dst[:n], Header(before)) {
				t.Fatal("other addresses")
			}
			if total += n; total > 64<<20 {
				t.Fatal("no end")
			}
		}
	})
}

// TestPacketSize compares with the packets that a Split makes.
func TestPacketSize(t *testing.T) {
	for _, s := range []spec{{}, {v6: true}, {udp: true}, {v6: true, udp: true}, {tcpOpts: 12}, {v6: true, tcpOpts: 20}, {ipOpts: 8}} {
		for _, n := range []int{0, 100, 5000} {
			s.payload = make([]byte, n)
			buf := s.super(1000)
			var split Split
			if err := split.Start(bytes.Clone(buf)); err != nil {
				t.Fatal(err)
			}
			largest := 0
			for size := split.Size(); size > 0; size = split.Size() {
				largest = max(largest, size)
				split.Fill(make([]byte, size))
			}
			if got := PacketSize(buf); got != largest {
				t.Errorf("%+v: %d, want %d", s, got, largest)
			}
		}
	}
	cut := spec{payload: make([]byte, 5000)}.super(1000)[:HeaderLen+30]
	if got := PacketSize(cut); got != 0 {
		t.Errorf("a cut superpacket has packets of %d bytes", got)
	}
}
