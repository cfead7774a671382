package ledger

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/control/shelf"
	"github.com/meshnet/meshnet/identity"
)

func TestAddAdmitRefuses(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(1, 0)
	node := seeded(10)
	good := w.admitOf(node, inv)
	notInvite, err := w.Rename(w.founder, w.founder.ID(), "x", w.now)
	if err != nil {
		t.Fatal(err)
	}
	reform := func(change func(a *Admit, signer **identity.Identity)) []byte {
		a, signer := *good, node
		change(&a, &signer)
		body := raw(&a)
		invSig := identity.FromSeed(inv.seed).Sign(identity.PurposeAdmitInvite, a.Network, body)
		return raw([][]byte{body, invSig, signer.Sign(identity.PurposeAdmitNode, a.Network, body)})
	}
	for _, c := range []struct {
		name string
		raw  []byte
		want error
	}{
		{"another network", NewAdmit(node, identity.NetworkID{1}, inv.id, inv.seed).Raw, ErrForeignNetwork},
		{"another invite's secret", NewAdmit(node, w.genesis.ID, inv.id, identity.Secret{1}).Raw, ErrBadSignature},
		{"another node's signature", reform(func(_ *Admit, s **identity.Identity) { *s = seeded(11) }), ErrBadSignature},
		{"no WireGuard key", reform(func(a *Admit, _ **identity.Identity) { a.WG = identity.WGKey{} }), ErrMalformed},
		{
			"not an invite", NewAdmit(node, w.genesis.ID, identity.Sum(identity.PurposeStatement, notInvite.Body), inv.seed).Raw,
			ErrUnknownInvite,
		},
		{"too large", make([]byte, maxRecord+1), ErrTooLarge},
		{"cut", good.Raw[:len(good.Raw)-1], ErrMalformed},
	} {
		if added, err := w.AddAdmit(c.raw); added || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, added, err, c.want)
		}
	}
	for i, want := range []bool{true, false} {
		if added, err := w.AddAdmit(good.Raw); added != want || err != nil {
			t.Errorf("good admit, time %d: %v %v", i, added, err)
		}
	}
}

func TestAddAcceptanceRefuses(t *testing.T) {
	w := newWorld(t)
	x := Acceptance{Admit: identity.Hash{1}, Time: 5}
	good := signAcceptance(w.founder, w.genesis.ID, &x)
	late := signAcceptance(w.founder, w.genesis.ID, &Acceptance{Time: maxTime + 1})
	heads := signAcceptance(w.founder, w.genesis.ID, &Acceptance{Heads: []identity.Hash{{2}, {1}}})
	for _, c := range []struct {
		name string
		s    Signed
		want error
	}{
		{"another network", signAcceptance(w.founder, identity.NetworkID{1}, &x), ErrBadSignature},
		{"time", late, ErrMalformed},
		{"heads", heads, ErrMalformed},
		{"too large", Signed{make([]byte, maxRecord+1), nil}, ErrTooLarge},
		{"cut", Signed{good.Body[:9], good.Sig}, ErrMalformed},
	} {
		if added, err := w.AddAcceptance(c.s); added || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, added, err, c.want)
		}
	}
	for i, want := range []bool{true, false} {
		if added, err := w.AddAcceptance(good); added != want || err != nil {
			t.Errorf("good acceptance, time %d: %v %v", i, added, err)
		}
	}
	if _, n := w.Len(); n != 0 {
		t.Error("an acceptance without its admit counts")
	}
}

