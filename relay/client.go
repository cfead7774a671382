package relay

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/relay/internal/outbox"
)

// Stream is an established connection to a relay, or to a client, with what is known of its security.
type Stream struct {
	net.Conn
	// Exporter is the TLS session's exporter (RFC 8446 §7.5) under ExporterLabel with an empty context, 32 bytes. Nil:
	// TLS ends elsewhere.
	Exporter []byte
	// Host is host:port. Of a client: as dialled. Of a server, and only where TLS ends at a proxy in front of it: the
	// name it is known by, never one that the client merely claims. Empty: nonce proofs are not taken.
	Host string
	// CertHash is the SHA-256 of the DER certificate: of a client, the one it saw; of a server behind a proxy, the
	// proxy's.
	CertHash [32]byte
	// Pinned: the client knows the certificate beforehand, so a proof that a proxy could have passed on is refused.
	Pinned bool
}

// Bounds of what waits to be written to the relay, before the oldest is dropped.
const (
	queueBytes   = 1 << 20
	queueFrames  = 8192
	urgentBytes  = 128 << 10
	urgentFrames = 512
)

// ClientConfig configures a Client. Callbacks are called by the reader of Run, one at a time, and must not block.
type ClientConfig struct {
	Logger   *slog.Logger       // nil discards
	Identity *identity.Identity // required
	Pass     func() []byte      // the pass to show; nil, or nil bytes: none
	Home     bool               // this relay is the node's home

	// Deliver takes datagrams that came together. borrowed: batch and all its bytes, which may be changed in place, until
	// done is called, once, from any goroutine. While too many are not done, what comes is dropped. Nil drops all.
	Deliver func(batch []datagram.Relayed, done func())
	// Gone is told that a node is not at this relay, or left it.
	Gone func(identity.PeerID, Reason)
	// Restarting is told that the relay will end: connect again after in, and try for that long.
	Restarting func(in, try time.Duration)
	// Health is told what the relay has to say to its user; empty: all is well again.
	Health func(text string)
}

// Client is one connection to a relay. Safe for concurrent use. Create it with NewClient, then Run it.
type Client struct {
	cfg    ClientConfig
	log    *slog.Logger
	stream Stream
	hello  ServerHello
	seen   netip.AddrPort
	began  time.Time

	box  outbox.Box
	wake chan struct{} // capacity 1: there is something in box

	writeArmed time.Time // the writer's: when the deadline of writing was set

	reader *Reader
	chunk  *chunk
	pool   *chunkPool

	heard atomic.Int64 // when the relay was last heard, since began
	wrote atomic.Int64 // when something was last written, since began
	rtt   atomic.Int64 // of the newest ping; 0: none yet
	over  atomic.Bool  // Run returned
	count clientCounters
}

// NewClient does the handshake on a fresh stream, within 10 s. On an error the stream is closed. Errors: ErrVersion,
// ErrProof, ErrPass, ErrPassExpired, ErrFull, ErrRefused, ErrMalformed, ErrTooLong, or of the stream.
func NewClient(ctx context.Context, stream Stream, cfg ClientConfig) (*Client, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		cfg: cfg, log: cfg.Logger, stream: stream, began: time.Now(),
		wake: make(chan struct{}, 1), pool: new(chunkPool),
	}
	LimitUnsent(stream.Conn)
	c.box.Init(outbox.Limits{Bytes: urgentBytes, Frames: urgentFrames}, outbox.Limits{Bytes: queueBytes, Frames: queueFrames})
	c.chunk = c.pool.take()
	c.reader = NewReader(stream, c.chunk.buf, MaxHello)
	if err := c.shakeHands(ctx); err != nil {
		stream.Close()
		return nil, err
	}
	return c, nil
}

// Server is the id that the relay drew when it started.
func (c *Client) Server() ServerID { return c.hello.Server }

// Seen is the address that the relay sees this client at; the zero one where it does not tell.
func (c *Client) Seen() netip.AddrPort { return c.seen }

// STUNPort is the UDP port of the relay's STUN responder, at the address of the stream; 0: none.
func (c *Client) STUNPort() uint16 { return c.hello.STUNPort }

// MaxFrame is the greatest payload of a frame, in bytes.
func (c *Client) MaxFrame() int { return c.hello.MaxFrame }

// RTT is the round trip time of the newest ping that was answered; 0: none yet.
func (c *Client) RTT() time.Duration { return time.Duration(c.rtt.Load()) }

// Heard is when the relay was last heard.
func (c *Client) Heard() time.Time { return c.began.Add(time.Duration(c.heard.Load())) }

// Ping asks for an answer at once, which sets RTT and Heard.
func (c *Client) Ping() { c.ping(time.Now()) }

// Home reports whether the relay was told to be the node's home.
func (c *Client) Home() bool { return c.cfg.Home }

// jitter is d give or take a tenth.
func jitter(d time.Duration) time.Duration {
	var b [1]byte
	rand.Read(b[:])
	return d - d/10 + d/5*time.Duration(b[0])/255
}
