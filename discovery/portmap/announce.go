package portmap

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// allHosts is the group in which routers tell of a restart or a new outside address.
var allHosts = netip.AddrFrom4([4]byte{224, 0, 0, 1})

// announcement is a packet that says to be from a router which restarted (RFC 6886 §3.2.1, RFC 6887 §14.1).
type announcement struct {
	from     netip.Addr
	protocol Protocol
	epoch    uint32
	address  netip.Addr // outside, of NAT-PMP
}

// parseAnnouncement reads what comes to the group. It fails with errAnswer.
func parseAnnouncement(pkt []byte) (announcement, error) {
	if a, err := parsePCP(pkt); err == nil && a.opcode == pcpAnnounce && a.result == pcpSuccess {
		return announcement{protocol: PCP, epoch: a.epoch}, nil
	}
	if a, err := parsePMP(pkt); err == nil && a.opcode == pmpAddress && a.result == pmpSuccess {
		return announcement{protocol: NATPMP, epoch: a.epoch, address: a.address}, nil
	}
	return announcement{}, errAnswer
}

// hear passes announcements on until the socket is closed. Those beyond a few are dropped: one is as good as many.
func hear(pc net.PacketConn, to chan<- announcement) {
	buf := make([]byte, maxPCP+1)
	for failed := 0; failed < maxAnswers; {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failed++
			continue
		}
		a, err := parseAnnouncement(buf[:n])
		if src := addrPort(from); err == nil && src.Port() == serverPort {
			a.from = src.Addr()
			select {
			case to <- a:
			default:
			}
		}
	}
}

// restarted reports whether an announcement says that our mapping is gone, or has another outside address.
func (m *Mapper) restarted(a announcement) bool {
	now := time.Now()
	l := m.lease
	if l != nil && a.from != l.gw.Addr || now.Sub(m.heardAt) < announceGap {
		return false
	}
	if l == nil && a.from != m.Status().Gateway {
		return false
	}
	var kept bool
	if a.protocol == PCP {
		kept = m.pcp.read(now, a.epoch)
	} else {
		kept = m.pmp.read(now, a.epoch)
	}
	if l != nil && kept && (!a.address.IsValid() || a.address == l.external.Addr()) {
		return false
	}
	m.heardAt = now
	return true
}
