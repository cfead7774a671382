package netlab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pingEvery is the distance of PingUntil's echoes.
const pingEvery = 20 * time.Millisecond

// Ping sends one ICMP echo from the host and returns its round-trip time. Without a deadline in ctx it waits for a
// second.
func (h *Host) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	p, err := h.pinger(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer p.close()
	start := time.Now()
	if err := p.send(0); err != nil {
		return 0, fmt.Errorf("ping %v: %w", addr, err)
	}
	if err := p.receive(); err != nil {
		return 0, p.explain(ctx, err)
	}
	return time.Since(start), nil
}

// PingUntil sends an echo every 20 ms until the first reply to any of them, and returns how long that took since
// the first was sent. Echoes that cannot be sent (no route yet) count as lost.
func (h *Host) PingUntil(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	p, err := h.pinger(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer p.close()
	start := time.Now()
	replied := make(chan error, 1)
	go func() { replied <- p.receive() }() // ends with the reply, or with the socket
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	var unsent error
	for seq := 0; ; seq++ {
		unsent = p.send(seq)
		select {
		case err := <-replied:
			if err != nil {
				return 0, p.explain(ctx, err, unsent)
			}
			return time.Since(start), nil
		case <-tick.C:
		}
	}
}

// pinger is one echo socket. Replies to others' echoes reach it as well, so it has a random identifier.
type pinger struct {
	pc    net.PacketConn
	addr  netip.Addr
	id    int
	stop  func() bool
	proto int // of the ICMP version, for parsing
}

func (h *Host) pinger(ctx context.Context, addr netip.Addr) (*pinger, error) {
	network, proto := "ip4:icmp", 1
	if addr.Is6() {
		network, proto = "ip6:ipv6-icmp", 58
	}
	pc, err := h.ListenPacket(network, "")
	if err != nil {
		return nil, fmt.Errorf("ping %v: %w", addr, err)
	}
	p := &pinger{pc: pc, addr: addr, id: rand.IntN(1 << 16), proto: proto}
	p.stop = context.AfterFunc(ctx, func() { pc.Close() })
	return p, nil
}

func (p *pinger) close() {
	p.stop()
	p.pc.Close()
}

func (p *pinger) send(seq int) error {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: p.id, Seq: seq & 0xffff, Data: []byte("meshnet lab")}}
	if p.addr.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil) // the kernel fills in the IPv6 checksum
	if err != nil {
		return err
	}
	_, err = p.pc.WriteTo(b, &net.IPAddr{IP: p.addr.AsSlice(), Zone: p.addr.Zone()})
	return err
}

// receive returns when a reply to one of the echoes has come.
func (p *pinger) receive() error {
	buf := make([]byte, 1500)
	for {
		n, _, err := p.pc.ReadFrom(buf)
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(p.proto, buf[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.ID == p.id {
			return nil
		}
	}
}

// explain prefers the reason why the socket was closed, and why the last echo was not even sent, to the error that
// the closed socket gave.
func (p *pinger) explain(ctx context.Context, err error, unsent ...error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	for _, u := range unsent {
		if u != nil {
			return fmt.Errorf("ping %v: %w (last echo not sent: %v)", p.addr, err, u)
		}
	}
	return fmt.Errorf("ping %v: no reply: %w", p.addr, err)
}
