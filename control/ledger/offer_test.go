package ledger

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/meshnet/meshnet/identity"
)

const (
	relayURL = "https://192.0.2.1:9000#sha256=00ff"
	otherURL = "https://relay.example"
)

func TestValidRelayURL(t *testing.T) {
	for url, want := range map[string]bool{
		relayURL: true, otherURL: true, "https://[2001:db8::1]:9000": true,
		"https://relay.example/" + strings.Repeat("a", MaxRelayURL-len("https://relay.example/")): true,
		"https://relay.example/" + strings.Repeat("a", MaxRelayURL):                               false,
		"": false, "http://relay.example": false, "https://": false, "https://:9000": false, "relay.example:9000": false,
		"https://relay.example/a b": false, "https://relay.example/\n": false, "https://rélay.example": false,
		"https://user@relay.example": false, "https://relay.example:port": false, "HTTPS://relay.example": false,
	} {
		if got := ValidRelayURL(url); got != want {
			t.Errorf("%q: %v", url, got)
		}
	}
}

func TestAllow(t *testing.T) {
	type word struct {
		what  Offer
		value string
		allow bool
	}
	type want struct {
		what  Offer
		value string
		ok    bool
	}
	for _, c := range []struct {
		name  string
		words []word
		want  []want
	}{
		{"nothing said", nil, []want{{OfferRelay, relayURL, false}, {OfferExit, "", false}}},
		{"one relay server", []word{{OfferRelay, relayURL, true}}, []want{{OfferRelay, relayURL, true}, {OfferRelay, otherURL, false}}},
		{"any relay server", []word{{OfferRelay, "", true}}, []want{{OfferRelay, relayURL, true}, {OfferRelay, otherURL, true}, {OfferExit, "", false}}},
		{"any but one", []word{{OfferRelay, "", true}, {OfferRelay, otherURL, false}}, []want{{OfferRelay, relayURL, true}, {OfferRelay, otherURL, false}}},
		{"taken back", []word{{OfferRelay, relayURL, true}, {OfferRelay, relayURL, false}}, []want{{OfferRelay, relayURL, false}}},
		{"given again", []word{{OfferExit, "", true}, {OfferExit, "", false}, {OfferExit, "", true}}, []want{{OfferExit, "", true}}},
		{"a route", []word{{OfferRoute, "10.0.0.0/8", true}}, []want{{OfferRoute, "10.0.0.0/8", true}, {OfferRoute, "10.0.0.0/9", false}, {OfferRoute, "", false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			node := seeded(10)
			w.join(node, w.invite(1, 0), w.founder)
			for _, x := range c.words {
				if _, err := w.Allow(w.founder, node.ID(), x.what, x.value, x.allow, w.now); err != nil {
					t.Fatal(err)
				}
			}
			other := w.clone()
			copyInto(t, w.Ledger, other)
			for _, l := range []*Ledger{w.Ledger, other} {
				st := l.State(w.now)
				for _, x := range c.want {
					if st.Allows(node.ID(), x.what, x.value) != x.ok {
						t.Errorf("%s %q: want %v", x.what, x.value, x.ok)
					}
				}
				if st.UpdateNeeded {
					t.Error("not understood")
				}
			}
		})
	}
}

// TestAllowOfAdmin: an admin's own offers count, unless one says otherwise; who is revoked or a stranger offers nothing.
func TestAllowOfAdmin(t *testing.T) {
	w := newWorld(t)
	node, founder := seeded(10), w.founder.ID()
	w.join(node, w.invite(1, 0), w.founder)
	if st := w.state(); !st.Allows(founder, OfferRelay, relayURL) || !st.Allows(founder, OfferExit, "") || st.Allows(seeded(11).ID(), OfferExit, "") {
		t.Error("an admin's own offer does not count, or a stranger's does")
	}
	for _, id := range []identity.PeerID{founder, node.ID()} {
		if _, err := w.Allow(w.founder, id, OfferRelay, "", id != founder, w.now); err != nil {
			t.Fatal(err)
		}
	}
	if st := w.state(); st.Allows(founder, OfferRelay, relayURL) || !st.Allows(node.ID(), OfferRelay, relayURL) {
		t.Error("the word of an admin does not count")
	}
	if _, err := w.RevokeMember(w.founder, node.ID(), false, w.now); err != nil {
		t.Fatal(err)
	}
	if w.state().Allows(node.ID(), OfferRelay, relayURL) {
		t.Error("a revoked member's offer counts")
	}
}

func TestAllowRefuses(t *testing.T) {
	w := newWorld(t)
	node, gone := seeded(10), seeded(11)
	w.join(node, w.invite(1, 0), w.founder)
	w.join(gone, w.invite(1, 0), w.founder)
	if _, err := w.RevokeMember(w.founder, gone.ID(), false, w.now); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		by    *identity.Identity
		of    *identity.Identity
		what  Offer
		value string
		want  error
	}{
		{"by a plain member", node, node, OfferExit, "", ErrNotAdmin},
		{"of a stranger", w.founder, seeded(12), OfferExit, "", ErrUnknownMember},
		{"of a revoked member", w.founder, gone, OfferExit, "", ErrRevoked},
		{"another kind", w.founder, node, "teleport", "", ErrOffer},
		{"no URL", w.founder, node, OfferRelay, "relay.example", ErrOffer},
		{"long URL", w.founder, node, OfferRelay, otherURL + strings.Repeat("/a", 80), ErrOffer},
		{"route with host bits", w.founder, node, OfferRoute, "10.0.0.1/8", ErrOffer},
		{"route in another form", w.founder, node, OfferRoute, "2001:DB8::/32", ErrOffer},
		{"no route", w.founder, node, OfferRoute, "", ErrOffer},
		{"exit with a value", w.founder, node, OfferExit, "0.0.0.0/0", ErrOffer},
	} {
		before, _ := w.Len()
		if _, err := w.Allow(c.by, c.of.ID(), c.what, c.value, true, w.now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if after, _ := w.Len(); after != before {
			t.Errorf("%s: stated", c.name)
		}
	}
}

// TestAllowUnknownKind: a kind of a later release is kept and passed on, has no effect and asks for an update. A plain
// member's word has none either.
func TestAllowUnknownKind(t *testing.T) {
	w := newWorld(t)
	node := seeded(10)
	w.join(node, w.invite(1, 0), w.founder)
	self := w.statement(node, Statement{Type: TypeAllow, Clock: 1}, &allowing{What: OfferExit, Member: node.ID(), Allow: true})
	w.add(self)
	if st := w.state(); st.Allows(node.ID(), OfferExit, "") || st.UpdateNeeded {
		t.Error("a member allowed itself something")
	}
	if _, err := w.publish(w.founder, TypeAllow, &allowing{What: "teleport", Member: node.ID(), Allow: true}, w.now); err != nil {
		t.Fatal(err)
	}
	if st := w.state(); st.Allows(node.ID(), "teleport", "") || len(st.Allowances(node.ID())) != 0 || !st.UpdateNeeded {
		t.Error("a kind that is not known has an effect, or nobody is told")
	}
	other := w.clone()
	copyInto(t, w.Ledger, other)
	if !slices.Equal(other.Heads(), w.Heads()) {
		t.Error("not passed on")
	}
}

// TestLastWordCounts adds concurrent words in random orders: everybody believes the one with the higher hash.
func TestLastWordCounts(t *testing.T) {
	w := newWorld(t)
	node := seeded(10)
	w.join(node, w.invite(1, 0), w.founder)
	tip := w.byID[w.Heads()[0]]
	var words []Signed
	best, allow := identity.Hash{}, false
	for i := range 6 {
		a := &allowing{What: OfferRelay, Value: relayURL, Member: node.ID(), Allow: i%2 == 0}
		s := w.statement(w.founder, Statement{Type: TypeAllow, Clock: tip.Clock + 1, Prev: []identity.Hash{tip.ID}, Time: uint64(i)}, a)
		if id := identity.Sum(identity.PurposeStatement, s.Body); compareHash(id, best) > 0 {
			best, allow = id, a.Allow
		}
		words = append(words, s)
	}
	for seed := range uint64(20) {
		l := w.clone()
		copyInto(t, w.Ledger, l)
		rng := rand.New(rand.NewPCG(seed, 0))
		rng.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
		for _, s := range words {
			if _, err := l.AddStatement(s); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.State(w.now).Allows(node.ID(), OfferRelay, relayURL); got != allow {
			t.Fatalf("seed %d: %v", seed, got)
		}
	}
}
