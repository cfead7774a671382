package tunnel

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
	"github.com/meshnet/meshnet/tunnel/wg"
)

// maxRun is how many datagrams are opened before their packets go on.
const maxRun = 64

// inbox opens datagrams where they lie and hands the packets on. Owned by the goroutine of one leg of the socket.
type inbox struct {
	tap      *tap
	sessions *wg.Table
	door     *door
	out      hostWriter // nil in userspace mode
	stack    stackJoin
	judged   verdict // its packets go to the OS TUN

	now   time.Time
	at    int64
	self  *self
	table *table
	nonce wg.Nonce
	run   run
}

// run is a stretch of datagrams under one session, from one source.
type run struct {
	session  *wg.Session
	index    [4]byte
	n        int // packets
	packets  [maxRun][]byte
	counters [maxRun]uint64
	stale    [maxRun]bool
}

// take carries what one read of the socket brought.
func (in *inbox) take(now time.Time, trains []datagram.Train) {
	in.now, in.at = now, in.tap.clock.At(now)
	in.self, in.table = in.tap.self.Load(), in.tap.table.Load()
	for i := range trains {
		in.train(&trains[i])
	}
	in.stack.flush()
	if in.out != nil {
		in.tap.counters.addN(inTUNWrite, in.out.flush())
	}
}

func (in *inbox) train(t *datagram.Train) {
	for data := t.Data; len(data) > 0; {
		d := data[:min(t.Size, len(data))]
		data = data[len(d):]
		if len(d) < wg.Overhead {
			in.tap.counters.add(inShort)
			continue
		}
		if binary.LittleEndian.Uint32(d) == noise.TypeData {
			in.transport(d, &t.From)
		} else {
			in.door.knock(in.now, d, &t.From)
		}
	}
	in.end(&t.From)
}

// transport opens one datagram.
func (in *inbox) transport(d []byte, from *datagram.Source) {
	r := &in.run
	if r.session == nil || !bytes.Equal(r.index[:], d[4:8]) || r.n == maxRun {
		in.end(from)
		if r.session = in.sessions.Acquire(d, in.at); r.session == nil {
			in.tap.counters.add(inNoSession)
			return
		}
		r.index = [4]byte(d[4:8])
	}
	pkt, counter, err := r.session.Open(&in.nonce, d)
	if err != nil {
		in.tap.counters.add(inForged)
		return
	}
	r.packets[r.n], r.counters[r.n] = pkt, counter
	r.n++
}

// end hands on what a run holds and lets go of its session.
func (in *inbox) end(from *datagram.Source) {
	r := &in.run
	if r.session == nil {
		return
	}
	if r.n > 0 {
		in.deliver(r, from)
	}
	r.session.Release()
	r.session, r.n = nil, 0
}

// deliver hands on the packets of a run. Before, session and source are known to be good, so that an answer may use them.
func (in *inbox) deliver(r *run, from *datagram.Source) {
	r.session.Fresh(r.counters[:r.n], r.stale[:r.n])
	size, data := 0, false // of the fresh ones
	for i, pkt := range r.packets[:r.n] {
		if r.stale[i] {
			in.tap.counters.add(inReplayed)
			continue
		}
		size += len(pkt) + wg.Overhead
		data = data || len(pkt) > 0
	}
	if size == 0 {
		return
	}
	p := r.session.Peer.Owner.(*peer)
	p.wg.Received(in.at, r.session, size, data)
	if l := p.linked(); l != nil {
		l.Authenticated(in.now, from, size)
	}
	if data && !r.session.Decided() {
		awaitDecision(r.session)
	}
	for i, pkt := range r.packets[:r.n] {
		if !r.stale[i] && len(pkt) > 0 { // the others are keepalives
			in.packet(p, pkt)
		}
	}
}

// decisionWait is how long the first packet of a new session waits for the owner to take the session up. An answer could
// otherwise go under the one before, which the other side may have lost: it is why there is a new one.
const (
	decisionWait = 20 * time.Millisecond // on a busy host; else some microseconds
	decisionPoll = 20 * time.Microsecond
)

// awaitDecision is the one time that the packet path waits for the owner, once a session.
func awaitDecision(s *wg.Session) {
	for waited := time.Duration(0); waited < decisionWait && !s.Decided(); waited += decisionPoll {
		time.Sleep(decisionPoll)
	}
}

// packet hands on one packet of p's.
func (in *inbox) packet(p *peer, padded []byte) {
	both, size := ends(padded)
	if in.judged.holds(in.self, in.table, both) && in.judged.peer == p {
		in.out.add(padded[:size])
		return
	}
	pkt, to := in.tap.fromMember(in.self, in.table, p, padded)
	switch to {
	case inTUN:
		in.judged.remember(in.self, in.table, p, both)
		in.out.add(pkt)
	case inStack:
		in.stack.add(in.tap, pkt)
	}
}
