package control

import (
	"encoding/binary"
	"time"

	"github.com/meshnet/meshnet/control/ring"
)

const (
	// serveRate and serveBurst bound how many bytes of facts a second are sent to whom asks, in a larger network. What is
	// beyond waits, and what follows within serveEvery is sent together.
	serveRate, serveBurst = 12 << 10, 8 << 10
	maxServing            = 1 << 14
	serveEvery            = 500 * time.Millisecond
)

// serving is what partners asked for and have to wait for. Guarded by Mesh.mu.
type serving struct {
	waiting []served
	ahead   float64 // bytes sent beyond what the rate has made up for
	at      time.Time
}

// served is a fact for a partner who asked for it.
type served struct {
	to *session
	fact
}

// handleAsk sends what is asked for.
func (m *Mesh) handleAsk(s *session, x *tags) {
	var send []fact
	m.mu.Lock()
	for b := x.Tags; len(b) > 0; b = b[tagSize:] {
		t := tag(binary.BigEndian.Uint64(b))
		if f, ok := m.spread.held[t]; ok {
			send = append(send, f)
		}
		if g := m.spread.round[t]; g != nil {
			g.hold(s)
		}
	}
	m.supply(s, send)
	m.mu.Unlock()
	m.poke() // some may wait
}

// supply sends facts to whom asked for them, within bounds. Called with mu held.
func (m *Mesh) supply(s *session, all []fact) {
	if m.mode == ring.Full {
		s.out.push(factFrames(all)...)
		return
	}
	x := &m.spread.serve
	for _, f := range all {
		if len(x.waiting) < maxServing {
			x.waiting = append(x.waiting, served{s, f})
		}
	}
	m.goOnServing(m.wall())
}

// goOnServing sends what waits, as far as the rate allows it. Called with mu held.
func (m *Mesh) goOnServing(now time.Time) {
	x := &m.spread.serve
	if now.Before(x.next()) {
		return
	}
	if passed := now.Sub(x.at).Seconds(); passed > 0 {
		x.ahead = max(0, x.ahead-passed*serveRate)
		x.at = now
	}
	lists := make(map[*session][]fact)
	for len(x.waiting) > 0 && x.ahead < serveBurst {
		next := x.waiting[0]
		x.waiting[0] = served{}
		x.waiting = x.waiting[1:]
		if m.sessions[next.to.peer] == next.to {
			x.ahead += float64(len(next.raw))
			lists[next.to] = append(lists[next.to], next.fact)
		}
	}
	for s, list := range lists {
		s.out.push(factFrames(list)...)
	}
}

// next is when to go on; zero: nothing waits.
func (x *serving) next() time.Time {
	if len(x.waiting) == 0 {
		return time.Time{}
	}
	return x.at.Add(serveEvery)
}
