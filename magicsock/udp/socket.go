package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrTooLarge is returned by Write when a datagram does not fit the link it would leave by. The others of the same
// call were sent.
var ErrTooLarge = errors.New("udp: datagram larger than the link takes")

// ErrFamily is returned by Write for an address of the other family.
var ErrFamily = errors.New("udp: address of the other family")

// TrainSize is the size in bytes of a buffer that holds any train.
const TrainSize = 1 << 16

const (
	// socketBuffer is asked of the kernel for each direction: 7 MiB hold 50 ms at 1 Gbit/s.
	socketBuffer = 7 << 20
	// maxBlock is how long a full send buffer may hold up one Write.
	maxBlock = 10 * time.Millisecond
)

// Source chooses where datagrams leave. The zero value lets the kernel choose.
type Source struct {
	Addr    netip.Addr
	IfIndex int
	// Ahead marks what is sent (DSCP AF41, RFC 2597, as WireGuard marks its handshakes), so that a receiver may take it
	// before what waits. On systems other than Linux it does nothing.
	Ahead bool
	// Fragment lets the host and, with IPv4, routers fragment this call's datagrams. It holds up every other such call,
	// and calls beside it may be sent so too.
	Fragment bool
	// Head is put before each datagram, as eight bytes with the most significant first; 0: nothing is.
	Head uint64
}

// headSize is the size of a head in bytes.
const headSize = 8

// aheadTOS is the mark in the IPv4 TOS and the IPv6 traffic class; the two ECN bits are not part of it.
const (
	aheadTOS  = 0x88
	aheadMask = 0xfc
)

// Config of a socket.
type Config struct {
	Network string     // "udp4" or "udp6"
	Port    uint16     // 0 takes a free one
	Bind    netip.Addr // default: every address of the family
	Mark    uint32     // SO_MARK on Linux, nothing elsewhere; 0 is none
}

// Counters are totals since Listen, and what the socket does now.
type Counters struct {
	RxTooLong  uint64 // received, larger than 64 KiB: dropped
	RxEmpty    uint64 // received without a byte: dropped
	RxOverflow uint64 // dropped by the kernel because nobody read in time (Linux)
	TxFull     uint64 // dropped because the send buffer stayed full
	TxTooLarge uint64 // refused because no link takes that size
	TxNoSource uint64 // calls whose source address was gone, sent from another
	GSO        bool   // runs leave as one segmented message
	GRO        bool   // runs arrive as one message
}

// counters are updated by readers and writers alike.
type counters struct {
	rxTooLong, rxEmpty, rxOverflow, txFull, txTooLarge, txNoSource atomic.Uint64
}

func (c *counters) snapshot() Counters {
	return Counters{
		RxTooLong:  c.rxTooLong.Load(),
		RxEmpty:    c.rxEmpty.Load(),
		RxOverflow: c.rxOverflow.Load(),
		TxFull:     c.txFull.Load(),
		TxTooLarge: c.txTooLarge.Load(),
		TxNoSource: c.txNoSource.Load(),
	}
}

// bind opens the socket; control sets what must be set before the port is taken.
func bind(c Config, control func(network, address string, raw syscall.RawConn) error) (*net.UDPConn, error) {
	if c.Network != "udp4" && c.Network != "udp6" {
		return nil, fmt.Errorf("listen udp: unknown network %q", c.Network)
	}
	if c.Bind.IsValid() && c.Bind.Unmap().Is4() != (c.Network == "udp4") {
		return nil, fmt.Errorf("listen %s on %s: %w", c.Network, c.Bind, ErrFamily)
	}
	host := ""
	if c.Bind.IsValid() {
		host = c.Bind.Unmap().String()
	}
	lc := net.ListenConfig{Control: control}
	pc, err := lc.ListenPacket(context.Background(), c.Network, net.JoinHostPort(host, strconv.Itoa(int(c.Port))))
	if err != nil {
		return nil, err // names the operation and the address
	}
	return pc.(*net.UDPConn), nil
}

func localPort(c *net.UDPConn) uint16 {
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// plainError reduces the two errors that callers branch on to themselves.
func plainError(err error) error {
	switch {
	case errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	}
	return err
}
