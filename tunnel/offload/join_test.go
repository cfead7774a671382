package offload

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
)

var all = Offloads{TCP: true, UDP: true}

// sink is a TUN in memory.
type sink struct {
	writes [][]byte
	err    error // said about superpackets
}

func (s *sink) write(packet [][]byte) error {
	b := bytes.Join(packet, nil)
	if s.err != nil && b[1] != gsoNone {
		return s.err
	}
	s.writes = append(s.writes, b)
	return nil
}

// join is what one batch is written as.
func join(t testing.TB, o Offloads, pkts ...[]byte) [][]byte {
	t.Helper()
	s := &sink{}
	j := NewJoin(s.write, o)
	for _, p := range pkts {
		j.Add(bytes.Clone(p))
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	return s.writes
}

// sizes are the numbers of packets in each write.
func sizes(t testing.TB, writes [][]byte) (n []int) {
	for _, w := range writes {
		n = append(n, len(splitAll(t, bytes.Clone(w))))
	}
	return n
}

// TestRoundTrip: what Split cuts Join puts together again, to the byte.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		s := spec{
			v6: r.IntN(2) == 0, udp: r.IntN(2) == 0, seq: r.Uint32(), flags: tcpACK | uint8(r.IntN(2))*tcpPSH,
			id: uint16(r.Uint32()), frag: fragDF * uint16(r.IntN(2)), tcpOpts: 4 * r.IntN(11),
		}
		size := 1 + r.IntN(1448)
		s.payload = randomBytes(r, min(size+1+r.IntN(63*size), 65000))
		want := s.super(size)
		writes := join(t, all, splitAll(t, bytes.Clone(want))...)
		samePackets(t, writes, [][]byte{want})
	}
}

// TestJoinWhat says which second packets continue a first one.
func TestJoinWhat(t *testing.T) {
	tcp := spec{flags: tcpACK, id: 7, tcpOpts: 12, seq: 0xfffffff0, payload: make([]byte, 100)}
	next := tcp
	next.seq, next.id = tcp.seq+100, 8
	udp := spec{udp: true, frag: fragDF, payload: make([]byte, 100)}
	six := func(s spec) spec {
		s.v6 = true
		return s
	}
	with := func(s spec, f func(s *spec)) spec {
		f(&s)
		return s
	}
	set := func(at int, v byte) func(p []byte) { return func(p []byte) { p[at] = v } }
	none := func([]byte) {}
	for _, tt := range []struct {
		name          string
		first, second spec
		change        func(p []byte) // of the second
		joined        bool
	}{
		{"TCP", tcp, next, none, true},
		{"TCP, IPv6", six(tcp), six(next), none, true},
		{"UDP", udp, udp, none, true},
		{"UDP, IPv6", six(udp), six(udp), none, true},
		{"shorter", tcp, with(next, func(s *spec) { s.payload = s.payload[:1] }), none, true},
		{"longer", tcp, with(next, func(s *spec) { s.payload = make([]byte, 101) }), none, false},
		{"shorter UDP", udp, with(udp, func(s *spec) { s.payload = s.payload[:1] }), none, true},
		{"longer UDP", udp, with(udp, func(s *spec) { s.payload = make([]byte, 101) }), none, false},
		{"nothing", tcp, with(next, func(s *spec) { s.payload = nil }), none, false},
		{"no UDP payload", udp, with(udp, func(s *spec) { s.payload = nil }), none, false},
		{"PSH", tcp, with(next, func(s *spec) { s.flags |= tcpPSH }), none, true},
		{"after PSH", with(tcp, func(s *spec) { s.flags |= tcpPSH }), next, none, false},
		{"FIN", tcp, with(next, func(s *spec) { s.flags |= tcpFIN }), none, false},
		{"CWR", tcp, with(next, func(s *spec) { s.flags |= tcpCWR }), none, false},
		{"ECE", tcp, with(next, func(s *spec) { s.flags |= 0x40 }), none, false},
		{"a gap", tcp, with(next, func(s *spec) { s.seq++ }), none, false},
		{"again", tcp, with(next, func(s *spec) { s.seq = tcp.seq }), none, false},
		{"IPv4 options", tcp, with(next, func(s *spec) { s.ipOpts = 4 }), none, false},
		{"an extension header", six(tcp), with(six(next), func(s *spec) { s.ipOpts = 8 }), none, false},
		{"another ID", tcp, with(next, func(s *spec) { s.id++ }), none, false},
		{"the same ID", tcp, with(next, func(s *spec) { s.id = tcp.id }), none, false},
		{
			"another ID with DF", with(tcp, func(s *spec) { s.frag = fragDF }),
			with(next, func(s *spec) { s.frag, s.id = fragDF, 99 }), none, true,
		},
		{"DF differs", tcp, with(next, func(s *spec) { s.frag = fragDF }), none, false},
		{"MF", tcp, with(next, func(s *spec) { s.frag = 0x2000 }), none, false},
		{"MF in both", with(tcp, func(s *spec) { s.frag = 0x2000 }), with(next, func(s *spec) { s.frag = 0x2000 }), none, false},
		{"a later fragment", udp, with(udp, func(s *spec) { s.frag = 1 }), none, false},
		{"TOS", tcp, next, set(1, 9), false},
		{"TTL", tcp, next, set(8, 63), false},
		{"source", tcp, next, set(15, 99), false},
		{"destination", tcp, next, set(19, 99), false},
		{"source port", tcp, next, set(21, 99), false},
		{"destination port", tcp, next, set(23, 99), false},
		{"acknowledgement", tcp, next, set(31, 99), false},
		{"reserved bits", tcp, next, func(p []byte) { p[32] |= 1 }, false},
		{"window", tcp, next, set(35, 99), false},
		{"urgent pointer", tcp, next, set(39, 99), false},
		{"options", tcp, next, set(51, 99), false},
		{"options of another length", tcp, with(next, func(s *spec) { s.tcpOpts = 8 }), none, false},
		{"traffic class", six(tcp), six(next), set(0, 0x61), false},
		{"flow label", six(tcp), six(next), set(3, 99), false},
		{"hop limit", six(tcp), six(next), set(7, 99), false},
		{"source, IPv6", six(tcp), six(next), set(23, 99), false},
		{"destination, IPv6", six(tcp), six(next), set(39, 99), false},
		{"UDP port", udp, udp, set(23, 99), false},
	} {
		second := tt.second.build()
		tt.change(second)
		naiveSums(second)
		in := [][]byte{tt.first.build(), second}
		writes := join(t, all, in...)
		if got := len(writes) == 1; got != tt.joined {
			t.Errorf("%s: %d writes", tt.name, len(writes))
			continue
		}
		var out [][]byte
		for _, w := range writes {
			out = append(out, splitAll(t, w)...)
		}
		for i, p := range in {
			if essence(out[i]) != essence(p) {
				t.Errorf("%s: packet %d:\n got %s\nwant %s", tt.name, i, head(out[i]), head(p))
			}
		}
		if n := len(join(t, Offloads{}, in...)); n != 2 {
			t.Errorf("%s: %d writes without offloads", tt.name, n)
		}
	}
	// UDP without a checksum, and with another length than IP says.
	for _, change := range []func(p []byte){
		func(p []byte) { p[26], p[27] = 0, 0 },
		func(p []byte) { p[25]-- },
	} {
		p := udp.build()
		change(p)
		if n := len(join(t, all, p, p)); n != 2 {
			t.Errorf("UDP: %d writes", n)
		}
	}
	if writes := join(t, all, append(tcp.build(), "padding"...), next.build()); len(writes) != 1 {
		t.Errorf("padding: %d writes", len(writes))
	} else {
		samePackets(t, splitAll(t, writes[0]), [][]byte{tcp.build(), next.build()})
	}
}

