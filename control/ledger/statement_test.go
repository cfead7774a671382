package ledger

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

func TestFoundRefuses(t *testing.T) {
	ok := netip.MustParsePrefix("100.88.0.0/16")
	for _, c := range []struct {
		name string
		p    FoundParams
		want error
	}{
		{"good", FoundParams{Name: "lab", Prefix4: ok}, nil},
		{"unmasked prefix is masked", FoundParams{Name: "lab", Prefix4: netip.MustParsePrefix("10.1.2.3/8")}, nil},
		{"own suffix", FoundParams{Name: "lab", Prefix4: ok, Suffix: "mesh.example.org"}, nil},
		{"upper case", FoundParams{Name: "Lab", Prefix4: ok}, ErrName},
		{"empty name", FoundParams{Prefix4: ok}, ErrName},
		{"long name", FoundParams{Name: string(bytes.Repeat([]byte("a"), 64)), Prefix4: ok}, ErrName},
		{"hyphen", FoundParams{Name: "-lab", Prefix4: ok}, ErrName},
		{"bad suffix", FoundParams{Name: "lab", Prefix4: ok, Suffix: "a..b"}, ErrName},
		{"too wide", FoundParams{Name: "lab", Prefix4: netip.MustParsePrefix("0.0.0.0/7")}, ErrPrefix4},
		{"too narrow", FoundParams{Name: "lab", Prefix4: netip.MustParsePrefix("10.0.0.0/21")}, ErrPrefix4},
		{"IPv6", FoundParams{Name: "lab", Prefix4: netip.MustParsePrefix("fd00::/16")}, ErrPrefix4},
		{"none", FoundParams{Name: "lab"}, ErrPrefix4},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := Found(seeded(1), c.p, identity.Secret{1}, epoch)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil && g.Network().Suffix == "" {
				t.Error("no suffix")
			}
		})
	}
}

func TestParseGenesisRefuses(t *testing.T) {
	w := newWorld(t)
	resign := func(change func(*Genesis)) Signed {
		g := *w.genesis
		change(&g)
		body := raw(&g)
		return Signed{body, w.founder.Sign(identity.PurposeGenesis, identity.NetworkID{}, body)}
	}
	for _, c := range []struct {
		name string
		s    Signed
		want error
	}{
		{"as it is", w.genesis.Signed, nil},
		{"version", resign(func(g *Genesis) { g.Version = 2 }), ErrNewer},
		{"name", resign(func(g *Genesis) { g.Name = "A" }), ErrMalformed},
		{"prefix", resign(func(g *Genesis) { g.Addr4[3] = 1 }), ErrMalformed},
		{"founder", resign(func(g *Genesis) { g.Founder = seeded(2).ID() }), ErrBadSignature},
		{"large", Signed{make([]byte, maxRecord+1), nil}, ErrTooLarge},
		{"empty", Signed{}, ErrMalformed},
	} {
		if _, err := ParseGenesis(c.s); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestAddStatementRefuses(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t)
	other.genesis.ID[0] ^= 1
	inv := w.invite(1, 0)
	head := []identity.Hash{inv.id}
	rename := &renaming{Member: w.founder.ID(), Name: "a"}
	at := func(clock uint64, prev ...identity.Hash) Statement {
		return Statement{Type: TypeRename, Clock: clock, Prev: prev, Time: 1}
	}
	good := w.statement(w.founder, at(2, head...), rename)
	bad := Signed{good.Body, bytes.Clone(good.Sig)}
	bad.Sig[5] ^= 1
	nine := make([]identity.Hash, 9)
	for i := range nine {
		nine[i][0] = byte(i)
	}
	tooLong := Statement{Type: TypeSettings, Clock: 2, Prev: head}
	policy := Statement{Type: TypePolicy, Clock: 2, Prev: head}
	invite3 := Statement{Type: TypeInvite, Clock: 2, Seen: nine[:3]}
	before := w.Heads()
	for _, c := range []struct {
		name string
		s    Signed
		want error
	}{
		{"another network", other.statement(w.founder, at(2, head...), rename), ErrBadSignature},
		{"altered signature", bad, ErrBadSignature},
		{"clock too high", w.statement(w.founder, at(maxTime+1, head...), rename), ErrClockTooHigh},
		{"clock jumps", w.statement(w.founder, at(3, head...), rename), ErrVoid},
		{"clock stays", w.statement(w.founder, at(1, head...), rename), ErrVoid},
		{"clock zero", w.statement(w.founder, at(0), rename), ErrMalformed},
		{"prev of another author", w.statement(seeded(9), at(2, head...), rename), ErrVoid},
		{"nine parents", w.statement(w.founder, at(2, nine...), rename), ErrMalformed},
		{"unsorted parents", w.statement(w.founder, at(2, nine[1], nine[0]), rename), ErrMalformed},
		{"three seen in an invite", w.statement(w.founder, invite3, rename), ErrMalformed},
		{"too long", w.statement(w.founder, tooLong, make([]byte, MaxStatement)), ErrTooLarge},
		{"policy too long", w.statement(w.founder, policy, make([]byte, MaxPolicy)), ErrTooLarge},
		{"no cbor", Signed{[]byte{1, 2}, good.Sig}, ErrMalformed},
		{"nothing", Signed{}, ErrMalformed},
	} {
		if added, err := w.AddStatement(c.s); added || !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, added, err, c.want)
		}
	}
	if !slices.Equal(before, w.Heads()) {
		t.Error("refused input changed the heads")
	}
	for i, want := range []bool{true, false} {
		if added, err := w.AddStatement(good); added != want || err != nil {
			t.Errorf("good statement, time %d: %v, %v", i, added, err)
		}
	}
	w.add(w.statement(w.founder, Statement{Type: TypePolicy, Clock: 3, Prev: w.Heads()}, make([]byte, MaxStatement)))
}

