package outbox

import (
	"encoding/binary"
	"sync"
)

// BlockSize is what a pooled block holds, in bytes: the plaintext of the longest TLS record (RFC 8446 §5.1).
const BlockSize = 16 << 10

const (
	headerLen = 5  // of a frame: type and length
	trainLen  = 34 // of a train's payload before its datagrams: address and size
	addrLen   = 32
)

// Block is a run of whole frames that leave together. It belongs to the Box until Take, then to the writer until Release.
type Block struct {
	buf        []byte
	start, end int
	frames     int
	next       *Block

	Packets int // datagrams in it
	Payload int // bytes of datagrams
}

var blocks = sync.Pool{New: func() any { return &Block{buf: make([]byte, BlockSize)} }}

// newBlock has room for n bytes.
func newBlock(n int) *Block {
	if n > BlockSize {
		return &Block{buf: make([]byte, n)}
	}
	return blocks.Get().(*Block)
}

func (b *Block) free() {
	if len(b.buf) != BlockSize {
		return
	}
	*b = Block{buf: b.buf}
	blocks.Put(b)
}

// Bytes is the frames. borrowed: until Release.
func (b *Block) Bytes() []byte { return b.buf[b.start:b.end] }

// room is how many bytes can still be appended.
func (b *Block) room() int { return len(b.buf) - b.end }

// swallow takes the frames of another block in, for which there is room.
func (b *Block) swallow(other *Block) {
	b.end += copy(b.buf[b.end:], other.Bytes())
	b.frames += other.frames
	b.Packets += other.Packets
	b.Payload += other.Payload
	other.free()
}

// dropFirst takes the oldest frame out and returns its length, and how many datagrams it had.
func (b *Block) dropFirst() (n, packets int) {
	frame := b.Bytes()
	n = headerLen + int(binary.BigEndian.Uint32(frame[1:]))
	packets, payload := weigh(frame[:n])
	b.start += n
	b.frames--
	b.Packets -= packets
	b.Payload -= payload
	return n, packets
}

// weigh counts the datagrams of a frame and their bytes.
func weigh(frame []byte) (packets, payload int) {
	n := len(frame) - headerLen
	switch t := frame[0]; {
	case t == 0x14 || t == 0x15:
		payload = n - trainLen
		size := int(binary.BigEndian.Uint16(frame[headerLen+addrLen:]))
		return (payload + size - 1) / size, payload
	case t >= 0x10 && t <= 0x13:
		return 1, n - addrLen
	}
	return 0, 0
}
