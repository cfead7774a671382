package ledger

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

func sameState(a, b *State) bool { return reflect.DeepEqual(a, b) }

func TestUseLimitUnderConcurrentAcceptors(t *testing.T) {
	w := newWorld(t)
	open, single := w.invite(0, 0), w.invite(1, 0)
	left, right := seeded(10), seeded(11)
	w.join(left, open, w.founder)
	w.join(right, open, w.founder)
	other := &world{Ledger: w.clone(), t: t, founder: w.founder, now: w.now.Add(time.Minute)}
	copyInto(t, w.Ledger, other.Ledger)
	first, second := seeded(20), seeded(21)
	w.join(first, single, left)
	other.join(second, single, right) // neither knows of the other
	other.wantMembers(left, right, second)
	copyInto(t, w.Ledger, other.Ledger)
	copyInto(t, other.Ledger, w.Ledger)
	w.tick(time.Hour)
	w.wantMembers(left, right, first)
	st := w.state()
	if !sameState(st, other.State(w.now)) {
		t.Error("states differ")
	}
	inv, _ := st.Invite(single.id)
	if !slices.Equal(st.Overused, []identity.Hash{single.id}) || inv.Used != 1 || inv.Overused != 1 {
		t.Errorf("overused %v, %+v", st.Overused, inv)
	}
}

func TestEarlyDatesAreRaisedAndHopsDecide(t *testing.T) {
	for n := range uint32(8) {
		w := newWorld(t)
		w.tick(time.Hour)
		inv := w.invite(0, 0)
		near, far, direct := seeded(10+3*n), seeded(11+3*n), seeded(12+3*n)
		for _, j := range []struct{ node, by *identity.Identity }{
			{near, w.founder}, {far, near}, {direct, w.founder},
		} {
			a := w.admitOf(j.node, inv)
			w.addAdmit(a)
			w.forge(j.by, Acceptance{Admit: a.ID, Time: 1})
		}
		st := w.state()
		if st.Members[3].ID != far.ID() {
			t.Errorf("seed %d: who is two hops away does not stand last", n)
		}
		for _, m := range st.Members[1:] {
			if !m.Admitted.Equal(w.now) {
				t.Errorf("admitted %v, before the invite of %v", m.Admitted, w.now)
			}
		}
	}
}

func TestKeepDecidesBeforeTime(t *testing.T) {
	w := newWorld(t)
	single := w.invite(1, 0)
	kept := w.join(seeded(10), single, w.founder)
	if _, err := w.Keep(w.founder, w.state().Unkept, w.now); err != nil {
		t.Fatal(err)
	}
	early := w.admitOf(seeded(11), single)
	w.addAdmit(early)
	w.forge(w.founder, Acceptance{Admit: early.ID, Time: 1})
	w.wantMembers(seeded(10))
	m, _ := w.state().Member(seeded(10).ID())
	if !m.Kept || m.AdmitID != kept.ID || len(w.state().Unkept) != 0 {
		t.Errorf("%+v", m)
	}
}