func TestPendingUntilParentComes(t *testing.T) {
	w := newWorld(t)
	w.invite(1, 0)
	w.invite(2, 0)
	w.invite(3, 0)
	all := slices.Collect(w.Statements(0))
	l := w.clone()
	for _, i := range []int{2, 1} {
		if added, err := l.AddStatement(all[i]); !added || err != nil {
			t.Fatal(added, err)
		}
	}
	if added, _ := l.AddStatement(all[2]); added {
		t.Error("pending one added twice")
	}
	if n, _ := l.Len(); n != 0 || len(l.State(epoch).Invites) != 0 {
		t.Error("orphans count")
	}
	if n, _ := l.Pending(); n != 2 {
		t.Errorf("%d pending, want 2", n)
	}
	l.AddStatement(all[0])
	if got := slices.Collect(l.Statements(0)); len(got) != 3 || !slices.Equal(l.Heads(), w.Heads()) {
		t.Errorf("%d statements after the parent came", len(got))
	}
	if n, _ := l.Pending(); n != 0 || len(l.pending.waiting) != 0 || l.pending.size != 0 {
		t.Error("something still waits")
	}
}

func TestPendingIsBounded(t *testing.T) {
	w := newWorld(t)
	for i := range uint32(200) {
		st := Statement{Type: TypePolicy, Clock: 2, Prev: []identity.Hash{{byte(i), 1}}}
		w.add(w.statement(w.founder, st, make([]byte, 60<<10)))
	}
	if n, _ := w.Pending(); n == 0 || w.pending.size > maxPendingStatements {
		t.Errorf("%d pending, %d bytes", n, w.pending.size)
	}
	if len(w.pending.waiting) != len(w.pending.items) {
		t.Error("who left still waits")
	}
}

func TestVoidChildOfPendingIsDropped(t *testing.T) {
	w := newWorld(t)
	w.invite(1, 0)
	first := slices.Collect(w.Statements(0))[0]
	l := w.clone()
	jump := w.statement(w.founder, Statement{Type: TypeRename, Clock: 9, Prev: w.Heads()}, &renaming{Name: "x"})
	l.AddStatement(jump)
	l.AddStatement(first)
	if n, _ := l.Len(); n != 1 {
		t.Errorf("%d statements, want only the parent", n)
	}
}

func TestForkCountsBothBranchesAndIsReported(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, 0)
	a, b := seeded(10), seeded(11)
	w.join(a, inv, w.founder)
	w.join(b, inv, w.founder)
	backup := w.clone()
	copyInto(t, w.Ledger, backup)
	if len(w.state().Forked) != 0 {
		t.Fatal("forked too early")
	}
	w.Rename(w.founder, a.ID(), "left", w.now)
	backup.Rename(w.founder, b.ID(), "right", w.now)
	copyInto(t, backup, w.Ledger)
	st := w.state()
	ma, _ := st.Member(a.ID())
	mb, _ := st.Member(b.ID())
	if ma.Rename != "left" || mb.Rename != "right" {
		t.Errorf("renames %q %q", ma.Rename, mb.Rename)
	}
	if !slices.Equal(st.Forked, []identity.PeerID{w.founder.ID()}) {
		t.Errorf("forked: %v", st.Forked)
	}
	if len(w.Heads()) != 2 {
		t.Fatalf("%d heads, want 2", len(w.Heads()))
	}
	w.Rename(w.founder, b.ID(), "joined", w.now)
	if len(w.Heads()) != 1 {
		t.Error("the next statement does not join the branches")
	}
}

