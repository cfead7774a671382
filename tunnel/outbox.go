package tunnel

import (
	"time"

	"github.com/meshnet/meshnet/tunnel/wg"
)

const (
	// hostArena and stackArena are the bytes of sealed datagrams that an outbox gathers: what the OS hands out in one
	// go, and one large TCP segment of the netstack.
	hostArena  = 256 << 10
	stackArena = 80 << 10
	// maxGroups is how many members' datagrams are gathered at a time.
	maxGroups = 32
)

// outbox seals packets where they lie in its arena and sends each member's together. Owned by one goroutine at a time.
//
//	begin ─▶ slot ─ the caller fills it ─▶ seal ─▶ … ─▶ flush
//
// Datagrams of equal size for one member stand side by side in the arena and leave as one train.
type outbox struct {
	tap    *tap
	now    time.Time
	at     int64
	arena  []byte
	used   int
	groups []group // of this batch; groups[:open] are in use
	open   int
	last   *group // of the newest slot
	ahead  bool   // what is sealed now may go ahead of bulk on the other side
	nonce  wg.Nonce
}

// group is what goes to one member.
type group struct {
	peer    *peer
	ahead   bool
	session *wg.Session
	pkts    [][]byte
	size    int
	data    bool // not only keepalives
}

func newOutbox(t *tap, arena int) *outbox {
	return &outbox{tap: t, arena: make([]byte, arena), groups: make([]group, maxGroups)}
}

// begin starts a batch.
func (o *outbox) begin(now time.Time) { o.now, o.at = now, o.tap.clock.At(now) }

// slot gives room for a packet of size bytes to p; nil: p has no session, or the packet fits nowhere.
func (o *outbox) slot(p *peer, size int) []byte {
	need := wg.Overhead + wg.Padded(size, o.tap.mtu)
	if o.used+need > len(o.arena) {
		o.flush()
	}
	if o.last == nil || o.last.peer != p || o.last.ahead != o.ahead {
		o.last = o.group(p)
	}
	if o.last == nil || need > len(o.arena) {
		return nil
	}
	return o.arena[o.used+wg.HeaderSize:][:size]
}

// group finds or begins the group of p; nil: there is no session.
func (o *outbox) group(p *peer) *group {
	for i := range o.groups[:o.open] {
		if o.groups[i].peer == p && o.groups[i].ahead == o.ahead {
			return &o.groups[i]
		}
	}
	if o.open == maxGroups {
		o.flush()
	}
	s := p.wg.Acquire(o.at)
	if s == nil {
		return nil
	}
	g := &o.groups[o.open]
	o.open++
	g.peer, g.ahead, g.session, g.size, g.data = p, o.ahead, s, 0, false
	return g
}

// seal encrypts what the caller put into the slot.
func (o *outbox) seal(size int) {
	g := o.last
	counter, ok := g.session.Reserve(1)
	if !ok {
		o.tap.counters.add(outUsedUp)
		return
	}
	padded := wg.Padded(size, o.tap.mtu)
	buf := o.arena[o.used : o.used+padded+wg.Overhead]
	clear(buf[wg.HeaderSize+size : wg.HeaderSize+padded])
	g.session.Seal(&o.nonce, buf, padded, counter)
	g.pkts = append(g.pkts, buf)
	g.size += len(buf)
	g.data = g.data || size > 0
	o.used += len(buf)
}

// add seals a copy of one packet to p, or parks it.
func (o *outbox) add(p *peer, pkt []byte) {
	if slot := o.ready(p, len(pkt)); slot != nil {
		copy(slot, pkt)
		o.seal(len(pkt))
		return
	}
	if o.tap.lot.park(p, pkt, o.now, o.at) {
		return
	}
	o.put(p, pkt) // the session came meanwhile
}

// put seals a copy of one packet to p whatever waits; without a session it is dropped.
func (o *outbox) put(p *peer, pkt []byte) {
	slot := o.slot(p, len(pkt))
	if slot == nil {
		o.tap.counters.add(outNoSession)
		return
	}
	copy(slot, pkt)
	o.seal(len(pkt))
}

// ready is slot for a packet that must not overtake those that wait.
func (o *outbox) ready(p *peer, size int) []byte {
	if p.state.Load() != open {
		return nil
	}
	return o.slot(p, size)
}

// keepalive sends an empty packet.
func (o *outbox) keepalive(p *peer) {
	if o.slot(p, 0) != nil {
		o.seal(0)
	}
}

// flush sends what was gathered.
func (o *outbox) flush() {
	for i := range o.groups[:o.open] {
		g := &o.groups[i]
		switch l := g.peer.linked(); {
		case len(g.pkts) == 0:
		case l == nil:
			o.tap.counters.addN(outNoLink, uint64(len(g.pkts)))
		default:
			if g.ahead {
				l.SendAhead(o.now, g.pkts)
			} else {
				l.Send(o.now, g.pkts)
			}
			g.peer.wg.Sent(o.at, g.size, g.data)
		}
		g.session.Release()
		g.peer, g.session, g.pkts = nil, nil, g.pkts[:0]
	}
	o.open, o.used, o.last = 0, 0, nil
}
