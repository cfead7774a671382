package main

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/tunnel/noise"
	"github.com/meshnet/meshnet/tunnel/wg"
)

const (
	swarmTick    = 20 * time.Millisecond // between two looks at all members' timers
	swarmEcho    = time.Second           // before an echo is sent again
	swarmPatient = 15 * time.Second      // before a member has failed
)

// stage of a member within a pass.
type passStage int

const (
	passWaits  passStage = iota // for its turn
	passShakes                  // its initiation is out
	passEchoes                  // it has a session, and its echo is out
	passDone
)

// dweller is one member that the swarm plays.
type dweller struct {
	*talker
	outer, inner netip.Addr
	number       uint16

	stage  passStage
	began  time.Time
	shaken time.Time // its handshake was done
	asked  time.Time // its last echo left
	seq    uint16    // of the pass
}

// swarm plays many members at once, over one socket: each has an address of its own on it. Owned by one goroutine.
type swarm struct {
	conn    *net.UDPConn
	node    netip.AddrPort
	inner   netip.Addr // the node's, in the network
	members []*dweller
	byOuter map[netip.Addr]*dweller
	ticked  time.Time
	buf     []byte
	oob     []byte
	current pass
}

func newSwarm(r *roster) (*swarm, error) {
	s := &swarm{byOuter: make(map[netip.Addr]*dweller), buf: make([]byte, 1<<11), oob: make([]byte, 128)}
	var err1, err2 error
	s.node, err1 = netip.ParseAddrPort(r.Outer)
	s.inner, err2 = netip.ParseAddr(r.Inner)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	for i, m := range r.Members {
		if err := s.add(i, &m, r.Node); err != nil {
			return nil, err
		}
	}
	return s, s.listen()
}

// add makes a member one of the swarm's.
func (s *swarm) add(i int, m *rosterMember, node identity.WGKey) error {
	outer, err1 := netip.ParseAddrPort(m.Outer)
	inner, err2 := netip.ParseAddr(m.Inner)
	t, err3 := newTalker(m.Private, node, m.PSK, time.Now())
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	d := &dweller{talker: t, outer: outer.Addr(), inner: inner, number: uint16(i)}
	s.members = append(s.members, d)
	s.byOuter[d.outer] = d
	return nil
}

// listen opens the socket, which is told for each datagram to which address it came.
func (s *swarm) listen() (err error) {
	if s.conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: crowdPort}); err != nil {
		return err
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		const room = 8 << 20 // bytes: more than all members' datagrams at once
		optErr = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room))
	})
	return errors.Join(err, optErr)
}

// step takes at most one datagram, then does what is due. It returns within wait or swarmTick.
func (s *swarm) step(wait time.Duration) error {
	if err := s.conn.SetReadDeadline(time.Now().Add(min(wait, swarmTick))); err != nil {
		return err
	}
	n, on, _, from, err := s.conn.ReadMsgUDPAddrPort(s.buf, s.oob)
	now := time.Now()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ECONNREFUSED): // the node may not be there yet
	case err != nil:
		return err
	case from == s.node:
		if d := s.byOuter[arrivedAt(s.oob[:on])]; d != nil {
			s.take(now, d, s.buf[:n])
		}
	}
	if now.Sub(s.ticked) >= swarmTick {
		s.ticked = now
		s.tick(now)
	}
	return nil
}

// take handles a datagram for a member.
func (s *swarm) take(now time.Time, d *dweller, msg []byte) {
	switch noise.TypeOf(msg) {
	case noise.TypeData:
		if seq, ok := parseReply(d.open(now, msg), d.number); ok {
			s.echoed(now, d, uint16(seq))
		}
		s.perform(now, d, d.machine.TakeNotes(now))
	case noise.TypeInitiation, noise.TypeResponse, noise.TypeCookieReply:
		actions, done := d.handshake(now, msg)
		s.perform(now, d, actions)
		if done {
			s.shaken(now, d)
		}
	}
}

// tick does what is due by time.
func (s *swarm) tick(now time.Time) {
	for _, d := range s.members {
		if next := d.machine.Next(now); !next.IsZero() && !now.Before(next) {
			s.perform(now, d, d.machine.Tick(now))
		}
		s.advance(now, d)
	}
}

// perform does what a member's machine decided.
func (s *swarm) perform(now time.Time, d *dweller, actions []wg.Action) {
	for i := range actions {
		switch a := &actions[i]; a.Kind {
		case wg.ActInitiate, wg.ActReply:
			s.send(d, a.Message)
		case wg.ActKeepalive:
			s.say(now, d, nil)
		}
	}
}

// say sends a packet through the tunnel.
func (s *swarm) say(now time.Time, d *dweller, packet []byte) {
	if datagram, err := d.seal(now, packet); err == nil {
		s.send(d, datagram)
	}
	s.perform(now, d, d.machine.TakeNotes(now))
}

// send sends a datagram from a member's address. One that the kernel refuses is lost, as on a network.
func (s *swarm) send(d *dweller, datagram []byte) {
	oob := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: d.outer.As4()})
	_, _, _ = s.conn.WriteMsgUDPAddrPort(datagram, oob, s.node)
}

// arrivedAt is the address that a datagram was sent to; the zero Addr when the kernel does not tell.
func arrivedAt(oob []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		const destination = 8 // in struct in_pktinfo of ip(7): index, local address, destination
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= destination+4 {
			return netip.AddrFrom4([4]byte(m.Data[destination:]))
		}
	}
	return netip.Addr{}
}

// echoPacket is an IPv4 packet with an ICMP echo (RFC 792).
func echoPacket(from, to netip.Addr, id, seq uint16) []byte {
	const header = 20
	p := make([]byte, header+echoSize)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_ICMP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	sealHeader(p[:header])
	m := p[header:]
	m[0] = echoRequest
	binary.BigEndian.PutUint16(m[4:], id)
	binary.BigEndian.PutUint16(m[6:], seq)
	binary.NativeEndian.PutUint16(m[2:], ^fold(sum(m, 0)))
	return p
}