// flow makes n segments of one flow.
func flow(host byte, n int) [][]byte {
	return train(spec{host: host, flags: tcpACK, frag: fragDF}, 1000, n)
}

// TestJoinFlows: interleaved flows are put together as well as one alone; more than there is room for, less well.
func TestJoinFlows(t *testing.T) {
	for _, tt := range []struct{ flows, most int }{{1, 1}, {2, 2}, {8, 8}, {16, 16}, {32, 40}, {200, 2000}} {
		var trains [][][]byte
		for i := range tt.flows {
			trains = append(trains, train(spec{host: byte(i), port: uint16(i), flags: tcpACK, v6: i%2 == 0}, 100, 10))
		}
		var in [][]byte
		for k := range 10 {
			for _, one := range trains {
				in = append(in, one[k])
			}
		}
		writes := join(t, all, in...)
		if len(writes) > tt.most {
			t.Errorf("%d flows: %d writes", tt.flows, len(writes))
		}
		checkFlows(t, writes, in)
	}
}

func TestJoinOrder(t *testing.T) {
	a := flow(1, 4)
	ack := spec{host: 1, flags: tcpACK, frag: fragDF, seq: 2000}.build()
	fragment := spec{host: 1, udp: true, frag: 5, payload: make([]byte, 50)}.build()
	other := spec{host: 2, udp: true, frag: 5, payload: make([]byte, 50)}.build()
	for _, tt := range []struct {
		name string
		in   [][]byte
		want []int
	}{
		{"an acknowledgement within its flow", [][]byte{a[0], a[1], ack, a[2], a[3]}, []int{2, 1, 2}},
		{"a fragment between the hosts", [][]byte{a[0], a[1], fragment, a[2], a[3]}, []int{2, 1, 2}},
		{"a fragment of others", [][]byte{a[0], a[1], other, a[2], a[3]}, []int{4, 1}},
		{"not IP", [][]byte{a[0], a[1], {1, 2, 3}, a[2], a[3], {}}, []int{4, 1}},
	} {
		s := &sink{}
		j := NewJoin(s.write, all)
		for _, p := range tt.in {
			j.Add(bytes.Clone(p))
		}
		_ = j.Flush()
		var got []int
		for _, w := range s.writes {
			n := 1
			if w[1] != gsoNone {
				n = len(splitAll(t, w))
			}
			got = append(got, n)
		}
		if len(got) != len(tt.want) || got[0] != tt.want[0] || got[1] != tt.want[1] {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestJoinLimits: no superpacket is larger than IP allows, or has more segments than a receiver expects.
func TestJoinLimits(t *testing.T) {
	for _, tt := range []struct {
		from        spec
		size, first int
	}{
		{spec{flags: tcpACK}, 1400, 46},
		{spec{flags: tcpACK, v6: true}, 1400, 46},
		{spec{flags: tcpACK}, 100, maxSegments},
		{spec{udp: true}, 1400, 46},
		{spec{udp: true, v6: true}, 100, maxSegmentsUDP},
	} {
		in := train(tt.from, tt.size, 200)
		writes := join(t, all, in...)
		if got := sizes(t, writes); got[0] != tt.first {
			t.Errorf("%d bytes a segment: %v, want %d first", tt.size, got, tt.first)
		}
		var out [][]byte
		for _, w := range writes {
			if len(w) > maxPacket+HeaderLen {
				t.Errorf("%d bytes at once", len(w))
			}
			out = append(out, splitAll(t, w)...)
		}
		samePackets(t, out, in)
	}
}

// TestJoinRefused: a kernel that takes no superpackets of a kind gets everything all the same, and is asked no more.
func TestJoinRefused(t *testing.T) {
	s := &sink{err: ErrRefused}
	j := NewJoin(s.write, all)
	in := naiveSplit(spec{udp: true, payload: make([]byte, 500)}.build(), 100)
	for range refusals + 2 {
		for _, p := range in {
			j.Add(bytes.Clone(p))
		}
		if err := j.Flush(); err != nil {
			t.Fatal(err)
		}
		for i, w := range s.writes {
			if w[0] != 0 || !bytes.Equal(w[HeaderLen:], in[i]) {
				t.Fatalf("packet %d changed:\n got %x\nwant %x", i, w[HeaderLen:], in[i])
			}
		}
		if len(s.writes) != len(in) {
			t.Fatalf("%d packets, want %d", len(s.writes), len(in))
		}
		s.writes = nil
	}
	if st := j.Stats(); st.Refused != refusals || st.Writes != 5*(refusals+2) || st.Packets != st.Writes || st.Joined != 0 {
		t.Errorf("stats %+v", st)
	}
	s.err = nil // the other kind is not affected
	for _, p := range flow(1, 5) {
		j.Add(p)
	}
	_ = j.Flush()
	if len(s.writes) != 1 || j.Stats().Joined != 5 {
		t.Errorf("%d writes of TCP", len(s.writes))
	}
}

func TestJoinErrors(t *testing.T) {
	odd := errors.New("odd")
	for _, tt := range []struct {
		err   error
		flush error
		want  Stats
	}{
		{ErrDown, nil, Stats{Down: 5}},
		{ErrFull, nil, Stats{Full: 5}},
		{odd, nil, Stats{Invalid: 5}},
		{os.ErrClosed, os.ErrClosed, Stats{Invalid: 5}},
	} {
		s := &sink{err: tt.err}
		j := NewJoin(s.write, all)
		for _, p := range flow(1, 5) {
			j.Add(p)
		}
		if err := j.Flush(); !errors.Is(err, tt.flush) {
			t.Errorf("%v: Flush: %v", tt.err, err)
		}
		if err := j.Flush(); err != nil {
			t.Errorf("%v: again: %v", tt.err, err)
		}
		tt.want.Packets, tt.want.Bytes = 5, 5*1040
		if got := j.Stats(); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.err, got, tt.want)
		}
	}
}

func TestJoinAllocations(t *testing.T) {
	if raceEnabled {
		return // it allocates by itself; .ci/run runs this without it too
	}
	j := NewJoin(func([][]byte) error { return nil }, all)
	var in, bufs [][]byte
	for i := range 10 {
		in = append(in, flow(byte(i), 20)...)
	}
	for _, p := range in {
		bufs = append(bufs, bytes.Clone(p))
	}
	if n := testing.AllocsPerRun(100, func() {
		for i, p := range in {
			copy(bufs[i], p)
			j.Add(bufs[i])
		}
		_ = j.Flush()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
