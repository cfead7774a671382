package join

import (
	"bytes"
	"testing"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

// relayed is the Intro of an asker to the founder by relay.
func (w *town) relayed(t *testing.T, a *Asker) []byte {
	t.Helper()
	if err := a.Ask(start, byRelay(w.founder)); err != nil {
		t.Fatal(err)
	}
	send, _ := a.Due(start)
	if len(send) != 1 || send[0].To != byRelay(w.founder) {
		t.Fatalf("sent %v", send)
	}
	return send[0].Data
}

// TestRelayNeedsNoCookie: one datagram each way, and no address that was seen.
func TestRelayNeedsNoCookie(t *testing.T) {
	w := newTown(t)
	a := w.asker()
	intro := w.relayed(t, a)
	reply, req := w.answerer.Handle(start, w.view, byRelay(w.guest), intro)
	if req == nil || reply != nil || req.From != byRelay(w.guest) {
		t.Fatalf("%d bytes, request %+v, %+v", len(reply), req, w.answerer.Counters())
	}
	pkt, psk := w.answerer.Accept(start, req, start)
	if _, answer := a.Handle(start, at("198.51.100.1:41820"), pkt); answer != nil {
		t.Fatal("an answer from where nobody was asked")
	}
	_, answer := a.Handle(start, byRelay(w.founder), pkt)
	if answer == nil || answer.Node != w.founder.ID() || answer.From != byRelay(w.founder) || answer.PSK != psk || answer.Seen.IsValid() {
		t.Fatalf("welcome = %+v", answer)
	}
	if again, req := w.answerer.Handle(start, w.view, byRelay(w.guest), intro); req != nil || !bytes.Equal(again, pkt) {
		t.Fatal("the same intro must get the same welcome")
	}
}

// TestRelaySenderIsTheNode: an Intro that somebody else passes on, and a Welcome of somebody else than was asked, are
// nothing.
func TestRelaySenderIsTheNode(t *testing.T) {
	w := newTown(t)
	other := identity.FromSeed(identity.Secret{9})
	a := w.asker()
	intro := w.relayed(t, a)
	if reply, req := w.answerer.Handle(start, w.view, byRelay(other), intro); reply != nil || req != nil || w.answerer.Counters().BadSignature != 1 {
		t.Fatalf("a replayed intro: %d bytes, request %+v, %+v", len(reply), req, w.answerer.Counters())
	}
	if err := a.Ask(start, byRelay(other)); err != nil {
		t.Fatal(err)
	}
	send, _ := a.Due(start)
	_, req := w.answerer.Handle(start, w.view, byRelay(w.guest), send[0].Data)
	if req == nil {
		t.Fatalf("%+v", w.answerer.Counters())
	}
	pkt, _ := w.answerer.Accept(start, req, start)
	if _, answer := a.Handle(start, byRelay(other), pkt); answer != nil {
		t.Fatalf("a welcome of %v came from %v", answer.Node.Short(), other.ID().Short())
	}
}

// TestRelayRefusal travels like a Welcome.
func TestRelayRefusal(t *testing.T) {
	w := newTown(t)
	a := w.asker()
	_, req := w.answerer.Handle(start, w.view, byRelay(w.guest), w.relayed(t, a))
	if _, answer := a.Handle(start, byRelay(w.founder), w.answerer.Refuse(start, req, WordExpired)); answer == nil || answer.Word != WordExpired {
		t.Fatalf("answer = %+v", answer)
	}
}

// TestRelayRetries: while nothing comes back the same Intro is sent again, ever more rarely.
func TestRelayRetries(t *testing.T) {
	w := newTown(t)
	a := w.asker()
	first := w.relayed(t, a)
	now, sent := start, 0
	for now.Before(start.Add(time.Minute)) {
		send, next := a.Due(now)
		for _, p := range send {
			sent++
			if !bytes.Equal(p.Data, first) {
				t.Fatal("a retry is other bytes")
			}
		}
		now = next
	}
	if sent != 6 { // after 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s
		t.Errorf("%d retries in a minute", sent)
	}
	a.Forget(byRelay(w.founder))
	if _, next := a.Due(now); !next.IsZero() {
		t.Error("still asking")
	}
}

// knockByRelay asks the founder as a node with its own identity.
func (w *town) knockByRelay(t *testing.T, node *identity.Identity) *Request {
	t.Helper()
	admit := ledger.NewAdmit(node, w.token.Network, w.token.InviteID(), w.token.Seed)
	a := NewAsker(AskerConfig{
		Self: node, Network: w.token.Network, ID: ledger.Short(w.token.InviteID()), PSK: w.token.PSK,
		Content: Content{Admit: admit.Raw, Invite: w.token.Invite.Marshal()},
	})
	_, req := w.answerer.Handle(start, w.view, byRelay(node), w.relayed(t, a))
	return req
}

// TestRelayFlood: however many senders make Intros, even with the token, joiners by address still get in, and memory is
// bounded.
func TestRelayFlood(t *testing.T) {
	w := newTown(t)
	id := w.guest.ID()
	requests := 0
	for i := range 500 {
		node := identity.FromSeed(identity.Secret{7, byte(i), byte(i >> 8)})
		nodeID := node.ID()
		a := NewAsker(AskerConfig{ // a member's Intro: the largest budget
			Self: node, Network: w.view.Network, ID: ledger.KnownID(w.k, w.view.Network), PSK: w.k, Content: Content{Node: &nodeID},
		})
		if _, req := w.answerer.Handle(start, w.view, byRelay(node), w.relayed(t, a)); req != nil {
			requests++
		}
	}
	if requests > relayed || requests == 0 {
		t.Errorf("%d requests by relay within one moment, want at most %d", requests, relayed)
	}
	if c := w.answerer.Counters(); c.RelayLimited < 500-relayTries {
		t.Errorf("%+v", c)
	}
	a := NewAsker(AskerConfig{
		Self: w.guest, Network: w.view.Network, ID: ledger.KnownID(w.k, w.view.Network), PSK: w.k,
		Content: Content{Node: &id, Admit: w.admit().Raw},
	})
	if _, second := w.intro(t, a); second != nil {
		if _, req := w.answerer.Handle(start, w.view, joiner, second); req == nil {
			t.Errorf("a relay's flood shuts out who comes by address: %+v", w.answerer.Counters())
		}
	}
}

// TestRelaySenderBudget: one sender cannot have more than its own.
func TestRelaySenderBudget(t *testing.T) {
	w := newTown(t)
	junk := make([]byte, IntroSize)
	junk[0], junk[1] = TypeIntro, Version
	for range 100 {
		w.answerer.Handle(start, w.view, byRelay(w.guest), junk)
	}
	if c := w.answerer.Counters(); c.RelayLimited != 100-2*relayTriesEach {
		t.Errorf("%+v", c)
	}
	if w.knockByRelay(t, identity.FromSeed(identity.Secret{9})) == nil {
		t.Errorf("somebody else is shut out: %+v", w.answerer.Counters())
	}
	if reply, _ := w.answerer.Handle(start.Add(time.Second), w.view, datagram.Place{Relay: w.guest.ID()}, junk); reply != nil {
		t.Error("junk is answered")
	}
}