func TestVoidAcceptances(t *testing.T) {
	node, member, outsider := seeded(20), seeded(10), seeded(30)
	for _, c := range []struct {
		name string
		do   func(w *world, a *Admit, short invited)
		in   bool
	}{
		{"by the founder", func(w *world, a *Admit, _ invited) {
			w.forge(w.founder, Acceptance{Admit: a.ID, Time: millis(w.now)})
		}, true},
		{"after expiry", func(w *world, a *Admit, _ invited) {
			w.forge(w.founder, Acceptance{Admit: a.ID, Time: millis(w.now.Add(2 * time.Hour))})
			w.tick(3 * time.Hour)
		}, false},
		{"by somebody admitted after expiry", func(w *world, a *Admit, _ invited) {
			w.tick(2 * time.Hour)
			w.join(outsider, w.invite(0, 0), w.founder)
			w.forge(outsider, Acceptance{Admit: a.ID, Time: 1})
		}, false},
		{"by a revoked member, honestly late", func(w *world, a *Admit, _ invited) {
			w.RevokeMember(w.founder, member.ID(), false, w.now)
			w.forge(member, Acceptance{Admit: a.ID, Time: millis(w.now), Heads: w.Heads()})
		}, false},
		{"by a revoked member, back-dated", func(w *world, a *Admit, _ invited) {
			heads := w.Heads()
			w.RevokeMember(w.founder, member.ID(), false, w.now.Add(time.Minute))
			w.forge(member, Acceptance{Admit: a.ID, Time: millis(w.now), Heads: heads})
		}, false},
		{"by a revoked member, back-dated beside its chain", func(w *world, a *Admit, _ invited) {
			w.join(seeded(21), w.invite(0, 0), member)
			w.RevokeMember(w.founder, member.ID(), false, w.now.Add(time.Minute))
			w.forge(member, Acceptance{Admit: a.ID, Time: millis(w.now)})
		}, false},
		{"in a chain that was accepted", func(w *world, a *Admit, _ invited) {
			w.forge(member, Acceptance{Admit: a.ID, Time: millis(w.now)})
			w.RevokeMember(w.founder, member.ID(), false, w.now)
		}, true},
		{"accepted, then purged", func(w *world, a *Admit, _ invited) {
			w.forge(member, Acceptance{Admit: a.ID, Time: millis(w.now)})
			w.RevokeMember(w.founder, member.ID(), true, w.now)
		}, false},
		{"purged, then kept again", func(w *world, a *Admit, _ invited) {
			w.forge(member, Acceptance{Admit: a.ID, Time: millis(w.now)})
			w.RevokeMember(w.founder, member.ID(), true, w.now)
			w.Keep(w.founder, []identity.Hash{a.ID}, w.now)
		}, true},
		{"purged, but somebody else accepted too", func(w *world, a *Admit, _ invited) {
			w.forge(member, Acceptance{Admit: a.ID, Time: millis(w.now)})
			w.forge(w.founder, Acceptance{Admit: a.ID, Time: millis(w.now)})
			w.RevokeMember(w.founder, member.ID(), true, w.now)
		}, true},
		{"cut off, then kept", func(w *world, a *Admit, _ invited) {
			w.RevokeMember(w.founder, member.ID(), false, w.now)
			w.forge(member, Acceptance{Admit: a.ID, Time: millis(w.now)})
			w.Keep(w.founder, []identity.Hash{a.ID}, w.now)
		}, true},
		{"invite revoked before", func(w *world, a *Admit, short invited) {
			w.RevokeInvite(w.founder, short.id, false, w.now)
			w.forge(w.founder, Acceptance{Admit: a.ID, Time: millis(w.now)})
		}, false},
		{"invite revoked, honoured", func(w *world, a *Admit, short invited) {
			w.forge(w.founder, Acceptance{Admit: a.ID, Time: millis(w.now)})
			w.RevokeInvite(w.founder, short.id, false, w.now)
		}, true},
		{"invite purged", func(w *world, a *Admit, short invited) {
			w.forge(w.founder, Acceptance{Admit: a.ID, Time: millis(w.now)})
			w.RevokeInvite(w.founder, short.id, true, w.now)
		}, false},
		{"by nobody", func(w *world, a *Admit, _ invited) {
			w.forge(outsider, Acceptance{Admit: a.ID, Time: millis(w.now)})
		}, false},
		{"heads that nobody has", func(w *world, a *Admit, _ invited) {
			w.forge(w.founder, Acceptance{Admit: a.ID, Time: millis(w.now), Heads: []identity.Hash{{1}}})
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.join(member, w.invite(0, 0), w.founder)
			short := w.invite(0, time.Hour)
			a := w.admitOf(node, short)
			w.addAdmit(a)
			c.do(w, a, short)
			if got := w.state().IsMember(node.ID()); got != c.in {
				t.Errorf("member: %v, want %v", got, c.in)
			}
		})
	}
}

func TestRevocationMovesNobodyElse(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, 0)
	for i := range uint32(30) {
		by := w.founder
		if i > 3 {
			by = seeded(10 + i%4)
		}
		w.join(seeded(10+i), inv, by)
	}
	before := w.state()
	for _, n := range []uint32{10, 13, 25} {
		w.tick(time.Minute)
		if _, err := w.RevokeMember(w.founder, seeded(n).ID(), false, w.now); err != nil {
			t.Fatal(err)
		}
	}
	after := w.state()
	if len(after.Members) != len(before.Members)-3 || len(after.Revoked) != 3 {
		t.Fatalf("%d members, %d revoked", len(after.Members), len(after.Revoked))
	}
	for i, m := range after.History {
		old := before.History[i]
		if m.ID != old.ID || m.IP4 != old.IP4 || !m.Admitted.Equal(old.Admitted) {
			t.Errorf("member %d moved", i)
		}
	}
	if _, err := w.RevokeMember(w.founder, seeded(10).ID(), false, w.now); err != ErrRevoked {
		t.Errorf("again: %v", err)
	}
	if _, err := w.RevokeMember(w.founder, w.founder.ID(), false, w.now); err != ErrFounder {
		t.Errorf("founder: %v", err)
	}
	if _, err := w.RevokeMember(w.founder, seeded(99).ID(), false, w.now); err != ErrUnknownMember {
		t.Errorf("stranger: %v", err)
	}
}

