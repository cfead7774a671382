package ledger

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/dcbor"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// seeded is the n-th identity of the tests.
func seeded(n uint32) *identity.Identity {
	var s identity.Secret
	binary.BigEndian.PutUint32(s[:], n)
	s[31] = 1
	return identity.FromSeed(s)
}

// world is a ledger with its founder, and a clock that the test moves.
type world struct {
	*Ledger
	t       testing.TB
	founder *identity.Identity
	k       identity.Secret
	now     time.Time
	nextKey uint32
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, founder: seeded(1), k: identity.Secret{7}, now: epoch, nextKey: 1 << 30}
	g, err := Found(w.founder, FoundParams{Name: "lab", Prefix4: netip.MustParsePrefix("100.88.0.0/16")}, w.k, w.now)
	if err != nil {
		t.Fatal(err)
	}
	if w.Ledger, err = New(g.Signed); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) tick(d time.Duration) { w.now = w.now.Add(d) }

func (w *world) state() *State { return w.State(w.now) }

// invited is an invite with the secret that makes admits.
type invited struct {
	id   identity.Hash
	seed identity.Secret
	tok  *Token
}

func (w *world) invite(uses uint64, expires time.Duration, tags ...string) invited {
	w.t.Helper()
	w.nextKey++
	_, tok, err := w.inviteWith(w.founder, seeded(w.nextKey), InviteParams{Uses: uses, Expires: expires, Tags: tags, K: w.k}, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return invited{tok.InviteID(), tok.Seed, tok}
}

func (w *world) admitOf(node *identity.Identity, inv invited) *Admit {
	return NewAdmit(node, w.genesis.ID, inv.id, inv.seed)
}

func (w *world) addAdmit(a *Admit) {
	w.t.Helper()
	if _, err := w.AddAdmit(a.Raw); err != nil {
		w.t.Fatal(err)
	}
}

// join admits a node by an acceptor, through all checks.
func (w *world) join(node *identity.Identity, inv invited, by *identity.Identity) *Admit {
	w.t.Helper()
	a := w.admitOf(node, inv)
	w.addAdmit(a)
	w.tick(time.Second)
	if _, err := w.Accept(by, a.ID, w.now); err != nil {
		w.t.Fatal(err)
	}
	return a
}

// forge adds an acceptance with any content, as somebody who breaks the rules would make it.
func (w *world) forge(by *identity.Identity, x Acceptance) Signed {
	w.t.Helper()
	s := signAcceptance(by, w.genesis.ID, &x)
	if _, err := w.AddAcceptance(s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// statement makes a statement with any content and place.
func (w *world) statement(by *identity.Identity, st Statement, content any) Signed {
	return signStatement(by, w.genesis.ID, &st, content)
}

func (w *world) add(s Signed) {
	w.t.Helper()
	if _, err := w.AddStatement(s); err != nil {
		w.t.Fatal(err)
	}
}

// clone is an empty ledger of the same network.
func (w *world) clone() *Ledger {
	w.t.Helper()
	l, err := New(w.genesis.Signed)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// copyInto merges everything of one ledger into another.
func copyInto(t testing.TB, from, to *Ledger) {
	t.Helper()
	for s := range from.Statements(0) {
		if _, err := to.AddStatement(s); err != nil {
			t.Fatal(err)
		}
	}
	for r := range from.Records(0) {
		addRecord(t, to, r)
	}
}

func addRecord(t testing.TB, l *Ledger, r Record) {
	t.Helper()
	var err error
	if r.Acceptance != nil {
		_, err = l.AddAcceptance(*r.Acceptance)
	} else {
		_, err = l.AddAdmit(r.Admit)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) wantMembers(nodes ...*identity.Identity) {
	w.t.Helper()
	st := w.state()
	if len(st.Members) != len(nodes)+1 {
		w.t.Errorf("%d members, want the founder and %d", len(st.Members), len(nodes))
	}
	for i, n := range nodes {
		if i+1 < len(st.Members) && st.Members[i+1].ID != n.ID() {
			w.t.Errorf("member %d is %s, want %s", i+1, st.Members[i+1].ID.Short(), n.ID().Short())
		}
	}
}

func raw(v any) []byte { return dcbor.Marshal(v) }
