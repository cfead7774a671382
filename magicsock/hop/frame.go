package hop

import (
	"encoding/binary"
	"errors"
)

const (
	// HeaderSize is what a frame adds to its datagram, in bytes.
	HeaderSize = 8
	// MaxDatagram is the longest datagram that a frame carries, in bytes.
	MaxDatagram = 1500
	// FirstBind and FirstFrame are the first bytes of the two sorts of packets.
	FirstBind  = 0xC8
	FirstFrame = 0xC9

	hintSize = HeaderSize
	bindSize = HeaderSize + proofSize
)

// Header is what stands before each datagram of a session, the most significant byte first.
func Header(sid uint32) uint64 { return FirstFrame<<56 | uint64(sid) }

// Run tells how many bytes of a train, from its beginning, are frames of one session, and of which: n is 0 when the
// first datagram is no frame. size is that of each datagram but the last.
func Run(data []byte, size int) (sid uint32, n int) {
	first, ok := frame(data, size)
	if !ok {
		return 0, 0
	}
	for n < len(data) {
		if next, ok := frame(data[n:], size); !ok || next != first {
			break
		}
		n = min(n+size, len(data))
	}
	return uint32(first), n
}

// frame reads the header of the datagram that data begins with.
func frame(data []byte, size int) (header uint64, ok bool) {
	length := min(size, len(data))
	if length <= HeaderSize || length > HeaderSize+MaxDatagram {
		return 0, false
	}
	h := binary.BigEndian.Uint64(data)
	return h, h>>32 == FirstFrame<<24 && uint32(h) != 0
}

// Strip takes the headers out of a run of frames, within its memory: what it returns is a train of the datagrams, each
// of size-HeaderSize bytes but the last.
func Strip(run []byte, size int) []byte {
	end := min(size, len(run))
	for from := end; from < len(run); from += size {
		end += copy(run[end:], run[from+HeaderSize:min(from+size, len(run))])
	}
	return run[HeaderSize:end]
}

// step is what a bind packet is.
type step byte

const (
	stepHello step = 1 + iota
	stepChallenge
	stepAnswer
	stepBound
	stepUnbound // hint: frames came from an address that is not bound
	stepGone    // hint: there is no such session
)

// bind is a packet that binds, or a hint, whose proof is zero.
type bind struct {
	step  step
	sid   uint32
	proof proof
}

// ErrMalformed is returned for what is no packet of this package.
var ErrMalformed = errors.New("malformed packet of a member relay")

func (b *bind) hint() bool { return b.step == stepUnbound || b.step == stepGone }

func (b *bind) encode() []byte {
	size := bindSize
	if b.hint() {
		size = hintSize
	}
	pkt := make([]byte, size)
	pkt[0], pkt[1] = FirstBind, byte(b.step)
	binary.BigEndian.PutUint32(pkt[4:], b.sid)
	copy(pkt[HeaderSize:], b.proof[:])
	return pkt
}

func parseBind(pkt []byte) (*bind, error) {
	if len(pkt) < HeaderSize || pkt[0] != FirstBind || pkt[2] != 0 || pkt[3] != 0 {
		return nil, ErrMalformed
	}
	b := &bind{step: step(pkt[1]), sid: binary.BigEndian.Uint32(pkt[4:])}
	switch {
	case b.hint() && len(pkt) == hintSize:
	case b.step >= stepHello && b.step <= stepBound && len(pkt) == bindSize:
		b.proof = proof(pkt[HeaderSize:])
	default:
		return nil, ErrMalformed
	}
	return b, nil
}

// SID reads which session a bind packet or hint is about.
func SID(pkt []byte) (sid uint32, err error) {
	b, err := parseBind(pkt)
	if err != nil {
		return 0, err
	}
	return b.sid, nil
}