func TestRevokedInviteHonoursMoreThanItCanList(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(0, 0)
	for i := range uint32(maxHonours + 10) {
		w.join(seeded(100+i), inv, w.founder)
	}
	made, err := w.RevokeInvite(w.founder, inv.id, false, w.now)
	if err != nil || len(made) != 3 {
		t.Fatalf("%d statements, %v; want two keeps and the revocation", len(made), err)
	}
	st := w.state()
	if len(st.Members) != maxHonours+11 {
		t.Errorf("%d members stay", len(st.Members))
	}
	if inv, _ := st.InviteByShort(Short(inv.id)); !inv.Revoked {
		t.Error("not revoked")
	}
	if _, err := w.RevokeInvite(w.founder, inv.id, false, w.now); err != ErrRevoked {
		t.Errorf("again: %v", err)
	}
	if _, err := w.RevokeInvite(w.founder, identity.Hash{}, false, w.now); err != ErrUnknownInvite {
		t.Errorf("unknown: %v", err)
	}
}

func TestRevokedNeverReturns(t *testing.T) {
	w := newWorld(t)
	first, second := w.invite(0, 0), w.invite(0, 0)
	w.join(seeded(10), first, w.founder)
	w.RevokeMember(w.founder, seeded(10).ID(), false, w.now)
	again := w.admitOf(seeded(10), second)
	w.addAdmit(again)
	w.forge(w.founder, Acceptance{Admit: again.ID, Time: millis(w.now)})
	w.Keep(w.founder, []identity.Hash{again.ID}, w.now)
	w.wantMembers()
}

func TestDeferredUntilDue(t *testing.T) {
	w := newWorld(t)
	a := w.admitOf(seeded(10), w.invite(0, 0))
	w.addAdmit(a)
	at := w.now.Add(time.Hour)
	w.forge(w.founder, Acceptance{Admit: a.ID, Time: millis(at)})
	w.wantMembers()
	due := w.state().NextDue
	if want := at.Add(-tolerance); !due.Equal(want) {
		t.Fatalf("due %v, want %v", due, want)
	}
	w.now = due.Add(-time.Millisecond)
	w.wantMembers()
	w.now = due
	w.wantMembers(seeded(10))
	if !w.state().NextDue.IsZero() {
		t.Error("still something due")
	}
	w.now = due.Add(-time.Millisecond) // the clock goes back: so does the state
	w.wantMembers()
}

func TestStateIsCached(t *testing.T) {
	w := newWorld(t)
	w.join(seeded(10), w.invite(0, 0), w.founder)
	st := w.state()
	if w.State(w.now.Add(time.Hour)) != st {
		t.Error("computed again without a change")
	}
	w.Rename(w.founder, seeded(10).ID(), "x", w.now)
	if w.state() == st {
		t.Error("stale after a change")
	}
}

func TestKeyConflicts(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(2, 0)
	victim, thief := seeded(10), seeded(11)
	w.join(victim, inv, w.founder)
	forged := *w.admitOf(thief, inv)
	forged.Disco = victim.Disco()
	body := raw(&forged)
	w.addAdmit(&Admit{Raw: raw([][]byte{
		body,
		identity.FromSeed(inv.seed).Sign(identity.PurposeAdmitInvite, w.genesis.ID, body),
		thief.Sign(identity.PurposeAdmitNode, w.genesis.ID, body),
	})})
	id := identity.Sum(identity.PurposeAdmitNode, body)
	w.forge(w.founder, Acceptance{Admit: id, Time: millis(w.now) + 1})
	w.wantMembers(victim)
	want := []KeyConflict{{Admit: id, Claimant: thief.ID(), Owner: victim.ID()}}
	if got := w.state().KeyConflicts; !slices.Equal(got, want) {
		t.Errorf("conflicts %v", got)
	}
	if inv, _ := w.state().Invite(inv.id); inv.Used != 1 {
		t.Errorf("a void admission counts as a use: %d", inv.Used)
	}
}

