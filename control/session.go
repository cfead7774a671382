package control

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
	"github.com/meshnet/meshnet/internal/dcbor"
)

const (
	startFor = 10 * time.Second // the five steps
	writeFor = 10 * time.Second
	// paceBytes is how many bytes a second a session sends when it has more than a burst of them.
	paceBytes = 2 << 20
	paceBurst = 4 << 20
)

// session is one control stream with a member. run owns it; what Mesh knows of it is guarded by Mesh.mu.
type session struct {
	peer identity.PeerID
	role role
	conn *wire.Conn
	out  *outbox
	// pulse is the writer's, but for what is heard.
	pulse *pulse

	state   state         // owned by run's reader
	initial []byte        // our INITIAL as sent; owned by the reader
	theirs  identity.Hash // hash of their INITIAL; owned by the reader
	digest  *digest       // of their INITIAL; owned by the reader

	signals   bucket.Bucket                      // of the peer; owned by the reader
	signalsTo map[identity.PeerID]*bucket.Bucket // by target; owned by the reader
	noRoute   deadEnds

	boot   [8]byte                       // guarded by Mesh.mu
	done   bool                          // the five steps are over; guarded by Mesh.mu
	known  map[identity.Hash]struct{}    // statements and records that the peer has; guarded by Mesh.mu
	cards  map[identity.PeerID]cardKnown // guarded by Mesh.mu
	opened func()                        // called once the five steps are over; may be nil
	change chan struct{}                 // something changed: compare digests soon
	reason string                        // why it ended; guarded by Mesh.mu
}

type cardKnown struct{ card, reach uint64 }

func newSession(peer identity.PeerID, r role, conn *wire.Conn, spread func() float64) *session {
	return &session{
		peer: peer, role: r, conn: conn, out: newOutbox(), pulse: newPulse(time.Now(), spread),
		known: make(map[identity.Hash]struct{}), cards: make(map[identity.PeerID]cardKnown),
		change: make(chan struct{}, 1), signalsTo: make(map[identity.PeerID]*bucket.Bucket),
	}
}

// run speaks with the peer until the stream or ctx ends. It returns why.
func (m *Mesh) run(ctx context.Context, s *session) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, s.conn.Abort)
	defer stop()
	start := time.AfterFunc(startFor, cancel)
	defer start.Stop()
	wg.Go(func() {
		m.write(ctx, s)
		cancel()
	})
	err := m.read(ctx, s, func() {
		start.Stop()
		if s.opened != nil {
			s.opened()
		}
	})
	m.leave(s, err)
	cancel()
	wg.Wait()
	s.conn.Close()
	return err
}

// read handles what comes, in order.
func (m *Mesh) read(ctx context.Context, s *session, started func()) error {
	if s.role == dialer {
		if err := m.sendInitial(s); err != nil {
			return err
		}
	}
	for {
		t, body, err := s.conn.ReadMessage()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.pulse.hear(time.Now())
		before := s.state
		if err := m.handle(s, t, body); err != nil {
			return err
		}
		if s.state == stateDone && before != stateDone {
			m.established(s)
			started()
			s.conn.SetReadFor(deadAfter)
		}
	}
}

// write sends what waits, pings, and compares digests from time to time.
func (m *Mesh) write(ctx context.Context, s *session) {
	beat := time.NewTimer(0)
	defer beat.Stop()
	entropy := newEntropy(m.jitter)
	timer := time.NewTimer(entropy.next())
	defer timer.Stop()
	pace := pacer{last: time.Now()}
	for {
		select {
		case <-ctx.Done():
			m.sayGoodbye(s)
			return
		case <-s.out.wake:
		case <-beat.C:
		case <-s.change:
			entropy.changed()
			timer.Reset(entropy.next())
		case <-timer.C:
			m.queueDigest(s)
			timer.Reset(entropy.next())
		}
		ask, dead := s.pulse.due(time.Now())
		if ask {
			m.queuePing(s)
		}
		if dead || !s.drain(ctx, &pace) {
			s.conn.Abort() // the reader ends too
			return
		}
		now := time.Now()
		beat.Reset(s.pulse.next(now).Sub(now))
	}
}

