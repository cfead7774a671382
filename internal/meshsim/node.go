package meshsim

import (
	"errors"
	"time"

	"github.com/meshnet/meshnet/control"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/sim"
)

// node is a member that runs, or does not.
type node struct {
	net    *Net
	id     identity.PeerID
	number int
	place  time.Duration // its share of each delay
	side   int           // nodes of different sides do not reach each other
	boot   byte

	v      *control.Virtual // nil while it is down
	timer  *sim.Timer
	ends   map[*end]struct{}
	heard  map[identity.PeerID]time.Time // the last packet of each
	meter  meter
	queued bool
}

// end is a node's end of a session.
type end struct {
	node    *node
	far     *end
	session *control.VirtualSession
	dialled bool
	over    bool
	queued  bool
	timer   *sim.Timer
	last    time.Time // when the last frame arrives at the other end
	opened  time.Time
}

var (
	errGone    = errors.New("connection reset")
	errNoRoute = errors.New("no route to host")
)

// wake has the node work at this moment, once.
func (n *node) wake() {
	if !n.queued && n.v != nil {
		n.queued = true
		n.net.world.After(0, n.work)
	}
}

func (n *node) work() {
	n.queued = false
	if n.v == nil {
		return
	}
	if n.timer != nil {
		n.timer.Stop()
	}
	dial, rest := n.v.Work()
	for _, to := range dial {
		n.dial(to)
	}
	n.timer = n.net.world.After(max(rest, time.Millisecond), n.wake)
	n.settle()
}

// settle looks whether what was done calls for more work.
func (n *node) settle() {
	if n.v != nil && n.v.Woken() {
		n.wake()
	}
}

// dial connects to a member: a round trip for WireGuard, one for TCP.
func (n *node) dial(to identity.PeerID) {
	far := n.net.byID[to]
	v := n.v
	trip := n.net.delay(n, far)
	n.meter.both(n.net.world.Now(), contact+handshake+opening)
	n.net.world.After(4*trip, func() {
		if n.v != v {
			return // stopped meanwhile
		}
		if far.v == nil || far.side != n.side {
			n.net.world.After(dialTimeout-4*trip, func() {
				if n.v == v {
					v.Dialled(to, nil, errNoRoute)
					n.settle()
				}
			})
			return
		}
		far.meter.both(n.net.world.Now(), contact+handshake+opening)
		if n.net.people.Meet(far.v, n.number) {
			n.meter.both(n.net.world.Now(), introduction)
			far.meter.both(n.net.world.Now(), introduction)
			far.settle()
		}
		n.net.connect(n, far)
	})
}

// keepalive sends an empty packet.
func (n *node) keepalive(to identity.PeerID) {
	far := n.net.byID[to]
	n.meter.add(n.net.world.Now(), sent, empty)
	n.net.world.After(n.net.delay(n, far), func() {
		if far.v != nil && far.side == n.side {
			far.meter.add(n.net.world.Now(), received, empty)
			far.heard[n.id] = n.net.now()
		}
	})
}

// dialTimeout is when a dial that nobody answers is given up.
const dialTimeout = 5 * time.Second

// stop takes the node down without a word.
func (n *node) stop() {
	if n.timer != nil {
		n.timer.Stop()
	}
	for e := range n.ends {
		e.over = true
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	n.v, n.ends = nil, make(map[*end]struct{})
}

func (e *end) wake() {
	if !e.queued && !e.over {
		e.queued = true
		e.node.net.world.After(0, e.turn)
	}
}

// turn ticks the session and sends what waits.
func (e *end) turn() {
	e.queued = false
	if e.over {
		return
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	if err := e.session.Tick(); err != nil {
		e.close(err)
		return
	}
	e.send()
	now := e.node.net.now()
	e.timer = e.node.net.world.After(max(e.session.Next().Sub(now), time.Millisecond), e.wake)
	e.node.settle()
}

// send puts what waits on the wire in one burst.
func (e *end) send() {
	frames := e.session.Take()
	if len(frames) == 0 {
		return
	}
	bytes := 0
	for i := range frames {
		bytes += frames[i].Size()
	}
	e.carry(bytes, func() { e.far.receive(frames) })
}

// carry counts a burst and has it arrive, behind what was sent before.
func (e *end) carry(bytes int, arrive func()) {
	net := e.node.net
	now := net.world.Now()
	there, back := burst(bytes)
	e.node.meter.add(now, sent, there)
	e.node.meter.add(now, received, back)
	far := e.far
	at := now.Add(net.delay(e.node, far.node))
	if at.Before(e.last) {
		at = e.last
	}
	e.last = at
	net.world.At(at, func() {
		if far.over || far.node.side != e.node.side {
			return
		}
		far.node.meter.add(at, received, there)
		far.node.meter.add(at, sent, back)
		arrive()
	})
}

func (e *end) receive(frames []control.Frame) {
	for _, f := range frames {
		if e.over {
			return
		}
		if _, err := e.session.Receive(f); err != nil {
			e.close(err)
			return
		}
	}
	e.node.settle()
}

// abort ends the session soon: it is called from within it.
func (e *end) abort() {
	e.node.net.world.After(0, func() { e.close(errGone) })
}

// close ends this end and, when the word has come there, the other.
func (e *end) close(err error) {
	if e.over {
		return
	}
	if f, ok := e.session.Farewell(); ok {
		e.carry(f.Size(), func() {
			if _, err := e.far.session.Receive(f); err != nil {
				e.far.close(err)
			}
		})
	}
	e.over = true
	if e.timer != nil {
		e.timer.Stop()
	}
	e.node.meter.both(e.node.net.world.Now(), closing)
	delete(e.node.ends, e)
	e.session.End(err)
	if e.dialled {
		e.node.v.Dialled(e.far.node.id, e.session, err)
	}
	e.node.settle()
	e.carry(0, func() { e.far.close(errGone) })
}

// rekey counts the handshakes of a session that lives.
func (e *end) rekey() {
	e.node.net.world.After(rekey, func() {
		if !e.over {
			e.node.meter.both(e.node.net.world.Now(), handshake)
			e.rekey()
		}
	})
}