func TestLastWriterIsByClockThenHash(t *testing.T) {
	w := newWorld(t)
	w.join(seeded(10), w.invite(0, 0), w.founder)
	base := w.byID[w.Heads()[0]]
	make1 := func(name string) Signed {
		return w.statement(w.founder, Statement{Type: TypeRename, Clock: base.Clock + 1, Prev: w.Heads()},
			&renaming{Member: seeded(10).ID(), Name: name})
	}
	x, y := make1("x"), make1("y")
	w.add(x)
	w.add(y)
	want := "x"
	if compareHash(identity.Sum(identity.PurposeStatement, x.Body), identity.Sum(identity.PurposeStatement, y.Body)) < 0 {
		want = "y"
	}
	if m, _ := w.state().Member(seeded(10).ID()); m.Rename != want {
		t.Errorf("name %q, want %q", m.Rename, want)
	}
}

func TestUnknownStatementsAreKept(t *testing.T) {
	type wider struct {
		Author identity.PeerID `cbor:"0,keyasint"`
		Prev   []identity.Hash `cbor:"1,keyasint,omitempty"`
		Clock  uint64          `cbor:"3,keyasint"`
		Time   uint64          `cbor:"4,keyasint"`
		Type   Type            `cbor:"5,keyasint"`
		Body   []byte          `cbor:"6,keyasint"`
		New    string          `cbor:"7,keyasint,omitempty"`
		Hint   string          `cbor:"-1,keyasint,omitempty"`
	}
	name := raw(&renaming{Member: seeded(1).ID(), Name: "x"})
	for _, c := range []struct {
		name   string
		st     wider
		update bool
		rename string
	}{
		{"unknown type", wider{Type: "teleport", Body: []byte{0xa0}}, true, ""},
		{"type of a later release", wider{Type: TypeGrant, Body: []byte{0xa0}}, true, ""},
		{"unknown critical key", wider{Type: TypeRename, Body: name, New: "x"}, true, ""},
		{"unknown ignorable key", wider{Type: TypeRename, Body: name, Hint: "x"}, false, "x"},
		{"body not understood", wider{Type: TypeRename, Body: []byte{0xa0}}, true, ""},
		{"revocation of an admin", wider{Type: TypeRevoke, Body: raw(&revocation{Kind: "admin"})}, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.st.Author, c.st.Clock = w.founder.ID(), 1
			body := raw(&c.st)
			w.add(Signed{body, w.founder.Sign(identity.PurposeStatement, w.genesis.ID, body)})
			st := w.state()
			if m := st.Members[0]; st.UpdateNeeded != c.update || m.Rename != c.rename {
				t.Errorf("update needed %v, renamed %q", st.UpdateNeeded, m.Rename)
			}
			w.invite(1, 0)
			if next := w.byID[w.Heads()[0]]; next.Clock != 2 {
				t.Errorf("clock %d behind it, want 2", next.Clock)
			}
			got := slices.Collect(w.Statements(0))
			if !bytes.Equal(got[0].Body, body) {
				t.Error("not passed on as it came")
			}
		})
	}
}

func TestNonAdminHasNoEffect(t *testing.T) {
	w := newWorld(t)
	node := seeded(10)
	w.join(node, w.invite(0, 0), w.founder)
	want := w.state()
	w.add(w.statement(node, Statement{Type: TypeRename, Clock: 1}, &renaming{Member: w.founder.ID(), Name: "mine"}))
	w.add(w.statement(node, Statement{Type: TypeRevoke, Clock: 2, Prev: []identity.Hash{w.tipOf(node)}},
		&revocation{Kind: subjectMember, Subject: identity.Hash(w.founder.ID())}))
	st := w.state()
	if st.Members[0].Rename != "" || len(st.Revoked) != 0 || len(st.Members) != len(want.Members) || st.UpdateNeeded {
		t.Error("a member's statement has an effect")
	}
	if _, _, err := w.Invite(node, InviteParams{}, w.now); !errors.Is(err, ErrNotAdmin) {
		t.Errorf("member's invite: %v", err)
	}
	w.invite(1, 0)
	if len(w.Heads()) != 1 {
		t.Error("the member's head is not cited")
	}
}

