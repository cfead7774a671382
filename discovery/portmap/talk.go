package portmap

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	serverPort   = 5351 // of PCP and NAT-PMP
	announcePort = 5350 // where they tell of a restart
	maxAnswers   = 64   // packets read in one conversation: a flood ends it
)

// errSilent is no answer, or none that says what was asked.
var errSilent = errors.New("the router does not answer")

// talkTries are the times after the start of a conversation when what is unanswered is sent again.
var talkTries = []time.Duration{0, 250 * time.Millisecond, 750 * time.Millisecond}

// talk is one conversation with the gateway's port 5351.
type talk struct {
	listen func(network, addr string) (net.PacketConn, error)
	gw     Gateway
	limit  time.Duration // how long it may take
	// grace is how long it goes on after the first answer that was taken; 0: until limit.
	grace time.Duration
}

// run sends what requests returns (that which is unanswered; none ends the conversation) at the times of talkTries, and
// gives every packet from the gateway to take, which says whether it was an answer. It fails with errSilent when no
// answer came, or when ctx ends.
func (t talk) run(ctx context.Context, requests func() [][]byte, take func(pkt []byte) bool) error {
	pc, err := t.listen("udp4", netip.AddrPortFrom(t.gw.Self, 0).String())
	if err != nil {
		return err
	}
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.gw.Addr, serverPort))
	start := time.Now()
	end := start.Add(t.limit)
	sent, answers := 0, 0
	buf := make([]byte, maxPCP+1)
	for read := 0; read < maxAnswers && len(requests()) > 0; {
		now := time.Now()
		if !now.Before(end) || ctx.Err() != nil {
			break
		}
		wake := end
		if sent < len(talkTries) {
			if at := start.Add(talkTries[sent]); !now.Before(at) {
				for _, pkt := range requests() {
					// What is not sent is sent again, or not answered.
					_, _ = pc.WriteTo(pkt, to)
				}
				sent++
				continue
			} else if at.Before(wake) {
				wake = at
			}
		}
		if err := pc.SetReadDeadline(wake); err != nil {
			break
		}
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		read++
		if err != nil || addrPort(from) != to.AddrPort() || !take(buf[:n]) {
			continue
		}
		answers++
		if graceEnd := time.Now().Add(t.grace); t.grace > 0 && graceEnd.Before(end) {
			end = graceEnd
		}
	}
	if answers == 0 {
		return errors.Join(errSilent, ctx.Err())
	}
	return ctx.Err()
}

// addrPort is a packet's sender; zero when it has none.
func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
