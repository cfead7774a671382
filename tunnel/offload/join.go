package offload

import (
	"errors"
	"os"
	"sync"
)

// What the write function of a Join may say; any other error drops the packet.
var (
	ErrRefused = errors.New("offload: the kernel does not take such a packet")
	ErrDown    = errors.New("offload: the interface is down")
	ErrFull    = errors.New("offload: the kernel has no room")
)

// Join puts neighbouring segments of a flow together and writes the resulting superpackets, each with one call. It
// looks at headers alone: whoever calls it knows that the packets come from their sender unchanged, so no checksum is
// verified. It is the kernel that verifies packets that go alone; for the others the sender's checksums are lost,
// and new ones are made by whoever segments them again.
//
// Packets of a flow (addresses, protocol, ports) keep their order, and so do packets between two hosts of which one
// has no ports to be seen. Flows do not wait for each other for longer than until Flush. Owned by one goroutine, but
// for Stats.
type Join struct {
	write func(packet [][]byte) error
	tcp   kind
	udp   kind

	segs    []segment // since the last Flush
	supers  []super   // in order of the first segment's arrival
	written int       // of supers
	flows   [flowSlots]int32

	header [HeaderLen]byte
	bufs   [][]byte
	err    error // the file is closed
	stats  Stats // up to now

	mu        sync.Mutex
	published Stats // guarded by mu: stats at the last Flush
}

// flows is a hash table of the last superpacket of each flow since the last Flush, as its index in supers plus one.
// A flow lies in one of the slots after its hash; when all are taken it replaces the first, which costs that one no
// more than a superpacket that ends early.
const (
	flowSlots  = 64
	flowProbes = 4
)

// kind is one sort of superpacket.
type kind struct {
	on      bool
	refused int // in a row
}

// refusals is how many superpackets of a sort the kernel may refuse in a row before no more are made: more than one,
// so that an odd packet does not cost its receiver the speed for ever.
const refusals = 3

// Stats counts what a Join has done. Of packets, not of bytes, where nothing else is said.
type Stats struct {
	Packets uint64 // given to Add
	Bytes   uint64 // of these
	Writes  uint64 // calls of write that took a packet or superpacket
	Joined  uint64 // packets in superpackets that were taken
	Refused uint64 // superpackets refused, whose packets went alone
	Down    uint64 // dropped: the interface is down
	Full    uint64 // dropped: no room
	Invalid uint64 // dropped: refused even alone, or any other error
}

// NewJoin returns a Join that gives what it makes to write: a virtio-net header, the first packet with the header of
// all, and the payloads of the others, to be written as one. write keeps nothing of it. The Join makes superpackets
// of what o says, until write refuses them with ErrRefused, three in a row.
func NewJoin(write func(packet [][]byte) error, o Offloads) *Join {
	return &Join{
		write: write,
		tcp:   kind{on: o.TCP},
		udp:   kind{on: o.UDP},
		bufs:  make([][]byte, 0, maxSegments+1),
	}
}

// Add takes a packet that the sender has vouched for. It is borrowed, and its headers may change, until Flush; no room
// in front or behind is needed. Superpackets that are complete may be written at once. Empty ones are ignored.
func (j *Join) Add(pkt []byte) {
	if len(pkt) == 0 {
		return
	}
	j.stats.Packets++
	j.stats.Bytes += uint64(len(pkt))
	g := look(pkt)
	if k := j.kind(g.kind); k == nil || !k.on {
		g.kind = gsoNone
	}
	at := int32(len(j.segs))
	j.segs = append(j.segs, g)
	if g.l4 == 0 {
		j.endHosts(&g)
		j.supers = append(j.supers, begin(&g, at))
	} else {
		j.addToFlow(&g, at)
	}
	j.writeReady()
}

// addToFlow puts the segment g, which is at, into its flow's superpacket or begins the next.
func (j *Join) addToFlow(g *segment, at int32) {
	slot, known := j.find(g)
	last := j.flows[slot] - 1
	if known && j.append(last, at) {
		return
	}
	next := begin(g, at)
	if last >= 0 && (known || next.open) {
		j.supers[last].open = false
	}
	j.supers = append(j.supers, next)
	if next.open {
		j.flows[slot] = int32(len(j.supers))
	}
}

// Flush writes what is left and gives all buffers back. It fails only with an error matching os.ErrClosed, when write
// did so since the last Flush; other failures are counted.
func (j *Join) Flush() error {
	for i := j.written; i < len(j.supers); i++ {
		j.supers[i].open = false
	}
	j.writeReady()
	clear(j.flows[:])
	clear(j.segs) // holds no buffer longer than promised
	j.segs, j.supers, j.written = j.segs[:0], j.supers[:0], 0
	j.mu.Lock()
	j.published = j.stats
	j.mu.Unlock()
	err := j.err
	j.err = nil
	return err
}

// Stats is what happened until the last Flush. It may be called by any goroutine.
func (j *Join) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.published
}

// find gives the slot of g's flow and whether the flow is there; otherwise it is the one to take.
func (j *Join) find(g *segment) (slot int, known bool) {
	hash := int(g.hash() % flowSlots)
	for i := range flowProbes {
		slot := (hash + i) % flowSlots
		last := j.flows[slot] - 1
		if last < 0 {
			return slot, false
		}
		if j.segs[j.supers[last].head].sameFlow(g) {
			return slot, true
		}
	}
	return hash, false
}

// endHosts ends every superpacket between the hosts of a packet whose ports are unknown, so that it is not overtaken.
func (j *Join) endHosts(g *segment) {
	if ipHeader(g.pkt) == 0 {
		return
	}
	for i := j.written; i < len(j.supers); i++ {
		if s := &j.supers[i]; s.open && sameHosts(j.segs[s.head].pkt, g.pkt) {
			s.open = false
		}
	}
}

// append adds the segment at to an open superpacket, if it fits.
func (j *Join) append(super, at int32) bool {
	s, g := &j.supers[super], &j.segs[at]
	if !s.open || g.kind == gsoNone || !s.fits(&j.segs[s.head], g) {
		return false
	}
	j.segs[s.tail].next = at
	s.tail = at
	s.count++
	s.total += len(g.payload())
	s.advance(g)
	return true
}

// kind gives the state of a sort of superpackets, nil for none.
func (j *Join) kind(gso uint8) *kind {
	switch gso {
	case gsoTCP4, gsoTCP6:
		return &j.tcp
	case gsoUDPL4:
		return &j.udp
	}
	return nil
}

// writeReady writes the superpackets that nothing can be added to, while their bytes are still in the cache, up to the
// first open one: order is kept even between flows.
func (j *Join) writeReady() {
	for j.written < len(j.supers) && !j.supers[j.written].open {
		j.writeSuper(&j.supers[j.written])
		j.written++
	}
}

// failed counts a write that lost n packets.
func (j *Join) failed(err error, n uint64) {
	switch {
	case errors.Is(err, ErrDown):
		j.stats.Down += n
	case errors.Is(err, ErrFull):
		j.stats.Full += n
	default:
		j.stats.Invalid += n
		if errors.Is(err, os.ErrClosed) {
			j.err = err
		}
	}
}
