package control

import (
	"time"

	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/bucket"
)

// In a larger network nobody keeps the reaches of all members, so a node asks for the one that it needs:
//
//	Signal ─▶ seek ─▶ Run: ── where-is, with the asker's reach ──▶ target
//	              touch ◀── here-is, with the target's reach ────

const (
	// seekEvery is how often a member is asked where it is, at most; seekRate and seekBurst bound how often anybody is.
	seekEvery           = 30 * time.Second
	seekRate, seekBurst = 5, 20
	// tellEvery is how often a member is told where this node is, at most.
	tellEvery = 5 * time.Second
	// maxSearch is how many members are remembered for either.
	maxSearch = 1024
)

// search is whom this node asked where they are, and who asked it. The zero value is empty.
type search struct {
	asked, told recent
	waiting     []identity.PeerID // to be asked by Run
	rate        bucket.Bucket
}

// recent is when something was last done for a member.
type recent map[identity.PeerID]time.Time

// take reports whether it is time to do it again, and notes that it is done. When too many are remembered who are not
// due, it is not.
func (r *recent) take(now time.Time, id identity.PeerID, every time.Duration) bool {
	if r.lately(now, id, every) {
		return false
	}
	if len(*r) >= maxSearch {
		for id := range *r {
			if !r.lately(now, id, every) {
				delete(*r, id)
			}
		}
	}
	if len(*r) >= maxSearch {
		return false
	}
	if *r == nil {
		*r = make(recent)
	}
	(*r)[id] = now
	return true
}

func (r *recent) lately(now time.Time, id identity.PeerID, every time.Duration) bool {
	at, ok := (*r)[id]
	return ok && now.Sub(at) < every
}

// seek has Run ask a member where it is, unless that is known, or it was asked lately. It never waits.
func (m *Mesh) seek(id identity.PeerID) {
	with := m.partners.Load()
	if with.of[id] != nil || with.view.Mode == ring.Full && reachKnown(m.current.Load().Peer(id)) {
		return // a partner tells by itself, and so do all in a small network
	}
	now := m.wall()
	x := &m.signals
	x.mu.Lock()
	due := x.search.seek(now, id)
	x.mu.Unlock()
	if due {
		m.poke()
	}
}

func (x *search) seek(now time.Time, id identity.PeerID) bool {
	if x.asked.lately(now, id, seekEvery) || !x.rate.Take(now, seekRate, seekBurst) || !x.asked.take(now, id, seekEvery) {
		return false
	}
	x.waiting = append(x.waiting, id)
	return true
}

// askWhere asks those who are to be asked. Called without mu.
func (m *Mesh) askWhere() {
	x := &m.signals
	x.mu.Lock()
	all := x.search.waiting
	x.search.waiting = nil
	x.mu.Unlock()
	if len(all) == 0 {
		return
	}
	reach := m.signedReach()
	for _, id := range all {
		if m.originate(id, ring.WhereIs, reach) == nil {
			m.counts.reachesAsked.Add(1)
		}
	}
}

// signedReach is this node's reach as it is told; nil: there is none.
func (m *Mesh) signedReach() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.myReach == nil {
		return nil
	}
	return m.myReach.signed
}

// tellWhere answers a member that asks where this node is. It may say where it is itself.
func (m *Mesh) tellWhere(s *session, question *ring.Signal) {
	if len(question.Payload) > 0 {
		m.learnWhere(s, question)
	}
	x := &m.signals
	now := m.wall()
	x.mu.Lock()
	due := x.search.told.take(now, question.Origin, tellEvery)
	x.mu.Unlock()
	if !due {
		m.counts.reachesLimited.Add(1)
		return
	}
	if reach := m.signedReach(); reach != nil && m.originate(question.Origin, ring.HereIs, reach) == nil {
		m.counts.reachesTold.Add(1)
	}
}

// learnWhere takes the reach of a signal's origin, which s brought. Nobody vouches for a payload on its way, so what is
// wrong with it is nobody's fault here.
func (m *Mesh) learnWhere(s *session, from *ring.Signal) {
	r, err := decodeReach(from.Payload)
	if err != nil || r.Node != from.Origin {
		m.counts.reachesRefused.Add(1)
		return
	}
	err = m.update(func(u *update) error {
		u.from = s
		before := m.reaches[r.Node]
		err := m.mergeReach(u, from.Payload)
		if m.reaches[r.Node] != before {
			m.counts.reachesLearnt.Add(1)
		}
		return err
	})
	if err != nil {
		m.counts.reachesRefused.Add(1)
	}
}
