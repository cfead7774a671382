package control

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/meshnet/meshnet/control/ledger"
	"github.com/meshnet/meshnet/control/ring"
	"github.com/meshnet/meshnet/control/shelf"
	"github.com/meshnet/meshnet/control/wire"
	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
	"github.com/meshnet/meshnet/netmap"
)

var (
	someone = identity.FromSeed(identity.Secret{5})
	network = identity.NetworkID{6}
)

func someCard() *Card {
	return (&Card{Node: someone.ID(), Seq: 7, Name: "web", Boot: [8]byte{1}, Version: "1", WG: someone.WG(), Disco: someone.Disco()}).
		sign(someone, network)
}

func someReach() *Reach {
	return (&Reach{Node: someone.ID(), Seq: 7, Port: 1, Endpoints: [][]byte{
		encodeEndpoint(netip.MustParseAddrPort("192.0.2.1:41820")), encodeEndpoint(netip.MustParseAddrPort("[2001:db8::1]:1")),
	}}).sign(someone, network)
}

func TestCardRoundTrip(t *testing.T) {
	card, err := parseCard(someCard().signed, network)
	if err != nil || card.Name != "web" || card.Node != someone.ID() || card.Seq != 7 {
		t.Fatalf("%+v, %v", card, err)
	}
	reach, err := parseReach(someReach().signed, network)
	if err != nil || len(reach.addrs()) != 2 || reach.addrs()[1] != netip.MustParseAddrPort("[2001:db8::1]:1") {
		t.Fatalf("%+v, %v", reach, err)
	}
}

// TestCardRefusals alters and forges cards: none is taken.
func TestCardRefusals(t *testing.T) {
	good := someCard().signed
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := parseCard(bad, network); err == nil {
			t.Fatalf("byte %d altered, still taken", i)
		}
		if _, err := parseCard(good[:i], network); err == nil {
			t.Fatalf("cut to %d bytes, still taken", i)
		}
	}
	if _, err := parseCard(good, identity.NetworkID{9}); !errors.Is(err, identity.ErrBadSignature) {
		t.Errorf("a card of another network: %v", err)
	}
	if _, err := parseReach(good, network); err == nil {
		t.Error("a card passed for a reach")
	}
	thief := identity.FromSeed(identity.Secret{8})
	forged := (&Card{Node: someone.ID(), Seq: 8, Name: "web"}).sign(thief, network)
	if _, err := parseCard(forged.signed, network); !errors.Is(err, identity.ErrBadSignature) {
		t.Errorf("a card in somebody else's name: %v", err)
	}
	for name, c := range map[string]*Card{
		"long name":    {Node: someone.ID(), Name: strings.Repeat("x", maxText+1)},
		"long version": {Node: someone.ID(), Version: strings.Repeat("x", maxText+1)},
		"long role":    {Node: someone.ID(), Roles: []string{strings.Repeat("x", maxText+1)}},
		"many roles":   {Node: someone.ID(), Roles: make([]string, 9)},
		"high seq":     {Node: someone.ID(), Seq: 1<<53 + 1},
	} {
		if _, err := parseCard(c.sign(someone, network).signed, network); !errors.Is(err, ErrCard) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReachRefusals(t *testing.T) {
	endpoint := encodeEndpoint(netip.MustParseAddrPort("192.0.2.1:1"))
	for name, endpoints := range map[string][][]byte{
		"too many":         bytes.SplitAfter(bytes.Repeat(endpoint, maxEndpoints+1), endpoint)[:maxEndpoints+1],
		"odd length":       {{1, 2, 3}},
		"no port":          {{192, 0, 2, 1, 0, 0}},
		"unspecified":      {{0, 0, 0, 0, 0, 1}},
		"multicast":        {{224, 0, 0, 1, 0, 1}},
		"mapped IPv4":      {append(append(make([]byte, 10), 0xff, 0xff, 192, 0, 2, 1), 0, 1)},
		"empty":            {{}},
		"one good one bad": {endpoint, {1}},
	} {
		r := (&Reach{Node: someone.ID(), Endpoints: endpoints}).sign(someone, network)
		if _, err := parseReach(r.signed, network); !errors.Is(err, ErrReach) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseCard(f *testing.F) {
	f.Add(someCard().signed)
	f.Add(someReach().signed)
	f.Add(signedReach(wide(relayURL)).signed)
	f.Add((&Card{Node: someone.ID(), Relay: relayURL}).sign(someone, network).signed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := decodeReach(raw); err == nil && (len(r.homes()) > maxHomes || r.nat() > netmap.NATBlocked) {
			t.Fatalf("%d homes, NAT %d", len(r.homes()), r.nat())
		}
		if c, err := parseCard(raw, network); err == nil && !bytes.Equal(c.signed, raw) {
			t.Fatal("a card is not passed on as it came")
		}
		if r, err := parseReach(raw, network); err == nil && !bytes.Equal(r.signed, raw) {
			t.Fatal("a reach is not passed on as it came")
		}
	})
}

// FuzzMessages feeds foreign bytes to every message of a session, in a mesh that must not change by them.
func FuzzMessages(f *testing.F) {
	id := identity.FromSeed(identity.Secret{1})
	store, err := OpenStore(nil, released)
	if err != nil {
		f.Fatal(err)
	}
	if err := store.Found(id, ledger.FoundParams{Name: "town", Prefix4: netip.MustParsePrefix("100.88.0.0/16")}, released); err != nil {
		f.Fatal(err)
	}
	m, err := New(Config{Identity: id, Store: store, Name: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(typeHello), dcbor.Marshal(&hello{Stage: stageInitial, Network: m.network.ID, Card: someCard().signed}))
	f.Add(uint16(typeFacts), dcbor.Marshal(&facts{Cards: [][]byte{someCard().signed}}))
	f.Add(uint16(typeHave), dcbor.Marshal(&have{
		RecordsOf: whole(), Records: m.recordsOf(shelf.Whole()), CardsOf: whole(), Cards: m.cardsOf(shelf.Whole()),
		AllReaches: true, Reaches: m.allReaches(),
	}))
	f.Add(uint16(typeSums), dcbor.Marshal(&sums{Records: m.ledger.Admitted().Sums(), Cards: m.shelf.Sums()}))
	f.Add(uint16(typeOffer), dcbor.Marshal(&tags{make([]byte, 2*tagSize)}))
	f.Add(uint16(typeAsk), dcbor.Marshal(&tags{make([]byte, tagSize)}))
	f.Add(uint16(typeWant), dcbor.Marshal(&want{Heads: []identity.Hash{{1}}, Nodes: []identity.PeerID{id.ID()}}))
	f.Add(uint16(typeDigest), dcbor.Marshal(m.currentDigest()))
	f.Add(uint16(typeRing), frameOf(f, m, someone, id.ID(), ring.Call, []byte{1}))
	f.Add(uint16(typeRing), frameOf(f, m, someone, id.ID(), ring.HereIs, signedReach(wide(relayURL)).signed))
	f.Add(uint16(typeFacts), dcbor.Marshal(&facts{Reaches: [][]byte{signedReach(wide(relayURL)).signed}}))
	f.Add(uint16(typeClose), dcbor.Marshal(&closing{reasonGoodbye}))
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		for st := range stateClosed {
			s := m.newSession(someone.ID(), acceptor, func() {})
			s.state = st
			_ = m.handle(s, wire.Type(kind), body) // any error will do; a panic will not
			if members := len(m.Members()); members != 1 {
				t.Fatalf("%d members", members)
			}
			delete(m.sessions, s.peer)
		}
	})
}
