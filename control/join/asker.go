package join

import (
	"bytes"
	"time"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/datagram"
)

const (
	firstRetry = 500 * time.Millisecond
	maxRetry   = 30 * time.Second
	// maxAsked is how many places are asked at the same time.
	maxAsked = 64
)

// AskerConfig says who asks and under which key.
type AskerConfig struct {
	Self    *identity.Identity
	Network identity.NetworkID
	ID      ledger.ShortID  // the invite's, or KnownID of a K
	PSK     identity.Secret // the invite's, or K
	Content Content         // what to prove; time and signature are filled in
}

// Answer is a Welcome or Refusal to one of the Intros of an Asker.
type Answer struct {
	From datagram.Place
	Welcome
}

// Asker sends Intros to many places and reads what comes back. It is owned by one goroutine.
type Asker struct {
	cfg   AskerConfig
	asked map[datagram.Place]*ask
}

// ask is one place under question.
type ask struct {
	e       identity.Ephemeral
	intro   []byte
	hash    identity.Hash
	retry   time.Duration
	next    time.Time
	cookied time.Time // the last retry that a cookie caused
}

// NewAsker makes an Asker.
func NewAsker(cfg AskerConfig) *Asker {
	return &Asker{cfg: cfg, asked: make(map[datagram.Place]*ask)}
}

// Packet is a datagram to send.
type Packet struct {
	To   datagram.Place
	Data []byte
}

// Ask begins to ask whoever is at a place, at the next Due. One that is asked already is not asked anew.
func (a *Asker) Ask(now time.Time, to datagram.Place) error {
	if a.asked[to] != nil || len(a.asked) >= maxAsked {
		return nil
	}
	e := identity.NewEphemeral()
	intro, err := sealIntro(a.cfg.Self, a.cfg.Network, a.cfg.PSK, a.cfg.ID, e.Public(), now, a.cfg.Content)
	if err != nil {
		return err
	}
	a.asked[to] = &ask{e: e, intro: intro, hash: introHash(intro), retry: firstRetry, next: now}
	return nil
}

// Forget stops asking a place.
func (a *Asker) Forget(to datagram.Place) { delete(a.asked, to) }

// Due returns what is to be sent by now, and when to call again; zero: nothing is asked.
func (a *Asker) Due(now time.Time) (send []Packet, next time.Time) {
	for to, q := range a.asked {
		if !q.next.After(now) {
			send = append(send, Packet{to, q.intro})
			q.next = now.Add(q.retry)
			q.retry = min(2*q.retry, maxRetry)
		}
		if next.IsZero() || q.next.Before(next) {
			next = q.next
		}
	}
	return send, next
}

// Handle takes a Cookie or Welcome packet. A good cookie makes the Intro to send at once; a Welcome or Refusal that
// is sealed for one of our Intros is returned as an answer. By relay it must be the node's own that was asked.
func (a *Asker) Handle(now time.Time, from datagram.Place, pkt []byte) (again *Packet, answer *Answer) {
	q := a.asked[from]
	if q == nil || len(pkt) == 0 {
		return nil, nil
	}
	switch pkt[0] {
	case TypeCookie:
		return a.handleCookie(now, from, q, pkt), nil
	case TypeWelcome:
		return nil, a.handleWelcome(from, q, pkt)
	}
	return nil, nil
}

func (a *Asker) handleCookie(now time.Time, from datagram.Place, q *ask, pkt []byte) *Packet {
	e, c, err := parseCookie(pkt)
	public := q.e.Public()
	if err != nil || !bytes.Equal(e[:], public[:14]) || now.Sub(q.cookied) < firstRetry/2 {
		return nil
	}
	q.cookied = now
	q.intro = withCookie(q.intro, c)
	q.retry, q.next = firstRetry, now.Add(firstRetry)
	return &Packet{from, q.intro}
}

func (a *Asker) handleWelcome(from datagram.Place, q *ask, pkt []byte) *Answer {
	e, err := parseWelcome(pkt)
	if err != nil {
		return nil
	}
	shared, err := q.e.Shared(e)
	if err != nil {
		return nil
	}
	k := keys{psk: a.cfg.PSK, shared: shared, network: a.cfg.Network, intro: q.hash}
	got, err := k.open(pkt)
	if err != nil || from.IsRelay() && got.Node != from.Relay {
		return nil
	}
	w := Welcome{Node: got.Node, Word: got.Word}
	if got.Word != "" {
		if identity.Verify(got.Node, identity.PurposeRefusal, a.cfg.Network,
			refusalBody(got.Word, q.hash), got.Signature) != nil {
			return nil
		}
		return &Answer{from, w}
	}
	w.WG, w.Disco, w.Time = got.WG, got.Disco, time.UnixMilli(int64(got.Time))
	w.PSK = k.session(pkt)
	_ = w.Seen.UnmarshalBinary(got.Seen) // an address that does not parse stays unset
	delete(a.asked, from)
	return &Answer{from, w}
}
