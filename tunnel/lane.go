package tunnel

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/meshnet/meshnet/internal/aqm"
	"github.com/meshnet/meshnet/tunnel/offload"
)

const (
	// laneBuffers is how many superpackets wait at most; what the OS has beyond them waits there.
	laneBuffers = 48
	// laneFlows is how many flows are told apart; more share an entry, and wait for each other.
	laneFlows = 1024
	// laneQuiet is how long a flow without superpackets is bulk still: as long as they may be on their way to the other
	// side's program, nothing of the flow goes ahead of them there.
	laneQuiet = 20 * time.Millisecond
)

// lane is where superpackets wait for their turn, so that everything else goes ahead of them: an echo, a query, a key
// press, an acknowledgement does not wait for the megabytes that a bulk flow keeps on its way. It is filled from the OS
// TUN as soon as there is something, and emptied one superpacket at a time.
//
// A flow's packets keep their order: while one of its superpackets waits, everything else of it does. Owned by the host
// reader.
type lane struct {
	ring  [laneBuffers]laneEntry
	head  int
	count int
	free  [][]byte
	flows [laneFlows]laneFlow
	queue aqm.Control
}

type laneEntry struct {
	buf  []byte // as read
	peer *peer
	to   outbound
	flow *laneFlow
	at   time.Time
}

// laneFlow is what is known of a flow.
type laneFlow struct {
	waiting int
	bulk    time.Time // a superpacket of it left
}

// calm reports whether the flow has had no superpackets for a while.
func (f *laneFlow) calm(now time.Time) bool { return f.waiting == 0 && now.Sub(f.bulk) > laneQuiet }

// flow finds the entry of an IP packet's flow.
func (l *lane) flow(pkt []byte) *laneFlow {
	const m = 0x9e3779b97f4a7c15
	var h uint64
	mix := func(v uint64) {
		hi, lo := bits.Mul64(h^v, m)
		h = hi ^ lo
	}
	ports, proto := 0, byte(0)
	if pkt[0]>>4 == 4 {
		mix(binary.LittleEndian.Uint64(pkt[12:]))
		ports, proto = int(pkt[0]&15)*4, pkt[9]
		if binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			proto = 0 // a fragment: only the first has ports
		}
	} else {
		for at := 8; at < ipv6HeaderLen; at += 8 {
			mix(binary.LittleEndian.Uint64(pkt[at:]))
		}
		ports, proto = ipv6HeaderLen, pkt[6]
	}
	if (proto == protocolTCP || proto == protocolUDP) && len(pkt) >= ports+4 {
		mix(uint64(binary.LittleEndian.Uint32(pkt[ports:])) | uint64(proto)<<32)
	}
	return &l.flows[h%laneFlows]
}

const (
	protocolTCP = 6
	protocolUDP = 17
)

func (l *lane) full() bool  { return l.count == laneBuffers }
func (l *lane) empty() bool { return l.count == 0 }

// put takes over the buffer of a read and returns another in its place.
func (l *lane) put(e laneEntry) (fresh []byte) {
	l.ring[(l.head+l.count)%laneBuffers] = e
	l.count++
	e.flow.waiting++
	if n := len(l.free); n > 0 {
		fresh, l.free = l.free[n-1], l.free[:n-1]
		return fresh
	}
	return make([]byte, offload.MaxRead)
}

// take takes out the oldest. done gives its buffer back.
func (l *lane) take(now time.Time) laneEntry {
	e := l.ring[l.head]
	l.ring[l.head] = laneEntry{}
	l.head = (l.head + 1) % laneBuffers
	l.count--
	e.flow.waiting--
	e.flow.bulk = now
	return e
}

func (l *lane) done(e laneEntry) { l.free = append(l.free, e.buf[:cap(e.buf)]) }

// shrink gives the memory back that a busy time needed.
func (l *lane) shrink() { l.free = nil }