// busy is a world where everything happened that can.
func busy(t testing.TB, rng *rand.Rand) *world {
	w := newWorld(t)
	invites := []invited{w.invite(0, 0), w.invite(3, 0), w.invite(2, time.Hour, "t")}
	in := []*identity.Identity{w.founder}
	for i := range uint32(25) {
		w.tick(time.Duration(rng.IntN(120)) * time.Second)
		node := seeded(100 + i)
		a := w.admitOf(node, invites[rng.IntN(3)])
		w.addAdmit(a)
		for range 1 + rng.IntN(2) {
			by := in[rng.IntN(len(in))]
			x := Acceptance{Admit: a.ID, Time: millis(w.now) - uint64(rng.IntN(200_000)), Heads: w.Heads()}
			if tips := w.chainTips(by.ID()); len(tips) > 0 && rng.IntN(4) > 0 {
				x.Prev = &tips[0].ID
			}
			w.forge(by, x)
		}
		in = append(in, node)
		switch rng.IntN(8) {
		case 0:
			w.RevokeMember(w.founder, in[rng.IntN(len(in))].ID(), rng.IntN(3) == 0, w.now)
		case 1:
			w.Rename(w.founder, node.ID(), "n", w.now)
		case 2:
			w.Keep(w.founder, w.state().Unkept, w.now)
		case 3:
			w.Lease(w.founder, node.ID(), choice4(w.genesis.Prefix4(), in[rng.IntN(len(in))].ID(), 0), w.now)
		case 4:
			w.RevokeInvite(w.founder, invites[rng.IntN(3)].id, rng.IntN(3) == 0, w.now)
			invites[0] = w.invite(0, 0)
		}
	}
	return w
}

func TestOrderOfMergeDoesNotMatter(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := busy(t, rng)
		want := w.state()
		var adds []func(l *Ledger)
		for s := range w.Statements(0) {
			adds = append(adds, func(l *Ledger) { l.AddStatement(s) })
		}
		for r := range w.Records(0) {
			adds = append(adds, func(l *Ledger) { addRecord(t, l, r) })
		}
		for range 3 {
			rng.Shuffle(len(adds), func(i, j int) { adds[i], adds[j] = adds[j], adds[i] })
			l := w.clone()
			for _, add := range adds {
				add(l)
				if rng.IntN(10) == 0 {
					l.State(w.now) // must not leave anything behind
				}
			}
			if got := l.State(w.now); !sameState(got, want) {
				t.Fatalf("seed %d: states differ: %d and %d members", seed, len(got.Members), len(want.Members))
			}
			if l.Admitted().Root() != w.Admitted().Root() || !slices.Equal(l.Heads(), w.Heads()) {
				t.Fatalf("seed %d: digest or heads differ", seed)
			}
		}
	}
}

func TestSplitAndMerge(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := busy(t, rng)
		left, right := w.clone(), w.clone()
		pick := func() []*Ledger { return [][]*Ledger{{left}, {right}, {left, right}}[rng.IntN(3)] }
		for s := range w.Statements(0) {
			for _, l := range pick() {
				l.AddStatement(s)
			}
		}
		for r := range w.Records(0) {
			for _, l := range pick() {
				addRecord(t, l, r)
			}
		}
		for range 2 { // as nodes do: what the other lacks, by heads and ids
			exchange(t, left, right)
			exchange(t, right, left)
		}
		copyInto(t, w.Ledger, left) // what was waiting on one side only when it was offered
		copyInto(t, w.Ledger, right)
		if !sameState(left.State(w.now), right.State(w.now)) || !sameState(left.State(w.now), w.state()) {
			t.Fatalf("seed %d: states differ", seed)
		}
	}
}

func exchange(t *testing.T, from, to *Ledger) {
	lacking, _ := from.Missing(to.Heads())
	for _, s := range lacking {
		if _, err := to.AddStatement(s); err != nil {
			t.Fatal(err)
		}
	}
	for e := range from.Admitted().Of(from.Admitted().Differing(to.Admitted().Sums())) {
		if _, ok := to.Admitted().Version(e.Key); !ok {
			r, _ := from.Record(e.Key)
			addRecord(t, to, r)
		}
	}
}
