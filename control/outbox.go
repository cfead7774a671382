package control

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// maxOutbox is how many bytes may wait for a session. A peer that does not read fast enough loses its session, not
// our memory.
const maxOutbox = 4 << 20

// maxSignals is how many signals may wait for a session. When it is full the oldest makes room: they are soon stale.
const maxSignals = 64

// frame is an encoded message.
type frame struct {
	kind wire.Type
	body []byte
}

func encode(t wire.Type, v any) frame { return frame{t, dcbor.Marshal(v)} }

// outbox is what a session has yet to send. Safe for concurrent use.
type outbox struct {
	wake   chan struct{}
	notify func() // called beside wake; may be nil

	mu      sync.Mutex
	frames  []frame   // guarded by mu
	bytes   int       // guarded by mu
	over    bool      // too much waited; guarded by mu
	signals []frame   // guarded by mu
	fresh   bool      // something changed that both sides ought to know; guarded by mu
	offers  []tag     // guarded by mu
	offerAt time.Time // when they are due, if there are any; guarded by mu
	offered time.Time // when the last ones went; guarded by mu
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// put queues frames. It never blocks.
func (o *outbox) put(frames ...frame) {
	o.mu.Lock()
	for _, f := range frames {
		o.bytes += len(f.body) + 6
		if o.bytes > maxOutbox {
			o.over = true
			break
		}
		o.frames = append(o.frames, f)
	}
	o.mu.Unlock()
	o.rouse()
}

// push queues frames of what changed.
func (o *outbox) push(frames ...frame) {
	o.mu.Lock()
	o.fresh = true
	o.mu.Unlock()
	o.put(frames...)
}

// offer has a fact offered at a time, or with others before that.
func (o *outbox) offer(at time.Time, t tag) {
	o.mu.Lock()
	o.fresh = true
	first := len(o.offers) == 0
	if earliest := o.offered.Add(offerEvery); at.Before(earliest) {
		at = earliest
	}
	if first || at.Before(o.offerAt) {
		o.offerAt = at
	}
	o.offers = append(o.offers, t)
	o.mu.Unlock()
	if first {
		o.rouse()
	}
}

// takeBack does not offer what the peer has.
func (o *outbox) takeBack(t tag) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.offers = slices.DeleteFunc(o.offers, func(x tag) bool { return x == t })
}

// putOffers queues the offers that are due.
func (o *outbox) putOffers(now time.Time) {
	o.mu.Lock()
	var due []tag
	if len(o.offers) > 0 && !now.Before(o.offerAt) {
		due, o.offers, o.offered = o.offers, nil, now
	}
	o.mu.Unlock()
	for part := range slices.Chunk(due, maxTags) {
		o.put(tagFrame(typeOffer, part))
	}
}

func tagFrame(t wire.Type, all []tag) frame {
	list := make([]byte, 0, len(all)*tagSize)
	for _, x := range all {
		list = binary.BigEndian.AppendUint64(list, uint64(x))
	}
	return encode(t, &tags{list})
}

// nextOffer is when offers are due; ok is false when there are none.
func (o *outbox) nextOffer() (at time.Time, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.offerAt, len(o.offers) > 0
}

// changed reports whether anything was pushed since the last time.
func (o *outbox) changed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	fresh := o.fresh
	o.fresh = false
	return fresh
}

func (o *outbox) rouse() {
	if o.notify != nil {
		o.notify()
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// putSignal queues a signal, which goes ahead of the frames. It never blocks and tells whether another one was lost.
func (o *outbox) putSignal(f frame) (lost bool) {
	o.mu.Lock()
	if lost = len(o.signals) == maxSignals; lost {
		o.signals = append(o.signals[:0], o.signals[1:]...)
	}
	o.signals = append(o.signals, f)
	o.mu.Unlock()
	o.rouse()
	return lost
}

// takeSignals empties the queue of signals.
func (o *outbox) takeSignals() []frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.signals
	o.signals = nil
	return all
}

// take empties the outbox. over: more came than it holds.
func (o *outbox) take() (frames []frame, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames, over = o.frames, o.over
	o.frames, o.bytes = nil, 0
	return frames, over
}
