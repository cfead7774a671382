package wg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/tunnel/noise"
)

// begin starts a series of initiations, unless one is under way or the peer is no member any more.
func (m *Machine) begin(now time.Time, p *Peer) {
	if m.peers[p.Key] != p {
		return
	}
	a := m.activate(p)
	if a == nil || a.trying {
		return
	}
	m.forgetFirst(a, len(a.pending)) // of an earlier series
	a.used, a.trying, a.started, a.step = true, true, now, 0
	if now.Sub(a.answered) < yield && len(a.next) > 0 {
		a.nextTry = a.answered.Add(yield) // theirs is being answered and may make this needless
		m.schedule(now, p)
		return
	}
	m.try(now, p, a)
}

// try sends the next initiation of a series, or gives up.
func (m *Machine) try(now time.Time, p *Peer, a *active) {
	if now.Sub(a.started) >= RekeyAttemptTime {
		m.endSeries(a)
		m.count.HandshakesGivenUp++
		m.act(Action{Kind: ActGaveUp, Peer: p})
		return
	}
	m.initiate(now, p, a)
	a.step++
	a.kicks = 0
	if a.step < len(seriesOffsets) {
		a.nextTry = later(now.Add(yield), a.started.Add(seriesOffsets[a.step]))
	} else {
		// Jitter keeps many peers of one that is away from asking in step.
		a.nextTry = now.Add(RekeyTimeout + time.Duration(m.rand.Int64N(int64(time.Second/3))))
	}
	m.schedule(now, p)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// initiate makes one initiation. Earlier ones may still be answered.
func (m *Machine) initiate(now time.Time, p *Peer, a *active) {
	index, ok := m.table.reserve()
	if !ok {
		m.count.NoSlot++
		return
	}
	msg := new([noise.InitiationSize]byte)
	state, err := m.static.Initiate(a.remote, index, m.timestamp(now), m.cookie(now, a), msg)
	if err != nil {
		m.table.release(index)
		m.count.UnknownKey++
		return
	}
	i := &initiation{peer: p, index: index, began: m.event(), state: state}
	if len(a.pending) == maxPending {
		m.forgetFirst(a, 1)
	}
	a.pending = append(a.pending, i)
	a.tried = now
	m.table.wait(i)
	m.count.InitiationsSent++
	m.act(Action{Kind: ActInitiate, Peer: p, Message: msg[:]})
}

// cookie is what the peer last asked to see, while it is good.
func (m *Machine) cookie(now time.Time, a *active) *noise.Cookie {
	if !now.Before(a.cookieUntil) {
		return nil
	}
	m.count.CookiesUsed++
	return &a.cookie
}

// Initiation takes one of theirs, whose MAC1 was checked, and answers it when it comes from a member.
func (m *Machine) Initiation(now time.Time, msg []byte, from *datagram.Source) []Action {
	m.answer(now, msg, from)
	return m.take()
}

func (m *Machine) answer(now time.Time, msg []byte, from *datagram.Source) {
	var p *Peer // whose static key it bears
	received, err := m.static.Open(msg, func(key identity.WGKey) *noise.Remote {
		if p = m.peers[key]; p == nil {
			return nil
		}
		if a := m.activate(p); a != nil {
			return a.remote
		}
		return nil
	})
	if err != nil {
		if p == nil && errors.Is(err, noise.ErrUnknown) {
			m.count.UnknownKey++
			return
		}
		m.count.BadInitiation++
		if p != nil {
			m.settle(now, p)
		}
		return
	}
	defer received.Wipe()
	a := p.active
	switch {
	case bytes.Compare(received.Timestamp[:], p.stamp[:]) <= 0:
		m.count.ReplayedInitiation++
	case now.Sub(a.answered) < initiationGap:
		m.count.Flood++
	default:
		m.respond(now, p, a, received, from)
	}
	m.settle(now, p)
}

// respond makes the session of an initiation and answers.
func (m *Machine) respond(now time.Time, p *Peer, a *active, received *noise.Received, from *datagram.Source) {
	if len(p.psks) == 0 {
		m.count.BadInitiation++
		return
	}
	index, ok := m.table.reserve()
	if !ok {
		m.count.NoSlot++
		return
	}
	psk := p.psks[a.replies%len(p.psks)]
	msg := new([noise.ResponseSize]byte)
	keys, err := received.Respond(index, psk, m.cookie(now, a), msg)
	if err != nil {
		m.table.release(index)
		m.count.BadInitiation++
		return
	}
	s := &Session{Peer: p, local: index, remote: received.Sender, began: m.event(), mac1: noise.MAC1(msg[:])}
	if !m.admit(now, s, keys) {
		return
	}
	p.stamp, a.answered, a.used = received.Timestamp, now, true
	a.replies++
	if len(a.next) == maxPending {
		m.retire(a.next[0])
		a.next = slices.Delete(a.next, 0, 1)
	}
	a.next = append(a.next, s)
	if a.trying {
		a.nextTry = later(a.nextTry, now.Add(yield))
	}
	m.act(Action{Kind: ActHeard, Peer: p, To: *from})
	m.act(Action{Kind: ActReply, Peer: p, Message: msg[:], To: *from})
}

// admit gives a new session its keys, which are erased, and lets packets find it.
func (m *Machine) admit(now time.Time, s *Session, keys noise.Keys) bool {
	defer keys.Wipe()
	s.born = m.clock.At(now)
	var err error
	if s.send, err = newKey((*[32]byte)(&keys.Send)); err == nil {
		s.receive, err = newKey((*[32]byte)(&keys.Receive))
	}
	if err != nil {
		m.table.release(s.local)
		m.count.NoSlot++
		return false
	}
	m.table.put(s)
	return true
}

// Response takes the answer to an own initiation, whose MAC1 was checked.
func (m *Machine) Response(now time.Time, msg []byte, from *datagram.Source) []Action {
	m.finish(now, msg, from)
	return m.take()
}

func (m *Machine) finish(now time.Time, msg []byte, from *datagram.Source) {
	i := m.pending(msg)
	if i == nil {
		m.count.StrayResponse++
		return
	}
	p := i.peer
	keys, _, err := i.state.Finish(msg, p.psks)
	if err != nil {
		m.count.BadResponse++
		return
	}
	a := p.active
	m.answered(now, a, i)
	remote, _ := noise.SenderIndex(msg)
	s := &Session{Peer: p, local: i.index, remote: remote, initiator: true, began: i.began}
	s.confirmed.Store(true)
	if !m.admit(now, s, keys) {
		m.settle(now, p)
		return
	}
	m.act(Action{Kind: ActHeard, Peer: p, To: *from})
	m.promote(now, p, a, s)
}

// pending is the own initiation that a response or cookie reply is for; nil: none.
func (m *Machine) pending(msg []byte) *initiation {
	index, ok := noise.ReceiverIndex(msg)
	if !ok {
		return nil
	}
	return m.table.waiting(index)
}

// answered ends the series of an initiation. Those behind it stay for a while: many a responder keeps only the session
// of the last initiation that reached it, and that one's answer is on its way.
func (m *Machine) answered(now time.Time, a *active, i *initiation) {
	at := slices.Index(a.pending, i)
	m.forgetFirst(a, at)
	a.pending = slices.Delete(a.pending, 0, 1)
	i.state.Wipe()
	a.trying, a.linger = false, now.Add(RekeyTimeout)
}

// recall goes back to an own session that yielded to one of theirs: to the other side they did not cross, since messages
// overtook each other, and it sends under the later one.
func (m *Machine) recall(p *Peer, a *active) {
	current := p.current.Load()
	for i, s := range a.previous {
		if s.yieldedTo != nil && s.yieldedTo == current && s.confirmed.Load() {
			s.yieldedTo = nil
			p.current.Store(s)
			a.previous[i] = current
			return
		}
	}
}

// confirm looks for a session under which a first packet came, and uses it.
func (m *Machine) confirm(now time.Time, p *Peer) {
	a := p.active
	if a == nil {
		return
	}
	for i := len(a.next) - 1; i >= 0; i-- { // a newer one makes the older ones needless
		s := a.next[i]
		if !s.confirmed.Load() {
			continue
		}
		for _, older := range a.next[:i] { // its packets may have been overtaken
			older.decided.Store(true)
			m.demote(a, older)
		}
		a.next = slices.Delete(a.next, 0, i+1)
		a.replies = 0
		m.endSeries(a)
		m.promote(now, p, a, s)
		return
	}
	m.recall(p, a)
}

// promote makes a new session the one to send with, unless it crossed with one that goes first: of two handshakes, one
// of each side, of which the second began before the first was done, both sides use the one of the lower public key.
func (m *Machine) promote(now time.Time, p *Peer, a *active, s *Session) {
	defer s.decided.Store(true)
	m.count.Established++
	p.shaken.Store(m.clock.At(now))
	p.waiting.Store(0)
	s.ended = m.event()
	old := p.current.Load()
	if old != nil && s.began < old.ended && old.initiator != s.initiator {
		if weGoFirst := bytes.Compare(m.publicKey(), p.Key[:]) < 0; old.initiator == weGoFirst {
			m.demote(a, s)
			m.schedule(now, p)
			return
		}
		if old.initiator {
			old.yieldedTo = s
			old.confirmed.Store(false) // has a packet under it be noted
		}
	}
	p.current.Store(s)
	m.demote(a, old)
	m.schedule(now, p)
	m.act(Action{Kind: ActEstablished, Peer: p, First: old == nil})
}

func (m *Machine) publicKey() []byte {
	k := m.static.Public()
	return k[:]
}

// CookieReply takes a cookie that a peer under load wants to see, and tries again with it. One for a response serves the
// next.
func (m *Machine) CookieReply(now time.Time, msg []byte) []Action {
	p, mac1 := m.challenged(msg)
	if p == nil {
		m.count.BadCookie++
		return nil
	}
	a := p.active
	cookie, err := a.remote.OpenCookie(msg, mac1)
	if err != nil {
		m.count.BadCookie++
		return nil
	}
	first := !now.Before(a.cookieUntil)
	a.cookie, a.cookieUntil = cookie, now.Add(noise.CookieLifetime)
	if first && a.trying && len(a.pending) > 0 {
		m.initiate(now, p, a)
	}
	return m.take()
}

// challenged is whom a cookie reply may come from, and the mac of the message it answers.
func (m *Machine) challenged(msg []byte) (*Peer, [16]byte) {
	if i := m.pending(msg); i != nil {
		return i.peer, i.state.MAC1()
	}
	index, ok := noise.ReceiverIndex(msg)
	if s := m.table.find(index); ok && s != nil && !s.initiator && !s.confirmed.Load() {
		return s.Peer, s.mac1
	}
	return nil, [16]byte{}
}

// timestamp is the next TAI64N label (§5.1): later than every one before, and no finer than 2^24 ns, so that it does not
// tell the clock's every move.
func (m *Machine) timestamp(now time.Time) [12]byte {
	const whitening = 1<<24 - 1
	t := now.Round(0)
	t = t.Add(-time.Duration(t.Nanosecond() & whitening))
	if !t.After(m.stamp) {
		t = m.stamp.Add(time.Nanosecond)
	}
	m.stamp = t
	var out [12]byte
	binary.BigEndian.PutUint64(out[:], 1<<62+10+uint64(t.Unix()))
	binary.BigEndian.PutUint32(out[8:], uint32(t.Nanosecond()))
	return out
}

// Stamp is the time of the last own initiation.
func (m *Machine) Stamp() time.Time { return m.stamp }
