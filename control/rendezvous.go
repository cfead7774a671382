package control

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/meshnet/meshnet/control/join"
	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
	"github.com/meshnet/meshnet/netmap"
)

const (
	// introQueue is how many datagrams of joining wait. When it is full, new ones are dropped and counted.
	introQueue     = 256
	maxProvisional = 64
	provisionalFor = 10 * time.Second
	// settleFor is how long the first Welcome to a joiner stands before another Intro of it takes its place.
	settleFor = 2 * time.Second
	// introduceEvery is how often a member that does not answer gets an Intro of ours.
	introduceEvery = time.Minute
	introduceFor   = 10 * time.Second
)

// introPacket is a datagram of joining.
type introPacket struct {
	from datagram.Place
	pkt  []byte
}

// HandleRendezvous takes a datagram of joining. It never blocks. borrowed: pkt is only valid during the call.
func (m *Mesh) HandleRendezvous(from datagram.Place, pkt []byte) {
	select {
	case m.intros <- introPacket{from, bytes.Clone(pkt)}:
	default:
		m.counts.introsDropped.Add(1)
	}
}

// answer owns the Answerer, and the Asker by which this member introduces itself.
func (m *Mesh) answer(ctx context.Context) {
	answerer := join.NewAnswerer(m.self)
	asker := m.newAsker()
	asked := make(map[datagram.Place]time.Time) // until when
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var in introPacket
		select {
		case <-ctx.Done():
			return
		case in = <-m.intros:
		case places := <-m.introductions:
			for _, p := range places {
				if err := asker.Ask(m.wall(), p); err != nil {
					m.log.Debug("introduce", "err", err)
					continue
				}
				asked[p] = m.wall().Add(introduceFor)
			}
		case <-timer.C:
		}
		now := m.wall()
		if in.pkt != nil {
			m.handleIntro(now, answerer, asker, in)
			count := answerer.Counters()
			m.answered.Store(&count)
		}
		for p, until := range asked {
			if now.After(until) {
				asker.Forget(p)
				delete(asked, p)
			}
		}
		timer.Reset(m.sendDue(now, asker))
	}
}

func (m *Mesh) sendDue(now time.Time, asker *join.Asker) time.Duration {
	send, next := asker.Due(now)
	for _, p := range send {
		m.cfg.Rendezvous(p.To, p.Data)
	}
	if next.IsZero() {
		return time.Hour
	}
	return max(next.Sub(m.wall()), time.Millisecond)
}

func (m *Mesh) handleIntro(now time.Time, answerer *join.Answerer, asker *join.Asker, in introPacket) {
	if in.pkt[0] != join.TypeIntro {
		again, answer := asker.Handle(now, in.from, in.pkt)
		if again != nil {
			m.cfg.Rendezvous(again.To, again.Data)
		}
		if answer != nil {
			m.found(answer)
		}
		return
	}
	reply, req := answerer.Handle(now, m.view.Load(), in.from, in.pkt)
	if req != nil {
		reply = m.decide(now, answerer, req)
	}
	if reply != nil {
		m.cfg.Rendezvous(in.from, reply)
	}
}

// decide answers an Intro that opened. It returns the Welcome or Refusal to send.
func (m *Mesh) decide(now time.Time, answerer *join.Answerer, req *join.Request) []byte {
	if req.Member {
		return m.decideMember(now, answerer, req)
	}
	if word, ok := m.mayJoin(req); !ok {
		return answerer.Refuse(now, req, word)
	}
	if m.recorded(req) {
		return nil
	}
	m.mu.Lock()
	full := len(m.provisional) >= maxProvisional
	last, again := m.provisional[netmap.ControlAddr(m.network.ID, req.Node)]
	m.mu.Unlock()
	switch {
	case full && !again:
		return answerer.Refuse(now, req, join.WordFull)
	case again && now.Before(last.settled):
		return nil // it asks several of our addresses at once; the one that was answered first goes on
	}
	reply, psk := answerer.Accept(now, req, m.MeshTime())
	m.addProvisional(Provisional{
		Node: req.Node, WG: req.Admit.WG, Control: netmap.ControlAddr(m.network.ID, req.Node), Place: req.From, PSK: psk,
	})
	return reply
}

// recorded reports whether an Intro may be a recording: its sender is a member by now. One that lost its state comes
// with a fresh Intro, and has no session that lives.
func (m *Mesh) recorded(req *join.Request) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	return m.ledger.State(now).IsMember(req.Node) &&
		(m.sessions[req.Node] != nil || req.Time.Sub(now).Abs() > aheadLimit)
}