func (w *world) tipOf(node *identity.Identity) identity.Hash {
	for id := range w.tips[node.ID()] {
		return id
	}
	w.t.Fatal("no statement")
	return identity.Hash{}
}

func TestForeignStatementsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.foreign = maxForeign
	stranger := seeded(50)
	s := w.statement(stranger, Statement{Type: TypeRename, Clock: 1}, &renaming{})
	if _, err := w.AddStatement(s); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	child := w.statement(w.founder, Statement{
		Type: TypeRename, Clock: 2,
		Seen: []identity.Hash{identity.Sum(identity.PurposeStatement, s.Body)},
	}, &renaming{})
	w.add(child)
	w.add(s) // wanted by the founder's
	if n, _ := w.Len(); n != 2 {
		t.Errorf("%d statements, want both", n)
	}
}

func TestMissing(t *testing.T) {
	w := newWorld(t)
	w.invite(1, 0)
	old := w.Heads()
	w.invite(2, time.Hour)
	w.invite(3, 0)
	for _, c := range []struct {
		name    string
		theirs  []identity.Hash
		want    int
		unknown bool
	}{
		{"nothing", nil, 3, false},
		{"old", old, 2, false},
		{"all", w.Heads(), 0, false},
		{"ahead of us", []identity.Hash{{1}}, 3, true},
		{"both", []identity.Hash{{1}, old[0]}, 2, true},
	} {
		got, unknown := w.Missing(c.theirs)
		if len(got) != c.want || unknown != c.unknown {
			t.Errorf("%s: %d, %v", c.name, len(got), unknown)
		}
	}
}

// TestParseSignedKeepsOneCopy: the parts are those of the input, and appending to one leaves the next one alone.
func TestParseSignedKeepsOneCopy(t *testing.T) {
	data := newWorld(t).genesis.Signed.Marshal()
	want := bytes.Clone(data)
	s, err := ParseSigned(data)
	if err != nil {
		t.Fatal(err)
	}
	if &s.Sig[len(s.Sig)-1] != &data[len(data)-1] {
		t.Error("the signature is a copy")
	}
	_ = append(s.Body, 1, 2, 3)
	if !bytes.Equal(data, want) {
		t.Error("appending to the body changed what stands behind it")
	}
}

// TestParsePartsForms: only the shortest form of every length is taken.
func TestParsePartsForms(t *testing.T) {
	sig := append([]byte{0x58, 64}, make([]byte, 64)...)
	signed := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	long := make([]byte, 1<<16)
	for _, c := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"short body", signed([]byte{0x82, 0x41, 1}, sig), true},
		{"body of 24", signed([]byte{0x82, 0x58, 24}, long[:24], sig), true},
		{"body of 256", signed([]byte{0x82, 0x59, 1, 0}, long[:256], sig), true},
		{"body of 65536", signed([]byte{0x82, 0x5a, 0, 1, 0, 0}, long, sig), true},
		{"23 in two bytes", signed([]byte{0x82, 0x58, 23}, long[:23], sig), false},
		{"255 in three bytes", signed([]byte{0x82, 0x59, 0, 255}, long[:255], sig), false},
		{"65535 in five bytes", signed([]byte{0x82, 0x5a, 0, 0, 255, 255}, long[:65535], sig), false},
		{"eight bytes of length", signed([]byte{0x82, 0x5b, 0, 0, 0, 0, 0, 1, 0, 0}, long, sig), false},
		{"empty body", signed([]byte{0x82, 0x40}, sig), false},
		{"text for a body", signed([]byte{0x82, 0x61, 'a'}, sig), false},
		{"no signature", []byte{0x81, 0x41, 1}, false},
		{"one too many", signed([]byte{0x83, 0x41, 1}, sig, sig), false},
		{"something behind", signed([]byte{0x82, 0x41, 1}, sig, []byte{0}), false},
		{"cut in the head", []byte{0x82, 0x59, 1}, false},
		{"cut", signed([]byte{0x82, 0x41, 1}, sig[:65]), false},
		{"nothing", nil, false},
	} {
		s, err := ParseSigned(c.data)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && !bytes.Equal(s.Marshal(), c.data) {
			t.Errorf("%s: written differently", c.name)
		}
	}
}
