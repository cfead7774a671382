package tunnel

import (
	"time"

	"github.com/meshnet/meshnet/internal/aqm"
	"github.com/meshnet/meshnet/tunnel/offload"
)

// host is the OS's side of the tunnel: a TUN interface.
type host interface {
	name() string
	// readBatch gives packets of programs to take, each behind a virtio-net header (offload.HeaderLen), as long as there
	// are some and take wants more; wait: it waits for the first. It fails when the interface is gone.
	readBatch(wait bool, take func(buf []byte) bool) error
	// keep, called by take, leaves the buffer at hand to take for good; later reads go to another of the same size.
	keep(fresh []byte)
	// writer gives the memory of one goroutine that writes.
	writer() hostWriter
	// write gives the OS the one packet in buf behind headroom, from any goroutine.
	write(buf []byte) error
	// run serves the interface until close.
	run()
	close() error
}

// hostWriter writes packets to the OS TUN, those of one flow together. Owned by one goroutine.
type hostWriter interface {
	// add takes a packet, whose memory stays as it is until flush.
	add(pkt []byte)
	// flush writes what is left and returns how many packets were lost since the last one.
	flush() (lost uint64)
}

const (
	// hostReads and hostBytes bound what is gathered before it is sent: a full train of small packets. More would only
	// make the first wait for the last. Of superpackets it is bulkBytes at a time: fewer, and every one wakes the other
	// side; more, and what goes ahead of the next ones waits longer.
	hostReads = 64
	hostBytes = 60 << 10
	bulkBytes = 180 << 10
	// hostAlone is how long after a packet that went ahead of bulk there is none to be expected: superpackets are then
	// read bulkSupers at a time and not as soon as they are there, so that each is still in the cache when it is sealed.
	hostAlone  = 100 * time.Millisecond
	bulkSupers = 3
	// hostIdle is how long nothing comes before the memory of busy times is given back.
	hostIdle = 10 * time.Second
)

// hostReader carries packets from the OS TUN to members, from read to send. Owned by its goroutine.
//
//	OS TUN ─┬─ superpackets, and what belongs behind them ── lane ── one at a time ─┬─ outbox
//	        └─ everything else ─────────────────────────────────────────────────────┘
type hostReader struct {
	tap     *tap
	out     *outbox
	split   offload.Split
	answers icmpWriter
	lane    lane
	judged  verdict
	single  []byte // one packet of a superpacket, when it does not go into the arena
	reads   int
	last    time.Time // something was read then
	passed  time.Time // a packet went ahead of bulk then
}

func newHostReader(t *tap) *hostReader {
	return &hostReader{tap: t, out: newOutbox(t, hostArena)}
}

// run reads until the interface is gone and returns why.
func (r *hostReader) run() error {
	take := r.take // made once: a method value a batch would allocate
	for {
		r.reads = 0
		err := r.tap.host.readBatch(r.lane.empty(), take)
		r.out.flush()
		if err != nil {
			return err
		}
		if !r.lane.empty() {
			r.bulk()
		}
	}
}

// take carries one read, or has it wait, and reports whether more may come before the flush.
func (r *hostReader) take(buf []byte) bool {
	if r.reads == 0 {
		r.begin(time.Now())
	}
	r.reads++
	r.sort(buf)
	if r.lane.count >= bulkSupers && r.out.now.Sub(r.passed) > hostAlone {
		return false
	}
	return r.reads < hostReads && r.out.used < hostBytes && !r.lane.full()
}

// begin starts a batch.
func (r *hostReader) begin(now time.Time) {
	if now.Sub(r.last) > hostIdle {
		r.lane.shrink()
	}
	r.last = now
	r.out.begin(now)
}

func (r *hostReader) sort(buf []byte) {
	pkt, super := offload.Header(buf), offload.Super(buf)
	p, to := r.judge(pkt, offload.PacketSize(buf))
	if to == outDropped {
		return
	}
	flow := r.lane.flow(pkt)
	if super || flow.waiting > 0 {
		r.tap.host.keep(r.lane.put(laneEntry{buf: buf, peer: p, to: to, flow: flow, at: r.out.now}))
		return
	}
	r.out.ahead, r.passed = flow.calm(r.out.now), r.out.now
	r.packet(buf, p, to, false)
}

// judge is tap.fromOS, which the packets of a flow need once.
func (r *hostReader) judge(pkt []byte, size int) (*peer, outbound) {
	s, t := r.tap.self.Load(), r.tap.table.Load()
	both, _ := ends(pkt)
	if r.judged.holds(s, t, both) && size <= r.judged.peer.limit(r.tap.mtu) {
		return r.judged.peer, outMember
	}
	p, to := r.tap.fromOS(&r.answers, pkt, size)
	if to == outMember {
		r.judged.remember(s, t, p, both)
	}
	return p, to
}

// bulk sends the superpackets whose turn it is.
func (r *hostReader) bulk() {
	now := time.Now()
	r.begin(now)
	r.out.ahead = false
	for !r.lane.empty() && r.out.used < bulkBytes {
		e := r.lane.take(now)
		r.packet(e.buf, e.peer, e.to, r.lane.queue.Drop(now, now.Sub(e.at)))
		r.lane.done(e)
	}
	r.out.flush()
}

// packet carries what one read gave; relieve: without its first large packet, since too much waits.
func (r *hostReader) packet(buf []byte, p *peer, to outbound, relieve bool) {
	if err := r.split.Start(buf); err != nil {
		r.tap.counters.add(outMalformed)
		return
	}
	for size := r.split.Size(); size > 0; size = r.split.Size() {
		if size > r.tap.mtu {
			r.tap.counters.add(outTooBig)
			return
		}
		if to == outMember {
			if slot := r.out.ready(p, size); slot != nil {
				r.split.Fill(slot)
				if relieve && size >= aqm.Size {
					relieve = false
					r.tap.counters.add(outDelayed)
					continue
				}
				r.out.seal(size)
				continue
			}
		}
		r.slow(p, to, size)
	}
}

// slow takes a packet that the netstack answers or that has to wait.
func (r *hostReader) slow(p *peer, to outbound, size int) {
	if cap(r.single) < size {
		r.single = make([]byte, size)
	}
	pkt := r.single[:size]
	r.split.Fill(pkt)
	if to == outStack {
		r.tap.inject(pkt)
		return
	}
	r.out.add(p, pkt)
}
