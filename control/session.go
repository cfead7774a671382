package control

import (
	"errors"
	"net/netip"
	"time"

	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

// session is one side of a control stream with a member: what it says to what comes, and to time. Whoever drives it moves
// the bytes (drive.go). What Mesh knows of it is guarded by Mesh.mu.
type session struct {
	peer    identity.PeerID
	role    role
	abort   func() // makes the stream end; may be called at any time
	out     *outbox
	pulse   *pulse   // the writer's, but for what is heard
	entropy *entropy // the writer's

	state   state         // owned by run's reader
	initial []byte        // our INITIAL as sent; owned by the reader
	theirs  identity.Hash // hash of their INITIAL; owned by the reader
	digest  *digest       // of their INITIAL; owned by the reader

	boot    [8]byte   // guarded by Mesh.mu
	done    bool      // the five steps are over; guarded by Mesh.mu
	asking  int       // facts that it is asked for now; guarded by Mesh.mu
	askedAt time.Time // guarded by Mesh.mu
	reason  string    // why it ended; guarded by Mesh.mu
}

func (m *Mesh) newSession(peer identity.PeerID, r role, abort func()) *session {
	now := m.wall()
	return &session{
		peer: peer, role: r, abort: abort, out: newOutbox(),
		pulse: newPulse(now, m.jitter, m.lifeOf(peer)), entropy: newEntropy(now, m.jitter),
	}
}

// lifeOf is how the packets below a session tell of its peer.
func (m *Mesh) lifeOf(peer identity.PeerID) *life {
	if m.cfg.Keepalive == nil {
		return nil
	}
	return &life{sign: func() { m.cfg.Keepalive(peer) }, heard: func() time.Time { return m.cfg.Heard(peer) }}
}

// begin says the first word, if it is ours.
func (m *Mesh) begin(s *session) error {
	if s.role == dialer {
		return m.sendInitial(s)
	}
	return nil
}

// receive handles a message, in order with the others. up: it ended the five steps.
func (m *Mesh) receive(s *session, t wire.Type, body []byte) (up bool, err error) {
	s.pulse.hear(m.wall())
	before := s.state
	if err := m.handle(s, t, body); err != nil {
		return false, err
	}
	if s.state == stateDone && before != stateDone {
		m.established(s)
		return true, nil
	}
	return false, nil
}

// tick queues what time calls for. It reports false when the peer is gone.
func (m *Mesh) tick(s *session) bool {
	now := m.wall()
	if s.out.changed() {
		s.entropy.changed(now)
	}
	if s.entropy.due(now, m.unsettled) {
		m.queueDigest(s)
	}
	s.out.putOffers(now)
	ask, dead := s.pulse.due(now)
	if ask {
		m.queuePing(s)
	}
	return !dead
}

// next is when to tick again.
func (s *session) next(now time.Time) time.Time {
	next := s.pulse.next(now)
	if s.entropy.at.Before(next) {
		next = s.entropy.at
	}
	if at, ok := s.out.nextOffer(); ok && at.Before(next) {
		next = at
	}
	return next
}

// noteSent notes a frame that the peer ought to have.
func (s *session) noteSent(now time.Time, f frame) {
	if f.kind == typeFacts || f.kind == typeHave || f.kind == typeWant {
		s.pulse.told(now)
	}
}

const (
	minEntropy   = 4 * time.Second
	firstEntropy = 30 * time.Second
	maxEntropy   = 10 * time.Minute
)

// entropy says when to compare digests: soon after the beginning, 30 s after a change, then ever more rarely up to 10 min.
// Owned by the writer.
type entropy struct {
	wait   time.Duration
	at     time.Time
	latest time.Time // whatever is going on
	jitter func() float64
}

func newEntropy(now time.Time, jitter func() float64) *entropy {
	e := &entropy{wait: firstEntropy, jitter: jitter}
	e.at = now.Add(minEntropy + time.Duration(jitter()*float64(firstEntropy-minEntropy)))
	e.latest = e.at.Add(maxUnsettled)
	return e
}

// changed begins anew.
func (e *entropy) changed(now time.Time) {
	before := e.at
	e.wait = firstEntropy
	e.plan(now)
	if before.Before(e.at) {
		e.at = before // or constant change would put it off for ever
	}
}

// due reports whether it is time, once. While things are unsettled it is not, for a while.
func (e *entropy) due(now time.Time, unsettled func(time.Time) bool) bool {
	if now.Before(e.at) {
		return false
	}
	if now.Before(e.latest) && unsettled(now) {
		e.at = now.Add(settledAfter + time.Duration(e.jitter()*float64(settledAfter)))
		return false
	}
	e.plan(now)
	return true
}

func (e *entropy) plan(now time.Time) {
	e.at = now.Add(e.wait + time.Duration((e.jitter()-0.5)*float64(e.wait)/2))
	e.latest = e.at.Add(maxUnsettled)
	e.wait = min(2*e.wait, maxEntropy)
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
	case typeSums:
		var x sums
		if err := dcbor.Unmarshal(body, &x); err != nil || !x.valid() {
			return errProtocol
		}
		m.handleSums(s, &x)
		return nil
	case typeOffer, typeAsk:
		var x tags
		if err := dcbor.Unmarshal(body, &x); err != nil || !x.valid() {
			return errProtocol
		}
		if t == typeOffer {
			m.handleOffer(s, &x)
		} else {
			m.handleAsk(s, &x)
		}
		return nil
	case typeRing:
		return m.handleRing(s, body)
	}
	return errProtocol
}

func (m *Mesh) queuePing(s *session) {
	s.out.put(encode(typePing, &ping{Nonce: m.nonce(), Time: uint64(max(0, m.wall().UnixMilli()))}))
}

// observe is the underlay address that a peer's packets come from; zero when a relay brings them.
func (m *Mesh) observe(id identity.PeerID) netip.AddrPort {
	if m.cfg.Observe == nil {
		return netip.AddrPort{}
	}
	return m.cfg.Observe(id)
}
