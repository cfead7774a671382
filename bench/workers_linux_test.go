package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseOutcome(t *testing.T) {
	var b strings.Builder
	b.WriteString("ready 40000\nbegin\n")
	want := outcome{Bytes: 5, Seconds: 1.5, Lost: 2}
	if err := want.print(&b); err != nil {
		t.Fatal(err)
	}
	if got, err := parseOutcome(b.String()); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := parseOutcome("ready 40000\n"); err == nil {
		t.Error("a worker without a result passes")
	}
	if pids, err := parsePIDs(formatPIDs([]int{7, 12})); err != nil || len(pids) != 2 || pids[1] != 12 {
		t.Errorf("pids %v, %v", pids, err)
	}
	if pids, err := parsePIDs(""); err != nil || len(pids) != 0 {
		t.Errorf("no pids: %v, %v", pids, err)
	}
	if _, err := parsePIDs("x"); err == nil {
		t.Error("a pid that is no number passes")
	}
}

// proxy is a SOCKS5 proxy's side of a conversation.
type proxy struct {
	asked bytes.Buffer
	says  io.Reader
}

func (p *proxy) Write(b []byte) (int, error) { return p.asked.Write(b) }
func (p *proxy) Read(b []byte) (int, error)  { return p.says.Read(b) }

func TestAskSOCKS(t *testing.T) {
	target := netip.MustParseAddrPort("100.88.1.2:80")
	ok := &proxy{says: strings.NewReader("\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")}
	if err := askSOCKS(ok, target); err != nil {
		t.Error(err)
	}
	if want := "\x05\x01\x00\x05\x01\x00\x01\x64\x58\x01\x02\x00\x50"; ok.asked.String() != want {
		t.Errorf("asked % x, want % x", ok.asked.Bytes(), want)
	}
	for _, says := range []string{"", "\x05\xff", "\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"} {
		if err := askSOCKS(&proxy{says: strings.NewReader(says)}, target); err == nil {
			t.Errorf("the answer % x passes", says)
		}
	}
}