func (m *Mesh) addProvisional(p Provisional) {
	m.mu.Lock()
	now := m.wall()
	m.provisional[p.Control] = provisional{p, now.Add(provisionalFor), now.Add(settleFor)}
	m.mu.Unlock()
	m.poke() // Run takes it down in time
	m.cfg.Provisional(p)
}

// mayJoin checks an admit against the ledger, taking in the invite that came with it.
func (m *Mesh) mayJoin(req *join.Request) (join.Word, bool) {
	var err error
	if req.Content.Invite != nil {
		var invite ledger.Signed
		if invite, err = ledger.ParseSigned(req.Content.Invite); err == nil {
			err = m.takeInvite(req.Admit, invite, nil)
		}
		if err != nil {
			return join.WordUnsynced, false
		}
	}
	m.mu.Lock()
	err = m.ledger.State(m.now()).CheckAdmit(req.Admit, m.now())
	m.mu.Unlock()
	return wordOf(err), err == nil
}

// takeInvite adds an invite that this node has not heard of to the ledger.
func (m *Mesh) takeInvite(admit *ledger.Admit, invite ledger.Signed, grants []ledger.Signed) error {
	return m.update(func(*update) error {
		if _, known := m.ledger.State(m.now()).Invite(admit.Invite); known {
			return nil
		}
		st, err := ledger.ParseStatement(invite, m.network.ID)
		if err != nil || st.Author != m.ledger.Genesis().Founder {
			return ledger.ErrUnsynced
		}
		for _, g := range append(grants, invite) {
			if _, err := m.ledger.AddStatement(g); err != nil {
				return err
			}
		}
		return nil
	})
}

// wordOf translates the ledger's reasons.
func wordOf(err error) join.Word {
	switch {
	case errors.Is(err, ledger.ErrExpired):
		return join.WordExpired
	case errors.Is(err, ledger.ErrUsed):
		return join.WordUsed
	case errors.Is(err, ledger.ErrRevoked), errors.Is(err, ledger.ErrKeyConflict):
		return join.WordRevoked
	}
	return join.WordUnsynced
}

// decideMember answers a member that wants to be found. One that we do not know yet shows its admission; one that is
// revoked hears nothing.
func (m *Mesh) decideMember(now time.Time, answerer *join.Answerer, req *join.Request) []byte {
	if req.Content.Invite != nil && req.Admit != nil {
		if invite, err := ledger.ParseSigned(req.Content.Invite); err == nil {
			_ = m.takeInvite(req.Admit, invite, nil) // what does not merge is not believed
		}
	}
	member := false
	_ = m.update(func(*update) error {
		if req.Content.Admit != nil && req.Content.Acceptance != nil {
			if x, err := ledger.ParseSigned(req.Content.Acceptance); err == nil {
				_, _ = m.ledger.AddAdmit(req.Content.Admit)
				_, _ = m.ledger.AddAcceptance(x)
			}
		}
		member = m.ledger.State(m.now()).IsMember(req.Node)
		return nil
	})
	if !member {
		return nil
	}
	reply, _ := answerer.Accept(now, req, m.MeshTime())
	m.tell(Event{Type: EventFound, Peer: req.Node, Place: req.From, Skew: int64(req.Time.Sub(now))})
	return reply
}

func (m *Mesh) tell(e Event) {
	m.mu.Lock()
	m.events = append(m.events, e)
	m.mu.Unlock()
	m.poke()
}

// found takes the Welcome that a member answered our Intro with.
func (m *Mesh) found(a *join.Answer) {
	if a.Word != "" || m.current.Load().Peer(a.Node) == nil {
		return
	}
	m.tell(Event{Type: EventFound, Peer: a.Node, Place: a.From, Skew: int64(a.Time.Sub(m.wall()))})
	m.Nudge(a.Node)
}

