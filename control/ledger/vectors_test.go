package ledger

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	"github.com/meshnet/meshnet/identity"
)

var update = flag.Bool("update", false, "write testdata/vectors.txt anew")

// TestVectors compares everything that goes over the wire with testdata/vectors.txt: a format that changes by accident
// splits networks.
func TestVectors(t *testing.T) {
	w := newWorld(t)
	inv := w.invite(2, 24*time.Hour, "server")
	a := w.join(seeded(10), inv, w.founder)
	b := w.join(seeded(11), inv, seeded(10))
	_, first, _ := w.Admission(a.ID)
	_, second, _ := w.Admission(b.ID)
	proof, err := w.Proof(seeded(11).ID())
	if err != nil {
		t.Fatal(err)
	}
	rename, _ := w.Rename(w.founder, seeded(10).ID(), "web", w.now)
	lease, _ := w.Lease(w.founder, seeded(10).ID(), choice4(w.genesis.Prefix4(), seeded(10).ID(), 1), w.now)
	revoked, err := w.RevokeMember(w.founder, seeded(11).ID(), false, w.now)
	if err != nil {
		t.Fatal(err)
	}
	allow, err := w.Allow(w.founder, seeded(10).ID(), OfferRelay, "https://192.0.2.1:9000#sha256=00ff", true, w.now)
	if err != nil {
		t.Fatal(err)
	}
	tok := *inv.tok
	tok.Hints = []Hint{{"192.0.2.1:41820", seeded(1).ID()}}
	psk, floor := InvitePSK(w.k, w.genesis.ID, Short(inv.id)), FloorPSK(w.k, w.genesis.ID, seeded(10).WG(), seeded(11).WG())
	commit, known := Commit(w.k), KnownID(w.k, w.genesis.ID)
	var out strings.Builder
	for _, v := range []struct {
		name string
		data []byte
	}{
		{"network-key", w.k[:]},
		{"genesis", w.genesis.Signed.Marshal()},
		{"network", w.genesis.ID[:]},
		{"invite", tok.Invite.Marshal()},
		{"invite-id", inv.id[:]},
		{"admit", a.Raw},
		{"admit-id", a.ID[:]},
		{"acceptance", first[0].Marshal()},
		{"acceptance-next", second[0].Marshal()},
		{"proof", proof},
		{"rename", rename.Marshal()},
		{"lease", lease.Marshal()},
		{"keep", revoked[0].Marshal()},
		{"revoke", revoked[1].Marshal()},
		{"allow", allow.Marshal()},
		{"commit", commit[:]},
		{"known-id", known[:]},
		{"invite-psk", psk[:]},
		{"floor-psk", floor[:]},
	} {
		fmt.Fprintf(&out, "%s %s\n", v.name, hex.EncodeToString(v.data))
	}
	for _, m := range w.state().History {
		fmt.Fprintf(&out, "ip4 %s %s\n", m.ID, m.IP4)
	}
	fmt.Fprintf(&out, "token %s\n", tok.String())
	const file = "testdata/vectors.txt"
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(out.String(), "\n"), strings.Split(string(want), "\n")
	if len(gotLines) != len(wantLines) {
		t.Fatalf("%d lines, want %d", len(gotLines), len(wantLines))
	}
	for i := range gotLines {
		if gotLines[i] != wantLines[i] {
			t.Errorf("got  %s\nwant %s", gotLines[i], wantLines[i])
		}
	}
}

func tokenPayload(t testing.TB, tok Token) []byte {
	t.Helper()
	data, err := base58.Decode(strings.TrimPrefix(tok.String(), TokenPrefix))
	if err != nil {
		t.Fatal(err)
	}
	return data[:len(data)-checksumLen]
}

// big is a ledger of n members, each let in by one of those before it, without the cost of n checks.
func big(b *testing.B, n int) *world {
	w := newWorld(b)
	inv := w.invite(0, 0)
	heads := w.Heads()
	last := map[identity.PeerID]*identity.Hash{}
	for i := range uint32(n) {
		node, by := seeded(100+i), w.founder
		if i > 0 {
			by = seeded(100 + i/16)
		}
		w.tick(time.Second)
		a := w.admitOf(node, inv)
		w.addAdmit(a)
		s := w.forge(by, Acceptance{Admit: a.ID, Time: millis(w.now), Heads: heads, Prev: last[by.ID()]})
		id := identity.Sum(identity.PurposeAcceptance, s.Body)
		last[by.ID()] = &id
	}
	return w
}

func BenchmarkState(b *testing.B) {
	for _, kept := range []bool{false, true} {
		b.Run(fmt.Sprintf("members=10000/kept=%v", kept), func(b *testing.B) {
			w := big(b, 10_000)
			if kept {
				if _, err := w.Keep(w.founder, w.state().Unkept, w.now); err != nil {
					b.Fatal(err)
				}
				for i := range uint32(500) {
					w.publish(w.founder, TypeRevoke,
						&revocation{Kind: subjectMember, Subject: identity.Hash(seeded(100 + i).ID())}, w.now)
				}
			}
			if n := len(w.state().History); n != 10_001 {
				b.Fatalf("%d members", n)
			}
			b.ReportAllocs()
			for b.Loop() {
				w.cache.drop()
				w.state()
			}
		})
	}
}
