package tunnel

import (
	"time"

	"github.com/meshnet/meshnet/internal/aqm"
	"github.com/meshnet/meshnet/tunnel/offload"
)

// host is the OS's side of the tunnel: a TUN interface.
type host interface {
	name() string
	// readBatch waits for packets of programs and gives each to take, behind a virtio-net header (offload.HeaderLen), as
	// long as there are some and take wants more. It fails when the interface is gone.
	readBatch(take func(buf []byte) bool) error
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
	// hostReads and hostBytes bound what is gathered before it is sent: a full train of small packets, or of one
	// superpacket. More would only make the first wait for the last.
	hostReads = 64
	hostBytes = 60 << 10
	// hostPoll is longer than a read of what is there takes. After it, the TUN was empty until now: a pause is no queue.
	hostPoll = 50 * time.Microsecond
)

// hostReader carries packets from the OS TUN to members, from read to send. Owned by its goroutine.
type hostReader struct {
	tap     *tap
	out     *outbox
	split   offload.Split
	answers icmpWriter
	single  []byte // one packet of a superpacket, when it does not go into the arena
	reads   int
	queue   aqm.Control
	asked   time.Time // the last batch was asked for then
	empty   time.Time // the TUN was empty then: what is read since has waited no longer
	relieve bool      // the next large packet is to be dropped: the TUN's queue stands
}

func newHostReader(t *tap) *hostReader {
	return &hostReader{tap: t, out: newOutbox(t, hostArena)}
}

// run reads until the interface is gone and returns why.
func (r *hostReader) run() error {
	take := r.take // made once: a method value a batch would allocate
	for {
		r.reads, r.asked = 0, time.Now()
		err := r.tap.host.readBatch(take)
		if r.reads < hostReads && r.out.used < hostBytes { // it ended because there was no more
			r.empty = time.Now()
		}
		r.out.flush()
		if err != nil {
			return err
		}
	}
}

// take carries one read and reports whether more may come before the flush.
func (r *hostReader) take(buf []byte) bool {
	if r.reads == 0 {
		r.out.begin(time.Now())
		if r.out.now.Sub(r.asked) > hostPoll {
			r.empty = r.out.now
		}
		r.relieve = r.queue.Drop(r.out.now, r.out.now.Sub(r.empty))
	}
	r.reads++
	r.packet(buf)
	return r.reads < hostReads && r.out.used < hostBytes
}

func (r *hostReader) packet(buf []byte) {
	p, to := r.tap.fromOS(&r.answers, offload.Header(buf), !offload.Super(buf))
	if to == outDropped {
		return
	}
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
				if r.relieve && size >= aqm.Size {
					r.relieve = false
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