// drain sends what waits, signals ahead of each other frame. It reports whether the stream goes on.
func (s *session) drain(ctx context.Context, pace *pacer) bool {
	frames, over := s.out.take()
	for {
		next := s.out.takeSignals()
		if len(frames) > 0 {
			next, frames = append(next, frames[0]), frames[1:]
		}
		if len(next) == 0 {
			break
		}
		for _, f := range next {
			if f.kind == typeFacts || f.kind == typeHave || f.kind == typeWant {
				s.pulse.told(time.Now())
			}
			if s.conn.WriteRaw(f.kind, f.body) != nil {
				return false
			}
			if !pace.sent(ctx, len(f.body)) {
				return true // write says goodbye
			}
		}
	}
	if over {
		_ = s.conn.WriteMessage(typeClose, &closing{reasonSlow}) // best effort: the stream ends anyway
	}
	return !over
}

// sayGoodbye sends the reason of an end that we chose.
func (m *Mesh) sayGoodbye(s *session) {
	m.mu.Lock()
	reason := s.reason
	m.mu.Unlock()
	if reason != "" {
		_ = s.conn.WriteMessage(typeClose, &closing{reason}) // best effort: the stream ends anyway
	}
}

// pacer bounds the bytes per second of a session. Owned by its writer.
type pacer struct {
	last  time.Time
	ahead float64 // bytes sent beyond the pace
}

// sent notes n bytes and waits when there were too many. It reports false when ctx ended.
func (p *pacer) sent(ctx context.Context, n int) bool {
	now := time.Now()
	p.ahead = max(0, p.ahead-now.Sub(p.last).Seconds()*paceBytes) + float64(n)
	p.last = now
	if p.ahead <= paceBurst {
		return true
	}
	wait := time.NewTimer(time.Duration((p.ahead - paceBurst) / paceBytes * float64(time.Second)))
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	firstEntropy = 30 * time.Second
	maxEntropy   = 10 * time.Minute
)

// entropy says when to compare digests: 30 s after a change, then ever more rarely up to 10 min.
type entropy struct {
	wait   time.Duration
	jitter func() float64
}

func newEntropy(jitter func() float64) *entropy { return &entropy{firstEntropy, jitter} }

func (e *entropy) changed() { e.wait = firstEntropy }

func (e *entropy) next() time.Duration {
	wait := e.wait + time.Duration((e.jitter()-0.5)*float64(e.wait)/2)
	e.wait = min(2*e.wait, maxEntropy)
	return wait
}

// handle takes one message.
func (m *Mesh) handle(s *session, t wire.Type, body []byte) error {
	var h hello
	if t == typeHello {
		if err := dcbor.Unmarshal(body, &h); err != nil {
			return errProtocol
		}
	}
	next, act := step(s.role, s.state, inputOf(t, h.Stage))
	s.state = next
	switch act {
	case actInitial, actFinal:
		return m.handleInitial(s, &h, body, act)
	case actConfirmed:
		return m.handleFinal(s, &h)
	case actFacts:
		var f facts
		if err := dcbor.Unmarshal(body, &f); err != nil {
			return errProtocol
		}
		return m.handleFacts(s, &f)
	case actTraffic:
		return m.handleTraffic(s, t, body)
	case actClose:
		var c closing
		if err := dcbor.Unmarshal(body, &c); err != nil || len(c.Reason) > maxText {
			return errProtocol
		}
		return &closedError{c.Reason}
	case actRefuse:
		return errProtocol
	}
	return nil
}

// closedError is the other side's reason for ending a session.
type closedError struct{ reason string }

func (e *closedError) Error() string { return "closed by the peer: " + e.reason }

func closedFor(err error, reason string) bool {
	c, ok := errors.AsType[*closedError](err)
	return ok && c.reason == reason
}

