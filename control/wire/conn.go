package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/internal/dcbor"
)

// Version of the framing.
const Version = 1

// MaxFrame is the largest frame, in bytes behind its length.
const MaxFrame = 1 << 20

// Kind is what a stream is for.
type Kind byte

// The kinds of streams.
const (
	KindSession Kind = 1 // peer sharing between members
	KindJoin    Kind = 2 // admission of a joiner
)

// Type is the type of a message.
type Type uint16

// Errors of reading.
var (
	ErrPreface = errors.New("not a control stream")
	ErrVersion = errors.New("control stream of another version")
	ErrFrame   = errors.New("frame length out of bounds")
	ErrAborted = errors.New("control stream aborted")
)

const (
	prefaceSize = 8
	// HeaderSize is what a frame has before its body, in bytes: a length and a type.
	HeaderSize = 6
)

var magic = [4]byte{'m', 'e', 's', 'h'}

// Conn reads and writes frames. One goroutine may read and one may write at the same time.
type Conn struct {
	net.Conn
	readFor, writeFor time.Duration
	aborted           atomic.Bool
}

// Abort makes the current read and all later ones fail. It may be called from any goroutine.
func (c *Conn) Abort() {
	c.aborted.Store(true)
	c.SetReadDeadline(time.Unix(1, 0))
}

// New wraps a connection. Each read of a frame may take readFor, each write writeFor.
func New(c net.Conn, readFor, writeFor time.Duration) *Conn {
	return &Conn{Conn: c, readFor: readFor, writeFor: writeFor}
}

// SetReadFor changes how long the next reads may take.
func (c *Conn) SetReadFor(d time.Duration) { c.readFor = d }

// WritePreface opens a stream of a kind.
func (c *Conn) WritePreface(k Kind) error {
	return c.write(append(magic[:], Version, byte(k), 0, 0))
}

// ReadPreface reads the other side's preface.
func (c *Conn) ReadPreface() (Kind, error) {
	var b [prefaceSize]byte
	if err := c.read(b[:]); err != nil {
		return 0, err
	}
	if [4]byte(b[:4]) != magic || b[6] != 0 || b[7] != 0 {
		return 0, ErrPreface
	}
	if b[4] != Version {
		return 0, ErrVersion
	}
	return Kind(b[5]), nil
}

func (c *Conn) read(b []byte) error {
	if err := c.SetReadDeadline(time.Now().Add(c.readFor)); err != nil {
		return err
	}
	if c.aborted.Load() { // behind setting the deadline: Abort marks first, then sets its own
		return ErrAborted
	}
	_, err := io.ReadFull(c.Conn, b)
	return err
}

func (c *Conn) write(b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(c.writeFor)); err != nil {
		return err
	}
	_, err := c.Conn.Write(b)
	return err
}

// WriteMessage sends v, a dcbor struct, as one frame with one write.
func (c *Conn) WriteMessage(t Type, v any) error { return c.WriteRaw(t, dcbor.Marshal(v)) }

// WriteRaw sends an encoded message.
func (c *Conn) WriteRaw(t Type, body []byte) error {
	if len(body)+2 > MaxFrame {
		return ErrFrame
	}
	b := make([]byte, 6, 6+len(body))
	binary.BigEndian.PutUint32(b, uint32(len(body)+2))
	binary.BigEndian.PutUint16(b[4:], uint16(t))
	return c.write(append(b, body...))
}

// ReadMessage reads one frame. The whole frame must come within the read time.
func (c *Conn) ReadMessage() (Type, []byte, error) {
	var head [6]byte
	if err := c.read(head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 2 || size > MaxFrame {
		return 0, nil, ErrFrame
	}
	var body bytes.Buffer // grows with what comes, not with what the length claims
	if _, err := io.CopyN(&body, c.Conn, int64(size-2)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Type(binary.BigEndian.Uint16(head[4:])), body.Bytes(), nil
}