// introduce sends Intros to a member that does not answer otherwise, wherever it may be, at most once in introduceEvery.
func (m *Mesh) introduce(p *netmap.Peer) {
	now, places := m.wall(), m.addressed(p.Endpoints)
	if relayed(p) {
		places = append(places, datagram.Place{Relay: p.ID})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	last, asked := m.asked[p.ID]
	if asked && now.Sub(last) < introduceEvery || len(places) == 0 {
		return
	}
	select {
	case m.introductions <- places:
		m.asked[p.ID] = now
	default: // enough are under way; it is tried again
	}
}

// Introduce asks whoever is at the addresses, for a few seconds, to tell who it is. EventFound follows.
func (m *Mesh) Introduce(addrs []netip.AddrPort) {
	select {
	case m.introductions <- m.addressed(addrs):
	default: // enough are under way
	}
}

// addressed are the addresses that somebody can be at: others name them.
func (m *Mesh) addressed(addrs []netip.AddrPort) []datagram.Place {
	places := make([]datagram.Place, 0, len(addrs)+1)
	for _, a := range addrs {
		ip := a.Addr().Unmap()
		inside := m.network.Prefix4.Contains(ip) || m.network.Prefix6.Contains(ip)
		nowhere := ip.IsUnspecified() || ip.IsMulticast() || ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240)
		if a.IsValid() && a.Port() != 0 && !inside && !nowhere {
			places = append(places, datagram.Place{Addr: a})
		}
	}
	return places
}

// newAsker makes the Asker of a member, under the newest K.
func (m *Mesh) newAsker() *join.Asker {
	id := m.self.ID()
	content := join.Content{Node: &id}
	m.mu.Lock()
	if member, ok := m.ledger.State(m.now()).Member(id); ok && !member.AdmitID.IsZero() {
		if raw, acceptances, ok := m.ledger.Admission(member.AdmitID); ok && len(acceptances) > 0 {
			content.Admit, content.Acceptance = raw, acceptances[0].Marshal()
			if invite := m.ledger.Statement(member.InviteID); invite != nil {
				content.Invite = invite.Signed.Marshal()
			}
		}
	}
	k := m.store.network.Keys[0]
	m.mu.Unlock()
	return join.NewAsker(join.AskerConfig{
		Self: m.self, Network: m.network.ID, ID: ledger.KnownID(k, m.network.ID), PSK: k, Content: content,
	})
}

// let admits the joiner at the other end of a join stream.
func (m *Mesh) let(conn *wire.Conn, from netip.Addr) {
	m.mu.Lock()
	p, ok := m.provisional[from]
	var proof ledger.Proof
	var err error
	if ok {
		p.until = m.wall().Add(provisionalFor)
		m.provisional[from] = p
		proof, err = m.ledger.Proof(m.self.ID())
	}
	m.mu.Unlock()
	if !ok || err != nil {
		m.log.Debug("join stream refused", "from", from, "err", err)
		return
	}
	admit, err := join.Let(conn, join.Letting{
		Genesis: m.ledger.Genesis().Signed, Network: m.network.ID, Joiner: p.Node, Proof: proof, Accept: m.accepting,
		Knowledge: m.everything,
	})
	if err != nil {
		m.log.Info("a joiner was not let in", "peer", p.Node, "err", err)
	}
	if admit == nil {
		return
	}
	m.mu.Lock()
	delete(m.provisional, from)
	m.mu.Unlock()
	over := p.Provisional
	over.Over = true
	m.cfg.Provisional(over)
	m.log.Info("let in", "peer", admit.Node)
}

// everything is what a new member gets to know.
func (m *Mesh) everything() join.Knowledge {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := join.Knowledge{
		Statements: slices.Collect(m.ledger.Statements(0)), Records: slices.Collect(m.ledger.Records(0)),
	}
	for _, f := range m.cardFacts() {
		if f.kind == factCard {
			k.Cards = append(k.Cards, f.raw)
		} else {
			k.Reaches = append(k.Reaches, f.raw)
		}
	}
	return k
}

// accepting signs the acceptance, on disk before anybody sees it.
func (m *Mesh) accepting(
	admit *ledger.Admit, invite ledger.Signed, grants []ledger.Signed,
) (acceptance ledger.Signed, keys []identity.Secret, relayKey identity.Secret, err error) {
	if err := m.takeInvite(admit, invite, grants); err != nil {
		return acceptance, nil, relayKey, &join.RefusedError{Word: join.WordUnsynced, Text: "the invite's author is not known here"}
	}
	err = m.update(func(u *update) error {
		u.urgent = true
		if err := m.ledger.State(m.now()).CheckAdmit(admit, m.now()); err != nil {
			return err
		}
		if _, err := m.ledger.AddAdmit(admit.Raw); err != nil {
			return err
		}
		acceptance, err = m.ledger.Accept(m.self, admit.ID, m.now())
		keys, relayKey = m.store.network.Keys, m.store.network.RelayKey
		return err
	})
	if err != nil {
		return acceptance, nil, relayKey, &join.RefusedError{Word: wordOf(err), Text: err.Error()}
	}
	m.rebuild() // the stream that the new member dials next finds it
	m.poke()
	return acceptance, keys, relayKey, nil
}
