package control

import (
	"sync"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// maxOutbox is how many bytes may wait for a session. A peer that does not read fast enough loses its session, not
// our memory.
const maxOutbox = 4 << 20

// frame is an encoded message.
type frame struct {
	kind wire.Type
	body []byte
}

func encode(t wire.Type, v any) frame { return frame{t, dcbor.Marshal(v)} }

// outbox is what a session has yet to send. Safe for concurrent use.
type outbox struct {
	wake chan struct{}

	mu     sync.Mutex
	frames []frame // guarded by mu
	bytes  int     // guarded by mu
	over   bool    // too much waited; guarded by mu
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
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take empties the outbox. over: more came than it holds.
func (o *outbox) take() (frames []frame, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames, over = o.frames, o.over
	o.frames, o.bytes = nil, 0
	return frames, over
}
