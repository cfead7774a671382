package relayserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/meshnet/meshnet/internal/bucket"
)

// How many answers one IPv4 /24 or IPv6 /56 gets. A node sends a handful of requests when its network changes; a flood
// under somebody's address brings them 5 KB a second.
const (
	stunRate  = 50
	stunBurst = 500
)

// stunPorts is the greatest distance of the second port from the first.
const stunPorts = 4

// stunSocket is a UDP socket of one family and port.
type stunSocket struct {
	conn  *net.UDPConn
	local netip.AddrPort
	v4    bool
	other *stunSocket // of the same family, on the second port; nil: there is none
}

// stunServer has the sockets of the responder. run owns them.
type stunServer struct {
	sockets []*stunSocket
	port    uint16 // the first; 0: there is none

	mu    sync.Mutex
	limit bucket.Prefixes

	answered, limited, ignored atomic.Uint64
}

// listenSTUN listens on the port that TCP has, in the families that TCP has it in, and on a second one nearby.
func listenSTUN(tcp netip.AddrPort) (*stunServer, error) {
	s := &stunServer{limit: bucket.Prefixes{Rate: stunRate, Burst: stunBurst}}
	first, err := listenFamilies(tcp.Addr(), tcp.Port())
	if err != nil {
		return s, err
	}
	s.sockets, s.port = first, tcp.Port()
	for i := range stunPorts {
		port := int(tcp.Port()) + 1 + i
		if port > 65535 {
			break
		}
		second, err := listenFamilies(tcp.Addr(), uint16(port))
		if err != nil {
			continue
		}
		if len(second) != len(first) { // the port is taken in one family
			closeSockets(second)
			continue
		}
		for j := range first {
			first[j].other, second[j].other = second[j], first[j]
		}
		s.sockets = append(first, second...)
		break
	}
	return s, nil
}

// listenFamilies opens one socket of each family that addr stands for, so that the address a datagram arrived at can be
// told and answered from in both.
func listenFamilies(addr netip.Addr, port uint16) ([]*stunSocket, error) {
	var sockets []*stunSocket
	var errs []error
	addr = addr.Unmap()
	for _, family := range []string{"udp4", "udp6"} {
		host := addr
		switch v4 := family == "udp4"; {
		case addr == netip.IPv6Unspecified() && v4:
			host = netip.IPv4Unspecified()
		case addr.Is4() != v4:
			continue
		}
		s, err := listenSocket(family, netip.AddrPortFrom(host, port))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sockets = append(sockets, s)
	}
	// A host without IPv6 listens on :: for both; a port that is taken is a failure of all.
	if taken := errors.Join(errs...); len(sockets) == 0 || len(errs) > 0 && !addr.IsUnspecified() {
		closeSockets(sockets)
		return nil, taken
	}
	return sockets, nil
}

func listenSocket(family string, addr netip.AddrPort) (*stunSocket, error) {
	conn, err := net.ListenUDP(family, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("listen for STUN: %w", err)
	}
	s := &stunSocket{conn: conn, local: addr, v4: family == "udp4"}
	// Where that fails, answers leave from the address that the system picks, and none is told.
	if s.v4 {
		ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true)
	} else {
		ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	}
	return s, nil
}

func closeSockets(sockets []*stunSocket) {
	for _, s := range sockets {
		s.conn.Close()
	}
}

// run answers until ctx ends, and closes the sockets.
func (s *stunServer) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, socket := range s.sockets {
		wg.Go(func() { s.serve(ctx, socket) })
	}
	<-ctx.Done()
	closeSockets(s.sockets)
}

func (s *stunServer) serve(ctx context.Context, socket *stunSocket) {
	buf := make([]byte, maxRequest+1)
	oob := make([]byte, 128)
	for {
		n, oobn, _, from, err := socket.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// What ICMP reports is of no interest; anything else that lasts must not spin.
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		s.answer(socket, buf[:n], oob[:oobn], from)
	}
}

// answer sends what a datagram deserves.
func (s *stunServer) answer(socket *stunSocket, data, oob []byte, from netip.AddrPort) {
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if !isBindingRequest(data) || from.Port() == 0 {
		s.ignored.Add(1)
		return
	}
	s.mu.Lock()
	ok := s.limit.Take(time.Now(), from.Addr())
	s.mu.Unlock()
	if !ok {
		s.limited.Add(1)
		return
	}
	dst, ifIndex := socket.arrivedAt(oob)
	req := stunRequest{data: data, from: from, at: netip.AddrPortFrom(dst, socket.local.Port())}
	if socket.other != nil {
		req.other = socket.other.local.Port()
	}
	answer, ok := answerSTUN(req)
	if !ok {
		s.ignored.Add(1)
		return
	}
	if answer.fromOther {
		socket = socket.other
	}
	if _, _, err := socket.conn.WriteMsgUDPAddrPort(answer.data, socket.source(dst, ifIndex), from); err == nil {
		s.answered.Add(1)
	}
}

// arrivedAt is the address a datagram was sent to, unspecified where the system does not tell, and its link.
func (s *stunSocket) arrivedAt(oob []byte) (netip.Addr, int) {
	if s.v4 {
		var cm ipv4.ControlMessage
		if err := cm.Parse(oob); err == nil {
			if addr, ok := netip.AddrFromSlice(cm.Dst.To4()); ok {
				return addr, cm.IfIndex
			}
		}
		return s.local.Addr(), 0
	}
	var cm ipv6.ControlMessage
	if err := cm.Parse(oob); err == nil {
		if addr, ok := netip.AddrFromSlice(cm.Dst); ok {
			return addr, cm.IfIndex
		}
	}
	return s.local.Addr(), 0
}

// source has an answer leave from the address that was asked.
func (s *stunSocket) source(addr netip.Addr, ifIndex int) []byte {
	switch {
	case addr.IsUnspecified():
		return nil
	case s.v4:
		return (&ipv4.ControlMessage{Src: addr.AsSlice()}).Marshal()
	case addr.IsLinkLocalUnicast():
		return (&ipv6.ControlMessage{Src: addr.AsSlice(), IfIndex: ifIndex}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: addr.AsSlice()}).Marshal()
}

// secondPort is the port of OTHER-ADDRESS; 0: there is none.
func (s *stunServer) secondPort() uint16 {
	if len(s.sockets) == 0 || s.sockets[0].other == nil {
		return 0
	}
	return s.sockets[0].other.local.Port()
}
