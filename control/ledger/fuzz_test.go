package ledger

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// reencodes tells whether v encodes to body but for keys below 0 behind it, which a struct does not hold. They begin with 0x20 to
// 0x37 and stand last, so that what was re-encoded is what stands before them.
func reencodes(body []byte, v any) bool {
	enc := raw(v)
	rest, ok := bytes.CutPrefix(body[1:], enc[1:])
	return ok && (len(rest) == 0 && enc[0] == body[0] || len(rest) > 0 && rest[0]>>5 == 1)
}

// fuzzWorld has one of everything.
func fuzzWorld(f *testing.F) (*world, *Admit, Signed) {
	w := newWorld(f)
	a := w.join(seeded(10), w.invite(1, time.Hour, "tag"), w.founder)
	w.Rename(w.founder, seeded(10).ID(), "x", w.now)
	w.Allow(w.founder, seeded(10).ID(), OfferRelay, "https://relay.example:9000", true, w.now)
	w.Keep(w.founder, w.state().Unkept, w.now)
	w.RevokeMember(w.founder, seeded(10).ID(), false, w.now)
	_, xs, _ := w.Admission(a.ID)
	return w, a, xs[0]
}

func FuzzParseSigned(f *testing.F) {
	w, _, x := fuzzWorld(f)
	f.Add(w.genesis.Signed.Marshal())
	f.Add(x.Marshal())
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := ParseSigned(data); err == nil && !bytes.Equal(s.Marshal(), data) {
			t.Error("re-encodes differently")
		}
	})
}

func FuzzParseGenesis(f *testing.F) {
	w, _, _ := fuzzWorld(f)
	f.Add(w.genesis.Signed.Body, w.genesis.Signed.Sig)
	f.Fuzz(func(t *testing.T, body, sig []byte) {
		g := new(Genesis)
		if err := decode(body, g, 11); err == nil && !reencodes(body, g) {
			t.Error("re-encodes differently")
		}
		if g, err := ParseGenesis(Signed{body, sig}); err == nil && !g.Network().Prefix4.IsValid() {
			t.Error("no prefix")
		}
	})
}

func FuzzParseStatement(f *testing.F) {
	w, _, _ := fuzzWorld(f)
	for s := range w.Statements(0) {
		f.Add(s.Body, s.Sig)
	}
	f.Fuzz(func(t *testing.T, body, sig []byte) {
		st := new(Statement)
		if err := decode(body, st, 6); err == nil {
			if !reencodes(body, st) {
				t.Error("re-encodes differently")
			}
			if c := parseContent(st.Type, st.Body); c != nil && !reencodes(st.Body, c) {
				t.Error("its body re-encodes differently")
			}
		}
		ParseStatement(Signed{body, sig}, w.genesis.ID)
	})
}

func FuzzParseContent(f *testing.F) {
	w, _, _ := fuzzWorld(f)
	types := []Type{TypeInvite, TypeRevoke, TypeKeep, TypeRename, TypeLease, TypeAllow}
	for _, st := range w.log {
		for i := range types {
			f.Add(uint8(i), st.Body)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		if c := parseContent(types[int(kind)%len(types)], body); c != nil && !reencodes(body, c) {
			t.Error("re-encodes differently")
		}
	})
}

func FuzzParseAdmit(f *testing.F) {
	w, a, _ := fuzzWorld(f)
	f.Add(a.Raw)
	parts, err := parseParts(a.Raw, 3)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(parts[0])
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := ParseAdmit(data, w.genesis.ID); err == nil && !bytes.Equal(got.Raw, data) {
			t.Error("kept differently")
		}
		got := new(Admit)
		if err := decode(data, got, 5); err == nil && !reencodes(data, got) {
			t.Error("body re-encodes differently")
		}
	})
}

func FuzzParseAcceptance(f *testing.F) {
	w, _, x := fuzzWorld(f)
	f.Add(x.Body, x.Sig)
	f.Fuzz(func(t *testing.T, body, sig []byte) {
		got := new(Acceptance)
		if err := decode(body, got, 4); err == nil && !reencodes(body, got) {
			t.Error("re-encodes differently")
		}
		ParseAcceptance(Signed{body, sig}, w.genesis.ID)
	})
}

func FuzzParseProof(f *testing.F) {
	w, a, _ := fuzzWorld(f)
	p, err := w.Proof(a.Node)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(p))
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		if links, err := parseProof(data); err == nil && !bytes.Equal(raw(links), data) {
			t.Error("re-encodes differently")
		}
		for _, id := range []identity.PeerID{a.Node, w.founder.ID()} {
			if m, err := VerifyProof(w.genesis, data, id); err == nil && m.ID != id {
				t.Error("proves another")
			}
		}
	})
}

func FuzzParseToken(f *testing.F) {
	w, _, _ := fuzzWorld(f)
	tok := fullToken(w)
	f.Add(tok.String())
	f.Add("mesh1")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(got.String())
		if err != nil || again.String() != got.String() {
			t.Error("re-encodes differently")
		}
	})
}

func FuzzParseTokenPayload(f *testing.F) {
	w, _, _ := fuzzWorld(f)
	f.Add(tokenPayload(f, fullToken(w)))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var wire tokenWire
		err := decode(payload, &wire, 7)
		if err == nil && !reencodes(payload, &wire) {
			t.Error("re-encodes differently")
		}
		if _, got := parseTokenPayload(payload); got == nil && err != nil {
			t.Error("taken though not decoded")
		}
	})
}

func TestDecodeIsStrict(t *testing.T) {
	type pair struct {
		A identity.Hash `cbor:"0,keyasint"`
		B []byte        `cbor:"1,keyasint,omitempty"`
	}
	hash := append([]byte{0x58, 32}, make([]byte, 32)...)
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"good", append([]byte{0xa1, 0}, hash...), nil},
		{"ignorable", append(append([]byte{0xa2, 0}, hash...), 0x20, 1), nil},
		{"critical", append(append([]byte{0xa2, 0}, hash...), 2, 1), ErrNewer},
		{"short hash", []byte{0xa1, 0, 0x41, 1}, ErrMalformed},
		{"null hash", []byte{0xa1, 0, 0xf6}, ErrMalformed},
		{"missing", []byte{0xa0}, ErrMalformed},
		{"empty value written out", append(append([]byte{0xa2, 0}, hash...), 1, 0x40), ErrMalformed},
		{"null value", append(append([]byte{0xa2, 0}, hash...), 1, 0xf6), ErrMalformed},
		{"array", []byte{0x80}, ErrMalformed},
		{"nothing", nil, ErrMalformed},
	} {
		if err := decode(c.data, new(pair), 1); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}
