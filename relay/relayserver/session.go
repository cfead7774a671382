package relayserver

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/relay"
	"github.com/meshnet/meshnet/relay/internal/outbox"
)

const (
	// smallBuffer is what an idle session reads with, bigBuffer a busy one: a usual frame of the greatest length, or
	// four TLS records.
	smallBuffer = 512
	bigBuffer   = 66 << 10
	// inactiveTime is how long a session that was replaced may stay without sending anything.
	inactiveTime = 10 * time.Second
)

// session is one client's connection. Owned by its reader, run; the exceptions are said.
type session struct {
	server *Server
	conn   net.Conn
	id     identity.PeerID
	home   bool
	flow   uint32 // what outboxes tell senders apart by
	place  *place // immutable after join

	in       relay.Reader
	small    []byte  // its buffer while little comes
	big      *[]byte // the pooled one, while in has it
	idleFill int     // Fills in a row that a small buffer would have done for
	armed    time.Time
	throttle throttle
	fwd      forwarder
	gone     bucket.Bucket
	until    time.Time // the pass and its grace end; zero: never

	writeArmed time.Time // the writer's: when the deadline of writing was set

	// Everybody's:
	box     outbox.Box
	start   func()                // write, as a value that a go statement needs no memory for
	wrote   atomic.Int64          // when something was last written, unix ns
	spoke   atomic.Int64          // when the client last sent a datagram, or was replaced, unix ns
	leaving atomic.Bool           // the last frame is in the outbox
	closing atomic.Bool           // ended is closed, or about to be
	why     atomic.Pointer[error] // why, when it was not the reader
	timer   *time.Timer           // calls tick; stopped until there is a place
	ended   chan struct{}         // closed when the stream is
	written chan struct{}         // closed by the last writer, where box.Close says that there is one
}

func newSession(s *Server, stream relay.Stream) *session {
	c := &session{
		server: s, conn: stream.Conn, flow: rand.Uint32(),
		ended: make(chan struct{}), written: make(chan struct{}),
	}
	relay.LimitUnsent(stream.Conn)
	c.small = make([]byte, smallBuffer)
	c.in = *relay.NewReader(stream.Conn, c.small, relay.MaxHello)
	c.box.Init(
		outbox.Limits{Bytes: urgentBytes, Frames: urgentFrames},
		outbox.Limits{Bytes: max(queueBytes, s.cfg.MaxFrame+relay.HeaderLen), Frames: queueFrames},
	)
	c.start = c.write
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.timer.Stop()
	return c
}

func (c *session) setNode(id identity.PeerID, home bool) {
	c.id, c.home = id, home
}

// readHello reads the client's first frame.
func (c *session) readHello() (relay.ClientHello, error) {
	for {
		f, ok := c.in.Next()
		switch {
		case !ok:
			if _, err := c.in.Fill(); err != nil {
				return relay.ClientHello{}, err
			}
		case f.Type == relay.TypeClientHello:
			return relay.ParseClientHello(f.Payload())
		default:
			return relay.ClientHello{}, relay.ErrMalformed
		}
	}
}

// admitted makes the session known. The Welcome is the first that leaves, and does so when others can reach the client.
func (c *session) admitted(pass *relay.Pass, welcome []byte) {
	now := time.Now()
	c.in.SetMax(c.server.cfg.MaxFrame)
	c.wrote.Store(now.UnixNano())
	c.spoke.Store(now.UnixNano())
	if pass != nil {
		c.until = pass.Expires.Add(relay.PassGrace)
	}
	wake, _ := c.box.Append(outbox.Urgent, 0, &outbox.Load{Head: welcome, Frames: 1})
	before, excess := c.server.places.join(c, now)
	c.schedule(c.server.jittered())
	if wake { // not when the server is closing, and its last frame is there already
		c.wake()
	}
	if before != nil {
		before.replacedBy()
	}
	for _, old := range excess {
		old.replace()
	}
}

