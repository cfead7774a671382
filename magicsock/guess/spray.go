package guess

import (
	"math/rand/v2"
	"net/netip"
	"time"
)

const (
	// MaxProbes is how many pings leave in one attempt, by either side.
	MaxProbes = 1024
	// Window is how long an attempt lasts.
	Window = 9 * time.Second

	// sprayBatch pings leave every sprayStep: 160 a second, the last after 6.4 s.
	sprayBatch = 16
	sprayStep  = 100 * time.Millisecond
	// nearPorts are pinged after each port that the hard side knows of itself, and at most maxNear ports in all.
	nearPorts = 32
	maxNear   = 128
	// firstPort is the lowest port that NATs give out (RFC 4787 §4.2.2, REQ-3).
	firstPort = 1024
)

// Spray is the easy side of an attempt: which ports of the other side's address to ping, and when.
type Spray struct {
	target netip.Addr
	ports  []uint16 // those to come, the next one first
	next   time.Time
	end    time.Time
}

// NewSpray plans an attempt that begins now. known are ports of the target that were the hard side's for somebody else.
func NewSpray(now time.Time, target netip.Addr, known []uint16, random *rand.Rand) *Spray {
	s := &Spray{target: target, next: now, end: now.Add(Window), ports: make([]uint16, 0, MaxProbes)}
	taken := make(map[uint16]bool, MaxProbes)
	add := func(port uint16) {
		if port >= firstPort && !taken[port] {
			taken[port] = true
			s.ports = append(s.ports, port)
		}
	}
	for after := uint16(1); after <= nearPorts; after++ {
		for _, port := range known {
			if len(s.ports) < maxNear {
				add(port + after) // beyond the last port it begins anew, at one that is not added
			}
		}
	}
	for len(s.ports) < MaxProbes {
		add(uint16(firstPort + random.IntN(1<<16-firstPort)))
	}
	return s
}

// Tick returns whom to ping now; call it when Due has come. It is never more than a batch, nor more than MaxProbes in
// all.
func (s *Spray) Tick(now time.Time) []netip.AddrPort {
	if len(s.ports) == 0 || now.Before(s.next) {
		return nil
	}
	s.next = now.Add(sprayStep)
	n := min(sprayBatch, len(s.ports))
	targets := make([]netip.AddrPort, n)
	for i, port := range s.ports[:n] {
		targets[i] = netip.AddrPortFrom(s.target, port)
	}
	s.ports = s.ports[n:]
	return targets
}

// Due is when Tick is to be called next; then, or when nothing is left to ping, when the attempt is over.
func (s *Spray) Due() time.Time {
	if len(s.ports) == 0 || s.end.Before(s.next) {
		return s.end
	}
	return s.next
}

// Over reports whether the attempt has failed: what was to answer has had its time.
func (s *Spray) Over(now time.Time) bool { return !now.Before(s.end) }