func TestCheckAdmit(t *testing.T) {
	w := newWorld(t)
	member, gone := seeded(10), seeded(11)
	open := w.invite(0, 0)
	single := w.invite(1, 0)
	short := w.invite(0, time.Hour)
	dead := w.invite(0, 0)
	w.join(member, single, w.founder)
	w.join(gone, open, w.founder)
	if _, err := w.RevokeMember(w.founder, gone.ID(), false, w.now); err != nil {
		t.Fatal(err)
	}
	if _, err := w.RevokeInvite(w.founder, dead.id, false, w.now); err != nil {
		t.Fatal(err)
	}
	stolen := *w.admitOf(seeded(20), open)
	stolen.WG = member.WG()
	body := raw(&stolen)
	inviteSig := identity.FromSeed(open.seed).Sign(identity.PurposeAdmitInvite, w.genesis.ID, body)
	stolen.Raw = raw([][]byte{body, inviteSig, seeded(20).Sign(identity.PurposeAdmitNode, w.genesis.ID, body)})
	unknown := open
	unknown.id = identity.Hash{1}
	wrong := open
	wrong.seed = identity.Secret{1}
	later := w.now.Add(2 * time.Hour)
	for _, c := range []struct {
		name string
		a    *Admit
		at   time.Time
		want error
	}{
		{"stranger", w.admitOf(seeded(20), open), w.now, nil},
		{"before expiry", w.admitOf(seeded(20), short), w.now, nil},
		{"after expiry", w.admitOf(seeded(20), short), later, ErrExpired},
		{"used", w.admitOf(seeded(20), single), w.now, ErrUsed},
		{"member comes again", w.admitOf(member, single), w.now, nil},
		{"revoked invite", w.admitOf(seeded(20), dead), w.now, ErrRevoked},
		{"revoked node", w.admitOf(gone, open), w.now, ErrRevoked},
		{"unknown invite", w.admitOf(seeded(20), unknown), w.now, ErrUnsynced},
		{"wrong secret", w.admitOf(seeded(20), wrong), w.now, ErrBadSignature},
		{"another's key", &stolen, w.now, ErrKeyConflict},
	} {
		if err := w.State(c.at).CheckAdmit(c.a, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestJoinThroughMembers(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, 0, "server")
	a, b, c := seeded(10), seeded(11), seeded(12)
	w.join(a, inv, w.founder)
	w.join(b, inv, a)
	w.join(c, inv, b)
	w.wantMembers(a, b, c)
	m, _ := w.state().Member(b.ID())
	if m.WG != b.WG() || m.Disco != b.Disco() || m.Acceptor != a.ID() || !slices.Equal(m.Tags, []string{"server"}) ||
		m.InviteID != inv.id || m.Admin || !m.IP4.IsValid() {
		t.Errorf("%+v", m)
	}
	got, _ := w.state().Invite(inv.id)
	if got.Used != 3 {
		t.Errorf("%d uses", got.Used)
	}
}

func TestAcceptRefuses(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(1, 0)
	a, b := seeded(10), seeded(11)
	if _, err := w.Accept(w.founder, identity.Hash{1}, w.now); !errors.Is(err, ErrUnknownAdmit) {
		t.Errorf("unknown: %v", err)
	}
	first := w.join(a, inv, w.founder)
	late := w.admitOf(b, inv)
	w.addAdmit(late)
	if _, err := w.Accept(a, late.ID, w.now); !errors.Is(err, ErrUsed) {
		t.Errorf("used: %v", err)
	}
	if _, err := w.Accept(b, late.ID, w.now); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("by a stranger: %v", err)
	}
	x, err := w.Accept(w.founder, first.ID, w.now.Add(time.Hour))
	if err != nil || string(x.Body) != string(w.admissions[first.ID].acceptances[0].Signed.Body) {
		t.Errorf("asked again: %v", err)
	}
}

func TestRecordsWaitForWhatTheyName(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, 0)
	a, b := seeded(10), seeded(11)
	w.join(a, inv, w.founder)
	w.join(b, inv, a)
	want := w.state()
	var records []Record
	for r := range w.Records(0) {
		records = append(records, r)
	}
	slices.Reverse(records)
	l := w.clone()
	for _, r := range records { // children first, and all before their invite
		addRecord(t, l, r)
	}
	if _, n := l.Pending(); n != 4 || len(l.State(w.now).Members) != 1 {
		t.Fatalf("%d pending, want all four", n)
	}
	for s := range w.Statements(0) {
		l.AddStatement(s)
	}
	if !sameState(l.State(w.now), want) || l.Admitted().Root() != w.Admitted().Root() {
		t.Error("states differ")
	}
	if len(l.open.items) != 0 || len(l.open.waiting) != 0 || l.open.size != 0 {
		t.Error("something still waits")
	}
}

func TestStrangersCannotFillTheLedger(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, 0)
	a, b := w.admitOf(seeded(10), inv), w.admitOf(seeded(11), inv)
	w.addAdmit(a)
	w.addAdmit(b)
	w.forge(seeded(10), Acceptance{Admit: b.ID, Time: millis(w.now)})
	w.forge(seeded(11), Acceptance{Admit: a.ID, Time: millis(w.now)})
	if _, n := w.Len(); n != 0 {
		t.Errorf("%d records of strangers who accept each other", n)
	}
}

func TestAdmissionLookups(t *testing.T) {
	w := newWorld(t)
	empty := w.Admitted().Root()
	a := w.join(seeded(10), w.invite(0, 0), w.founder)
	ids := slices.Collect(w.Admitted().Of(shelf.Whole()))
	if len(ids) != 2 || w.Admitted().Root() == empty {
		t.Errorf("%d ids", len(ids))
	}
	got, xs, ok := w.Admission(a.ID)
	if !ok || string(got) != string(a.Raw) || len(xs) != 1 {
		t.Error("admission")
	}
	for _, e := range ids {
		if r, ok := w.Record(e.Key); !ok || r.ID != e.Key || (r.Admit == nil) == (r.Acceptance == nil) {
			t.Errorf("record %+v", r)
		}
	}
	if _, ok := w.Record(identity.Hash{}); ok {
		t.Error("a record of nothing")
	}
	if _, _, ok := w.Admission(identity.Hash{}); ok {
		t.Error("an admission of nothing")
	}
}
