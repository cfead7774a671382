package ledger

import (
	"errors"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

func TestProof(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, time.Hour, "t")
	a, b, c := seeded(10), seeded(11), seeded(12)
	w.join(a, inv, w.founder)
	w.join(b, inv, a)
	w.join(c, inv, b)
	check := func(node *identity.Identity, links int) {
		t.Helper()
		p, err := w.Proof(node.ID())
		if err != nil {
			t.Fatal(err)
		}
		got, err := VerifyProof(w.genesis, p, node.ID())
		if err != nil {
			t.Fatal(err)
		}
		m, _ := w.state().Member(node.ID())
		if got.WG != node.WG() || got.Disco != node.Disco() || got.Links != links || !got.Admitted.Equal(m.Admitted) ||
			got.InviteID != m.InviteID || got.AdmitID != m.AdmitID {
			t.Errorf("%+v", got)
		}
	}
	check(w.founder, 0)
	check(a, 1)
	check(c, 3)
	w.Keep(w.founder, w.state().Unkept, w.now)
	check(c, 1) // the founder's own word
	if _, err := w.Proof(seeded(99).ID()); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("of a stranger: %v", err)
	}
}

func TestProofIsBounded(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, 0)
	by := w.founder
	for i := range uint32(maxProofLinks + 1) {
		node := seeded(100 + i)
		w.join(node, inv, by)
		by = node
	}
	if _, err := w.Proof(seeded(100 + maxProofLinks - 1).ID()); err != nil {
		t.Errorf("64 links: %v", err)
	}
	if _, err := w.Proof(by.ID()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("65 links: %v", err)
	}
}

func TestVerifyProofRefuses(t *testing.T) {
	w := newWorld(t)
	inv, short := w.invite(0, 0), w.invite(0, time.Minute)
	a, b := seeded(10), seeded(11)
	w.join(a, inv, w.founder)
	w.join(b, inv, a)
	keeps, _ := w.Keep(w.founder, []identity.Hash{w.state().Unkept[0]}, w.now)
	good := func() [][][]byte {
		return [][][]byte{w.linkOf(b), w.linkOf(a)}
	}
	forgedInvite := func(link [][]byte) [][]byte {
		st := w.statement(a, Statement{Type: TypeInvite, Clock: 1}, &InviteTerms{Key: seeded(5).ID()})
		adm := NewAdmit(b, w.genesis.ID, identity.Sum(identity.PurposeStatement, st.Body), seeded(5).Seed())
		x := signAcceptance(a, w.genesis.ID, &Acceptance{Admit: adm.ID})
		return [][]byte{adm.Raw, st.Marshal(), x.Marshal()}
	}
	expired := w.admitOf(b, short)
	late := signAcceptance(a, w.genesis.ID, &Acceptance{Admit: expired.ID, Time: millis(w.now.Add(time.Hour))})
	for _, c := range []struct {
		name   string
		change func(p [][][]byte) [][][]byte
		id     identity.PeerID
		want   error
	}{
		{"good", func(p [][][]byte) [][][]byte { return p }, b.ID(), nil},
		{"of somebody else", func(p [][][]byte) [][][]byte { return p }, a.ID(), ErrProof},
		{"cut before the founder", func(p [][][]byte) [][][]byte { return p[:1] }, b.ID(), ErrProof},
		{"a link missing", func(p [][][]byte) [][][]byte { return p[1:] }, b.ID(), ErrProof},
		{"empty", func([][][]byte) [][][]byte { return [][][]byte{} }, b.ID(), ErrProof},
		{"acceptance of another", func(p [][][]byte) [][][]byte { p[0][2] = p[1][2]; return p }, b.ID(), ErrProof},
		{"another invite", func(p [][][]byte) [][][]byte {
			p[0][1] = w.byID[short.id].Signed.Marshal()
			return p
		}, b.ID(), ErrProof},
		{"invite by a member", func(p [][][]byte) [][][]byte { p[0] = forgedInvite(p[0]); return p }, b.ID(), ErrProof},
		{"after expiry", func(p [][][]byte) [][][]byte {
			p[0] = [][]byte{expired.Raw, w.byID[short.id].Signed.Marshal(), late.Marshal()}
			return p
		}, b.ID(), ErrProof},
		{"keep of another", func(p [][][]byte) [][][]byte {
			return [][][]byte{{p[0][0], p[0][1], {}, keeps[0].Marshal()}}
		}, b.ID(), ErrProof},
		{"not a link", func(p [][][]byte) [][][]byte { return [][][]byte{p[0][:2]} }, b.ID(), ErrMalformed},
		{"too many", func(p [][][]byte) [][][]byte { return make([][][]byte, 65) }, b.ID(), ErrMalformed},
	} {
		if _, err := VerifyProof(w.genesis, raw(c.change(good())), c.id); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := VerifyProof(w.genesis, make([]byte, MaxProof+1), b.ID()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	other := *w.genesis
	other.ID[0] ^= 1
	if _, err := VerifyProof(&other, raw(good()), b.ID()); !errors.Is(err, ErrProof) {
		t.Errorf("another network: %v", err)
	}
}

// linkOf is the link by acceptance, also of a kept member.
func (w *world) linkOf(node *identity.Identity) [][]byte {
	m, _ := w.state().Member(node.ID())
	x := w.admissions[m.AdmitID].acceptances[0]
	return [][]byte{w.admissions[m.AdmitID].Raw, w.byID[m.InviteID].Signed.Marshal(), x.Signed.Marshal()}
}
