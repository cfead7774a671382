package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// script makes packets of a fuzzer's bytes: segments of a few flows, most of them in sequence, and some with bytes of
// them overwritten or cut off.
func script(data []byte) (pkts [][]byte) {
	take := func() byte {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return b
	}
	var seqs [16]uint32
	var ids [16]uint16
	for len(data) > 0 && len(pkts) < 300 {
		what, f := take(), take()%16
		s := spec{
			udp: f&1 != 0, v6: f&2 != 0, host: f, seq: seqs[f], id: ids[f], frag: uint16(f&4) << 12, flags: tcpACK,
			tcpOpts: int(f&8) / 2, payload: bytes.Repeat([]byte{what}, 64),
		}
		if what&1 != 0 {
			s.payload = bytes.Repeat([]byte{what}, int(take()))
		}
		if what&2 != 0 {
			s.flags = take()
		}
		if what&4 != 0 {
			s.ipOpts = int(take()%3) * 8
		}
		ids[f]++
		seqs[f] += uint32(len(s.payload))
		p := s.build()
		if what&0x18 == 0x18 {
			at, v := int(take()), take()
			p[at%len(p)] = v
		}
		if what&0x60 == 0x60 {
			p = p[:int(take())%(len(p)+1)]
		}
		if what&0x80 == 0 { // otherwise its checksums are wrong, which leaves it as it is or is lost
			repair(p)
		}
		pkts = append(pkts, p)
	}
	return pkts
}

// repair makes the checksums of a packet right, as far as its own lengths reach.
func repair(p []byte) {
	if cut := within(p); cut != nil {
		zero := false
		if at, udp := naiveFind(cut); udp {
			zero = cut[at+6]|cut[at+7] == 0
		}
		naiveSums(cut)
		if at, udp := naiveFind(cut); udp && zero {
			cut[at+6], cut[at+7] = 0, 0
		}
	}
}

// within is the part of p that its IP header covers, nil if that is not sound.
func within(p []byte) []byte {
	n := -1
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && p[0]&15 >= 5:
		if n = int(binary.BigEndian.Uint16(p[2:])); n < int(p[0]&15)*4 {
			n = -1
		}
	case len(p) >= 40 && p[0]>>4 == 6:
		n = 40 + int(binary.BigEndian.Uint16(p[4:]))
	}
	if n < 0 || n > len(p) {
		return nil
	}
	return p[:n]
}

// flowName tells flows apart as far as order has to be kept.
func flowName(p []byte) string {
	cut := within(p)
	if cut == nil {
		return "?"
	}
	hosts := fmt.Sprintf("%x", p[12:20])
	if p[0]>>4 == 6 {
		hosts = fmt.Sprintf("%x", p[8:40])
	}
	if at, udp := naiveFind(cut); at >= 0 {
		return fmt.Sprint(hosts, udp, cut[at:at+4])
	}
	return hosts
}

// essence is what has to arrive of a packet: all but checksums, padding and the ID of one that is never fragmented.
func essence(p []byte) string {
	cut := within(p)
	if cut == nil {
		return string(p)
	}
	cut = bytes.Clone(cut)
	if cut[0]>>4 == 4 {
		cut[10], cut[11] = 0, 0
		if cut[6]&0x40 != 0 {
			cut[4], cut[5] = 0, 0
		}
	}
	if at, udp := naiveFind(cut); at >= 0 {
		if udp {
			clear(cut[at+6 : at+8])
		} else {
			clear(cut[at+16 : at+18])
		}
	}
	return string(cut)
}

// FuzzJoin: what comes out, segmented again, is what came in, flow by flow in order; superpackets have right checksums
// and what goes alone is untouched.
func FuzzJoin(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x02\x00\x18\x00\x00"), false)
	f.Add([]byte("\x00\x01\x00\x01\x00\x02\x00\x01\x00\x02\x01\x02\x05\x00\x03\x00\x03"), true)
	f.Add([]byte("\x01\x00\xff\x01\x00\xff\x01\x00\xff\x18\x00\x06\x20\x00\x00\x60\x02\x20"), false)
	f.Fuzz(func(t *testing.T, data []byte, refuse bool) {
		in := script(data)
		s := &sink{}
		if refuse {
			s.err = ErrRefused
		}
		j := NewJoin(s.write, all)
		for i, p := range in {
			p = bytes.Clone(p)
			j.Add(p[:len(p):len(p)])
			if i%100 == 99 {
				_ = j.Flush()
			}
		}
		_ = j.Flush()
		checkFlows(t, s.writes, in)
	})
}

// checkFlows fails unless the writes carry the packets of in, flow by flow in order, with right checksums in what was
// put together.
func checkFlows(t *testing.T, writes, in [][]byte) {
	t.Helper()
	want, got := make(map[string][]string), make(map[string][]string)
	for _, p := range in {
		if len(p) > 0 {
			want[flowName(p)] = append(want[flowName(p)], essence(p))
		}
	}
	for _, w := range writes {
		parts := [][]byte{w[HeaderLen:]}
		if w[1] != gsoNone {
			parts = splitAll(t, w)
			for _, p := range parts {
				q := bytes.Clone(p)
				if naiveSums(q); !bytes.Equal(p, q) {
					t.Fatalf("wrong checksums:\n got %s\nwant %s", head(p), head(q))
				}
			}
		}
		for _, p := range parts {
			got[flowName(p)] = append(got[flowName(p)], essence(p))
		}
	}
	for name, packets := range want {
		if len(got[name]) != len(packets) {
			t.Fatalf("flow %s: %d packets, want %d", name, len(got[name]), len(packets))
		}
		for i := range packets {
			if got[name][i] != packets[i] {
				t.Fatalf("flow %s, packet %d:\n got %s\nwant %s", name, i, head([]byte(got[name][i])), head([]byte(packets[i])))
			}
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d flows, want %d", len(got), len(want))
	}
}
