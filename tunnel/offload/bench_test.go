package offload

import (
	"bytes"
	"testing"
)

// BenchmarkSplit cuts 60 KB superpackets into 1400 bytes of payload each.
func BenchmarkSplit(b *testing.B) {
	for _, tt := range []struct {
		name string
		from spec
	}{
		{"TCP4", spec{flags: tcpACK, tcpOpts: 12}},
		{"TCP6", spec{v6: true, flags: tcpACK, tcpOpts: 12}},
		{"UDP4", spec{udp: true}},
		{"UDP6", spec{v6: true, udp: true}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			tt.from.payload = bytes.Repeat([]byte("payload"), 60000/7)
			buf := tt.from.super(1400)
			headers, arena := bytes.Clone(buf[:100]), make([]byte, 80<<10)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			var s Split
			for b.Loop() {
				copy(buf, headers)
				if s.Start(buf) != nil {
					b.Fatal("refused")
				}
				for at := 0; s.Size() > 0; {
					at += s.Fill(arena[at:]) + 32
				}
			}
		})
	}
}

// BenchmarkSplitWhole completes the checksum of one packet.
func BenchmarkSplitWhole(b *testing.B) {
	buf := spec{flags: tcpACK, payload: make([]byte, 1400)}.super(0)
	buf[1] = gsoNone
	dst := make([]byte, 2000)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	var s Split
	for b.Loop() {
		if s.Start(buf) != nil || s.Fill(dst) == 0 {
			b.Fatal("refused")
		}
	}
}

// BenchmarkJoin gathers what one batch holds, without the system calls.
func BenchmarkJoin(b *testing.B) {
	for _, tt := range []struct {
		name  string
		flows int
		from  spec
	}{
		{"TCP4", 1, spec{flags: tcpACK, tcpOpts: 12}},
		{"TCP6", 1, spec{v6: true, flags: tcpACK, tcpOpts: 12}},
		{"UDP4", 1, spec{udp: true}},
		{"TCP4 eight flows", 8, spec{flags: tcpACK, tcpOpts: 12}},
		{"TCP4 pure ACKs", 1, spec{flags: tcpACK, tcpOpts: 12}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			size := 1400
			if tt.name == "TCP4 pure ACKs" {
				size = 0
			}
			var in [][]byte
			for k := range 128 / tt.flows {
				for f := range tt.flows {
					s := tt.from
					s.host, s.seq, s.id = byte(f), uint32(k*size), uint16(k)
					in = append(in, train(s, size, 1)...)
				}
			}
			bufs, total := make([][]byte, len(in)), 0
			for i, p := range in {
				bufs[i] = bytes.Clone(p)
				total += len(p)
			}
			j := NewJoin(func([][]byte) error { return nil }, all)
			b.SetBytes(int64(total))
			b.ReportAllocs()
			for b.Loop() {
				for i, p := range in {
					copy(bufs[i], p[:64]) // the headers
					j.Add(bufs[i])
				}
				_ = j.Flush()
			}
			st := j.Stats()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(st.Packets), "ns/packet")
			b.ReportMetric(float64(st.Packets)/float64(st.Writes), "packets/write")
		})
	}
}

// BenchmarkSum is the part of Split that reads every byte.
func BenchmarkSum(b *testing.B) {
	buf := make([]byte, 1400)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if sum(buf, 1) == 0 {
			b.Fatal("zero")
		}
	}
}
