package relay

import (
	"encoding/binary"
	"io"
)

// emptyReads is how many reads in a row may bring nothing.
const emptyReads = 100

// Reader finds frames in a stream, where they lie in one buffer that its owner gives. Owned by one goroutine.
//
//	for {
//		for f, ok := r.Next(); ok; f, ok = r.Next() { … }   // all that is there
//		err := r.Fill()                                     // more
//	}
type Reader struct {
	src        io.Reader
	buf        []byte
	start, end int // what was read and not yet taken lies between
	max        int
	err        error
}

// NewReader reads frames of src, with payloads of up to maxPayload bytes, into buf, which has HeaderLen bytes at least.
// A frame that does not fit is given a new buffer, which grows as its bytes arrive.
func NewReader(src io.Reader, buf []byte, maxPayload int) *Reader {
	return &Reader{src: src, buf: buf, max: maxPayload}
}

// Next takes the next frame, if all of it is there. After one that is too long, Next gives nothing more and Fill fails.
func (r *Reader) Next() (Frame, bool) {
	have := r.end - r.start
	if have < HeaderLen || r.err != nil {
		return Frame{}, false
	}
	n := r.need()
	if r.err != nil || n > have {
		return Frame{}, false
	}
	raw := r.buf[r.start : r.start+n : r.start+n]
	r.start += n
	return Frame{Type: Type(raw[0]), Raw: raw}, true
}

// need is the length of the frame at start, with its header, which is there.
func (r *Reader) need() int {
	n := binary.BigEndian.Uint32(r.buf[r.start+1:])
	if uint64(n) > uint64(r.max) {
		r.err = ErrTooLong
		return HeaderLen
	}
	return HeaderLen + int(n)
}

// Fill reads once, at least a byte, and returns how many. It moves an incomplete frame to the beginning of the buffer;
// so the frames of Next are invalid after it. ErrTooLong: a length above the greatest.
func (r *Reader) Fill() (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	r.makeRoom()
	for range emptyReads {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n > 0 {
			if r.end-r.start >= HeaderLen {
				r.need()
			}
			return n, nil // an error comes again
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// makeRoom lets at least a byte of the frame at start be read.
func (r *Reader) makeRoom() {
	if r.start == r.end {
		r.start, r.end = 0, 0
		return
	}
	need := HeaderLen
	if r.end-r.start >= HeaderLen {
		need = r.need()
	}
	if r.start+need <= len(r.buf) && len(r.buf)-r.end >= len(r.buf)/4 {
		return
	}
	if need <= len(r.buf) || r.end-r.start < len(r.buf) {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
		return
	}
	r.setBuffer(make([]byte, min(need, 2*len(r.buf)))) // full of one frame: what was announced is not yet believed
}

// Offset is where in the buffer the next frame begins. The frame that Next gave last ends there.
func (r *Reader) Offset() int { return r.start }

// Span is what lies between two offsets. borrowed: valid until Fill.
func (r *Reader) Span(from, to int) []byte { return r.buf[from:to] }

// Buffer is the buffer in use.
func (r *Reader) Buffer() []byte { return r.buf }

// Buffered is how many bytes were read and not yet taken.
func (r *Reader) Buffered() int { return r.end - r.start }

// SetBuffer goes on in another buffer and returns the one in use until now. A buffer that cannot hold what is Buffered
// is refused: ok is false.
func (r *Reader) SetBuffer(buf []byte) (old []byte, ok bool) {
	if len(buf) < r.Buffered() || len(buf) < HeaderLen {
		return nil, false
	}
	return r.setBuffer(buf), true
}

func (r *Reader) setBuffer(buf []byte) []byte {
	old := r.buf
	r.end = copy(buf, old[r.start:r.end])
	r.start = 0
	r.buf = buf
	return old
}

// SetMax changes the greatest payload.
func (r *Reader) SetMax(maxPayload int) { r.max = maxPayload }