func TestTally(t *testing.T) {
	w := &window{warm: time.Second, length: 2 * time.Second}
	count := tally{w: w}
	start := time.Now()
	for _, n := range []int{10, 20} {
		if err := count.take(n, start); err != nil {
			t.Fatal(err)
		}
	}
	if err := count.take(30, start.Add(time.Second)); err != nil { // begins the window, and is before it
		t.Fatal(err)
	}
	w.begun = start.Add(time.Second)
	for at, n := range map[time.Duration]int{1500 * time.Millisecond: 7, 2 * time.Second: 8} {
		if err := count.take(n, start.Add(at)); err != nil || count.ended {
			t.Fatalf("ended %v, %v", count.ended, err)
		}
	}
	for _, n := range []int{0, 100} { // ends the window; is behind it
		if err := count.take(n, start.Add(3*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if count.o.Packets != 15 || count.o.Total != 175 || !count.ended {
		t.Errorf("%+v", count.o)
	}
}

func TestParseReply(t *testing.T) {
	packet := func(kind byte, id, seq uint16) []byte {
		p := make([]byte, 20+8)
		p[0], p[20] = 0x45, kind
		binary.BigEndian.PutUint16(p[24:], id)
		binary.BigEndian.PutUint16(p[26:], seq)
		return p
	}
	if seq, ok := parseReply(packet(echoReply, 7, 99), 7); !ok || seq != 99 {
		t.Errorf("%d, %v; want 99", seq, ok)
	}
	for name, p := range map[string][]byte{
		"a request": packet(echoRequest, 7, 99), "another's": packet(echoReply, 8, 99),
		"cut off": packet(echoReply, 7, 99)[:25], "nothing": nil,
	} {
		if _, ok := parseReply(p, 7); ok {
			t.Errorf("%s passes", name)
		}
	}
}

func TestReadyAddr(t *testing.T) {
	const out = "hello\nready: node-a 100.97.76.10 fd00::1 (tun meshnet0)\n"
	if got, err := readyAddr(out, "ready: "); err != nil || got != netip.MustParseAddr("100.97.76.10") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := readyAddr("ready: x", "ready: "); err == nil {
		t.Error("a line without an address passes")
	}
}

// naive is the internet checksum as RFC 1071 §4.1 has it, in network order.
func naive(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func TestChecksum(t *testing.T) {
	b := make([]byte, 200)
	for i := range b {
		b[i] = byte(i*i + 7)
	}
	for n := range b {
		var got [2]byte
		binary.NativeEndian.PutUint16(got[:], ^fold(sum(b[:n], 0)))
		if want := naive(b[:n]); binary.BigEndian.Uint16(got[:]) != want {
			t.Fatalf("%d bytes: %x, want %x", n, got, want)
		}
	}
}

// large is a packet as the kernel hands it over to be cut: headers and a payload of n bytes.
func large(protocol byte, n int) []byte {
	header := 28
	if protocol == unix.IPPROTO_TCP {
		header = 40
	}
	p := make([]byte, header+n)
	p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(p[20:], 1000)
	binary.BigEndian.PutUint16(p[22:], 2000)
	if protocol == unix.IPPROTO_TCP {
		p[32], p[33] = 5<<4, tcpACK|tcpPSH
	}
	for i := range n {
		p[header+i] = byte(i * 31)
	}
	return p
}

// What is cut into segments has valid checksums, and merges to what it was.
func TestSplitAndMerge(t *testing.T) {
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, sealed := range []string{"none", "chacha"} {
			aead, err := newAEAD(sealed)
			if err != nil {
				t.Fatal(err)
			}
			const size, total = 1000, 3500
			s := newSender(-1, -1, aead)
			whole := large(protocol, total)
			s.split(whole, size)
			if len(s.lengths) != 4 {
				t.Fatalf("%d segments, want 4", len(s.lengths))
			}
			r := &receiver{tun: -1, aead: aead}
			at := 0
			for _, n := range s.lengths {
				d := bytes.Clone(s.arena[at : at+n])
				at += n
				r.datagram(d)
				checkSegment(t, d[outerHeader:], protocol)
			}
			if len(r.pieces) != 1+4 || r.length != total {
				t.Errorf("protocol %d, %s: %d pieces with %d bytes, want one packet", protocol, sealed, len(r.pieces)-1, r.length)
			}
			r.merge()
			if got := binary.BigEndian.Uint16(r.first[2:]); int(got) != len(whole) || naive(r.first[:20]) != 0 {
				t.Errorf("merged to %d bytes, want %d, or its header's checksum is wrong", got, len(whole))
			}
		}
	}
}

// checkSegment checks a packet's own length and its checksums. It may have bytes behind it.
func checkSegment(t *testing.T, p []byte, protocol byte) {
	t.Helper()
	p = p[:binary.BigEndian.Uint16(p[2:])]
	pseudo := append(bytes.Clone(p[12:20]), 0, protocol, 0, 0)
	binary.BigEndian.PutUint16(pseudo[10:], uint16(len(p)-20))
	if naive(p[:20]) != 0 || naive(append(pseudo, p[20:]...)) != 0 {
		t.Errorf("a segment of %d bytes has a wrong checksum", len(p))
	}
}

// A segment that does not follow, or is no plain data, ends what was gathered.
func TestFollows(t *testing.T) {
	segment := func(change func(p []byte)) []byte {
		p := large(unix.IPPROTO_TCP, 100)
		p[33] = tcpACK
		binary.BigEndian.PutUint32(p[24:], 100)
		change(p)
		return p
	}
	for name, tt := range map[string]struct {
		change func(p []byte)
		want   bool
	}{
		"next":             {func([]byte) {}, true},
		"gap":              {func(p []byte) { p[27]++ }, false},
		"FIN":              {func(p []byte) { p[33] |= tcpFIN }, false},
		"another port":     {func(p []byte) { p[21]++ }, false},
		"another window":   {func(p []byte) { p[35]++ }, false},
		"acknowledges":     {func(p []byte) { p[31]++ }, false},
		"a fragment":       {func(p []byte) { p[6] |= 0x20 }, false},
		"congestion known": {func(p []byte) { p[1] = 3 }, false},
	} {
		r := &receiver{tun: -1}
		first := segment(func(p []byte) { binary.BigEndian.PutUint32(p[24:], 0) })
		r.packet(first)
		r.packet(segment(tt.change))
		if merged := len(r.pieces) == 3; merged != tt.want {
			t.Errorf("%s: merged %v, want %v", name, merged, tt.want)
		}
	}
}