// sendInitial sends our first Hello.
func (m *Mesh) sendInitial(s *session) error {
	h := hello{Stage: stageInitial, Network: m.network.ID, Version: sessionVersion}
	if seen := m.observe(s.peer); seen.IsValid() {
		h.You = encodeEndpoint(seen)
	}
	m.mu.Lock()
	h.Card, h.Digest = m.myCard.signed, m.currentDigest()
	if m.myReach != nil {
		h.Reach = m.myReach.signed
	}
	m.mu.Unlock()
	s.initial = dcbor.Marshal(&h)
	s.out.put(frame{typeHello, s.initial})
	return nil
}

func helloHash(body []byte) identity.Hash { return identity.Sum("meshnet/hello-hash/v1", body) }

// handleInitial checks who the other is and answers.
func (m *Mesh) handleInitial(s *session, h *hello, body []byte, act action) error {
	switch {
	case h.Network != m.network.ID:
		return errNetwork
	case h.Version != sessionVersion:
		return errVersion
	case h.Digest == nil || !h.Digest.valid():
		return errProtocol
	}
	card, err := parseCard(h.Card, m.network.ID)
	if err != nil {
		return err
	}
	if card.Node != s.peer {
		return errIdentity
	}
	s.theirs, s.digest = helloHash(body), h.Digest
	if err := m.enter(s, card, h); err != nil {
		return err
	}
	if act == actInitial {
		return m.sendInitial(s)
	}
	m.sendFinal(s)
	return nil
}

func (m *Mesh) sendFinal(s *session) {
	mine := helloHash(s.initial)
	s.out.put(encode(typeHello, &hello{
		Stage: stageFinal, Network: m.network.ID, Version: sessionVersion, Me: &mine, Theirs: &s.theirs,
	}))
}

// handleFinal checks that the other read our INITIAL, and sends what it lacks.
func (m *Mesh) handleFinal(s *session, h *hello) error {
	if h.Network != m.network.ID {
		return errNetwork
	}
	if h.Me == nil || h.Theirs == nil || *h.Me != s.theirs || *h.Theirs != helloHash(s.initial) {
		return errConfirm
	}
	if s.role == acceptor {
		m.sendFinal(s)
	}
	m.sendFirstFacts(s)
	return nil
}

// handleTraffic takes what comes once both sides are done.
func (m *Mesh) handleTraffic(s *session, t wire.Type, body []byte) error {
	switch t {
	case typePing:
		var p ping
		if err := dcbor.Unmarshal(body, &p); err != nil {
			return errProtocol
		}
		s.out.put(frame{typePong, body})
		return nil
	case typePong:
		var p ping
		if err := dcbor.Unmarshal(body, &p); err != nil {
			return errProtocol
		}
		return nil
	case typeDigest:
		var d digest
		if err := dcbor.Unmarshal(body, &d); err != nil || !d.valid() {
			return errProtocol
		}
		m.handleDigest(s, &d)
		return nil
	case typeHave:
		var h have
		if err := dcbor.Unmarshal(body, &h); err != nil || !h.valid() {
			return errProtocol
		}
		m.handleHave(s, &h)
		return nil
	case typeWant:
		var w want
		if err := dcbor.Unmarshal(body, &w); err != nil || !w.valid() {
			return errProtocol
		}
		m.handleWant(s, &w)
		return nil
	case typeSignal:
		return m.handleSignal(s, body)
	case typeNoRoute:
		return m.handleNoRoute(s, body)
	}
	return errProtocol
}

func (m *Mesh) queuePing(s *session) {
	s.out.put(encode(typePing, &ping{Nonce: m.nonce(), Time: uint64(max(0, time.Now().UnixMilli()))}))
}

// observe is the underlay address that a peer's packets come from; zero when a relay brings them.
func (m *Mesh) observe(id identity.PeerID) netip.AddrPort {
	if m.cfg.Observe == nil {
		return netip.AddrPort{}
	}
	return m.cfg.Observe(id)
}
