package tunnel

import (
	"errors"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/meshnet/meshnet/tunnel/offload"
)

// stackWriter carries the netstack's packets to members, from the stack to the socket in the goroutine that wrote them.
// A large TCP segment is judged and copied once, then cut into the outbox. Safe for concurrent use: each call has memory
// of its own, which the collector takes back when nothing is sent.
type stackWriter struct {
	tap  *tap
	pool sync.Pool // of *stackOut
}

// stackOut is the memory of one call.
type stackOut struct {
	out    *outbox
	split  offload.Split
	pkt    []byte // what the stack gave, behind a virtio-net header
	single []byte // one packet behind headroom, when it does not go into the arena
}

func newStackWriter(t *tap) *stackWriter {
	w := &stackWriter{tap: t}
	w.pool.New = func() any {
		return &stackOut{out: newOutbox(t, stackArena), single: make([]byte, headroom+t.mtu)}
	}
	return w
}

// write takes a batch of the stack, which may hold locks: nothing here calls into it.
func (w *stackWriter) write(pkts stack.PacketBufferList) (int, tcpip.Error) {
	s := w.pool.Get().(*stackOut)
	defer w.pool.Put(s)
	s.out.begin(time.Now())
	defer s.out.flush()
	for i, pkt := range pkts.AsSlice() {
		switch err := w.one(s, pkt); {
		case err == nil:
		case errors.Is(err, errNoMember):
			return i, &tcpip.ErrHostUnreachable{}
		default:
			return i, &tcpip.ErrNoBufferSpace{}
		}
	}
	return pkts.Len(), nil
}

// one carries one packet or large segment. What policy drops looks like a silent network.
func (w *stackWriter) one(s *stackOut, pkt *stack.PacketBuffer) error {
	s.flatten(pkt)
	p, err := w.tap.fromStack(offload.Header(s.pkt))
	switch err {
	case nil, errForHost:
	case errFiltered:
		return nil
	default:
		return err
	}
	if err := s.split.Start(s.pkt); err != nil {
		w.tap.counters.add(outMalformed)
		return errDropped
	}
	for size := s.split.Size(); size > 0; size = s.split.Size() {
		w.next(s, p, size)
	}
	return nil
}

// next carries the next packet of a segment to p, or to the OS if that is nil.
func (w *stackWriter) next(s *stackOut, p *peer, size int) {
	if p != nil {
		if slot := s.out.ready(p, size); slot != nil {
			s.split.Fill(slot)
			s.out.seal(size)
			return
		}
	}
	if cap(s.single) < headroom+size {
		s.single = make([]byte, headroom+size)
	}
	single := s.single[:headroom+size]
	s.split.Fill(single[headroom:])
	if p == nil {
		w.tap.toHost(single)
		return
	}
	s.out.add(p, single[headroom:])
}

// flatten copies the packet behind the header that says what is left to do about it.
func (s *stackOut) flatten(pkt *stack.PacketBuffer) {
	size := offload.HeaderLen + pkt.Size()
	if cap(s.pkt) < size {
		s.pkt = make([]byte, size)
	}
	s.pkt = s.pkt[:size]
	putSegmentation(s.pkt, pkt)
	views, skip := pkt.AsViewList()
	b := s.pkt[offload.HeaderLen:]
	for v := views.Front(); v != nil; v = v.Next() {
		part := v.AsSlice()
		if skip >= len(part) {
			skip -= len(part)
			continue
		}
		b = b[copy(b, part[skip:]):]
		skip = 0
	}
}
