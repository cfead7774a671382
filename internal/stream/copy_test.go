package stream

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// steps is a reader that gives a chunk a time, as much of it as fits, and then err.
type steps struct {
	chunks [][]byte
	most   int // longest buffer it was given
	err    error
}

func (s *steps) Read(b []byte) (int, error) {
	s.most = max(s.most, len(b))
	if len(s.chunks) == 0 {
		return 0, s.err
	}
	n := copy(b, s.chunks[0])
	if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
		s.chunks = s.chunks[1:]
	}
	return n, nil
}

type refusing struct{}

func (refusing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCopy(t *testing.T) {
	odd := errors.New("odd")
	for _, tt := range []struct {
		name   string
		chunks []int
		err    error
		want   error
		most   int
	}{
		{"nothing", nil, io.EOF, nil, leastBuffer},
		{"little by little", []int{1, 1000, leastBuffer - 1, 7}, io.EOF, nil, leastBuffer},
		{"much", []int{leastBuffer, 1 << 20}, io.EOF, nil, mostBuffer},
		{"an error", []int{10}, odd, odd, leastBuffer},
	} {
		var sent, got bytes.Buffer
		src := &steps{err: tt.err}
		for _, n := range tt.chunks {
			src.chunks = append(src.chunks, counting(n))
			sent.Write(counting(n))
		}
		if err := Copy(&got, src); err != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
		if src.most != tt.most || !bytes.Equal(got.Bytes(), sent.Bytes()) {
			t.Errorf("%s: %d of %d bytes, with a buffer of up to %d", tt.name, got.Len(), sent.Len(), src.most)
		}
	}
	if err := Copy(refusing{}, &steps{chunks: [][]byte{{1}}, err: io.EOF}); err != io.ErrClosedPipe {
		t.Errorf("refused: %v", err)
	}
}

// counting is n bytes that count.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