// run reads until the stream ends, and clears up.
func (c *session) run() error {
	err := c.read()
	c.end(err)
	c.timer.Stop()
	watchers := c.server.places.leave(c, time.Now())
	c.fwd.forget(c)
	dropped, writing := c.box.Close()
	c.server.count.left.Add(uint64(dropped))
	if writing {
		<-c.written
	}
	c.release()
	c.server.leave(c)
	for _, w := range watchers {
		w.urgent(relay.AppendGone(nil, c.id, relay.GoneLeft))
	}
	return c.sort(*c.why.Load())
}

// sort counts why the session ended.
func (c *session) sort(err error) error {
	switch {
	case errors.Is(err, relay.ErrTooLong):
		c.server.count.tooLong.Add(1)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.server.count.idle.Add(1)
		return errIdle
	}
	return err
}

// errIdle and errStalled end sessions.
var (
	errIdle    = errors.New("nothing was heard for too long")
	errStalled = errors.New("nothing could be written for too long")
)

// isLeft reports whether err is how a stream ends that its client closed.
func isLeft(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe)
}

// read takes all that comes.
func (c *session) read() error {
	for {
		for f, ok := c.in.Next(); ok; f, ok = c.in.Next() {
			c.handle(f)
		}
		now := time.Now()
		c.fwd.flush(c)
		c.fwd.settle(c, now)
		c.shrink()
		if err := c.arm(now); err != nil {
			return err
		}
		n, err := c.in.Fill()
		if err != nil {
			return err
		}
		c.fit(n)
		if rate := c.server.cfg.Rate; rate > 0 && !c.pause(n, rate) {
			return net.ErrClosed
		}
	}
}

// handle takes one frame.
func (c *session) handle(f relay.Frame) {
	switch f.Type {
	case relay.TypeSend, relay.TypeSendUrgent, relay.TypeSendTrain:
		c.fwd.take(c, f)
	case relay.TypeKeepAlive, relay.TypePong:
	case relay.TypePing:
		if p := f.Payload(); len(p) == 8 {
			c.pong(p)
		}
	default:
		c.server.count.skipped.Add(1)
	}
}

// pong answers a ping.
func (c *session) pong(p []byte) {
	var space [relay.HeaderLen + 8]byte
	frame := relay.AppendHeader(space[:0], relay.TypePong, 8)
	c.urgent(binary.BigEndian.AppendUint64(frame, binary.BigEndian.Uint64(p)))
}

// arm moves the deadline of reading, not for every read. A stream without a byte for Idle ends, at most a twentieth
// earlier.
func (c *session) arm(now time.Time) error {
	idle := c.server.cfg.Idle
	if now.Sub(c.armed) < idle/20 {
		return nil
	}
	c.armed = now
	return c.conn.SetReadDeadline(now.Add(idle))
}

var bigBuffers = sync.Pool{New: func() any {
	b := make([]byte, bigBuffer)
	return &b
}}

// fit changes to a big buffer when a small one was filled, and back when that would do twice in a row.
func (c *session) fit(n int) {
	switch {
	case c.big == nil && n >= smallBuffer/2:
		c.big = bigBuffers.Get().(*[]byte)
		if _, ok := c.in.SetBuffer(*c.big); !ok {
			bigBuffers.Put(c.big)
			c.big = nil
		}
		c.idleFill = 0
	case c.big == nil:
	case n > smallBuffer/2:
		c.idleFill = 0
	default:
		c.idleFill++
	}
}

// shrink gives the big buffer back; nothing in it is needed any more.
func (c *session) shrink() {
	if c.big == nil || c.idleFill < 2 || c.in.Buffered() > smallBuffer/2 {
		return
	}
	c.in.SetBuffer(c.small)
	c.release()
}

// release gives the big buffer back that in no longer uses.
func (c *session) release() {
	if c.big != nil {
		bigBuffers.Put(c.big)
		c.big = nil
	}
}
