package control

import (
	"errors"
	"time"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
)

// Virtual is a Mesh that somebody else drives, with a clock and connections of their own: thousands of them fit into one
// simulation. It makes no maps. Not safe for concurrent use; its Mesh is not to be run.
type Virtual struct{ mesh *Mesh }

// Frame is a message of a session.
type Frame struct {
	Type wire.Type
	Body []byte
}

// Size is how long the frame is on its stream, in bytes.
func (f *Frame) Size() int { return wire.HeaderSize + len(f.Body) }

// NewVirtual makes one. Config needs Identity, Store and Now, and no Dial, Listener, Rendezvous or Provisional.
func NewVirtual(cfg Config) (*Virtual, error) {
	m, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return &Virtual{m}, nil
}

// Mesh is the Mesh itself, to look at and to tell.
func (v *Virtual) Mesh() *Mesh { return v.mesh }

// Woken reports whether Work has something to do since the last time that it was asked.
func (v *Virtual) Woken() bool {
	select {
	case <-v.mesh.dirty:
		return true
	default:
		return false
	}
}

// Work does what is due. It returns whom to dial, each to be followed by Dialled, and how long there is nothing to do
// unless Woken says so.
func (v *Virtual) Work() (dial []identity.PeerID, rest time.Duration) {
	m := v.mesh
	m.hear()
	m.housekeep()
	m.mu.Lock()
	m.events, m.touched, m.drawAt, m.namesDue = nil, make(map[identity.PeerID]struct{}), time.Time{}, time.Time{}
	m.mu.Unlock()
	_ = m.flush() // to nowhere
	m.organise()
	m.mu.Lock()
	m.dropRevoked(m.topology.state)
	m.mu.Unlock()
	m.takeDue(func(id identity.PeerID) bool {
		dial = append(dial, id)
		return true
	})
	return dial, m.rest()
}

// Dialled says how a dial ended: s nil when no connection came about, else when its session did.
func (v *Virtual) Dialled(to identity.PeerID, s *VirtualSession, err error) {
	var own *session
	if s != nil {
		own = s.session
	}
	v.mesh.dialled(to, own, err, true)
	v.mesh.poke()
}

// VirtualSession is a session of a Virtual: what comes is given to Receive, what Take returns is to be sent.
type VirtualSession struct {
	*session
	mesh *Mesh
}

// Open begins a session over a connection with a member, which this node dialled or not. wake is called when Tick and
// Take have something to do, abort when the session is to end at once; neither may call back.
func (v *Virtual) Open(peer identity.PeerID, dialled bool, wake, abort func()) (*VirtualSession, error) {
	r := acceptor
	if dialled {
		r = dialer
	}
	s := v.mesh.newSession(peer, r, abort)
	s.out.notify = wake
	return &VirtualSession{s, v.mesh}, v.mesh.begin(s)
}

// Receive takes a message. up tells that the session is established by it. After an error the session is to end.
func (s *VirtualSession) Receive(f Frame) (up bool, err error) {
	return s.mesh.receive(s.session, f.Type, f.Body)
}

// ErrSilent ends the session of a peer that does not answer.
var ErrSilent = errors.New("peer does not answer")

// Tick queues what time calls for; ErrSilent when the peer is gone.
func (s *VirtualSession) Tick() error {
	if !s.mesh.tick(s.session) {
		return ErrSilent
	}
	return nil
}

// Next is when to call Tick again, if nothing wakes it before.
func (s *VirtualSession) Next() time.Time { return s.next(s.mesh.wall()) }

// Take empties what waits to be sent.
func (s *VirtualSession) Take() []Frame {
	frames, _ := s.out.take()
	var all []Frame
	for _, f := range s.out.takeSignals() {
		all = append(all, Frame{f.kind, f.body})
	}
	for _, f := range frames {
		s.noteSent(s.mesh.wall(), f)
		all = append(all, Frame{f.kind, f.body})
	}
	return all
}

// Farewell is the last message, if this side ends the session by its own will.
func (s *VirtualSession) Farewell() (Frame, bool) {
	s.mesh.mu.Lock()
	defer s.mesh.mu.Unlock()
	if s.reason == "" {
		return Frame{}, false
	}
	f := encode(typeClose, &closing{s.reason})
	return Frame{f.kind, f.body}, true
}

// End takes the session out of its Mesh.
func (s *VirtualSession) End(err error) {
	s.mesh.leave(s.session, err)
	s.mesh.ended(s.session, err)
}
