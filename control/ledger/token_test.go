package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	"github.com/meshnet/meshnet/identity"
)

func fullToken(w *world) Token {
	t := *w.invite(1, time.Hour, "server").tok
	t.Hints = []Hint{{"192.0.2.1:41820", seeded(1).ID()}, {"https://relay.example:443", seeded(2).ID()}}
	t.RelayPass = []byte("pass")
	return t
}

func TestTokenRoundTrip(t *testing.T) {
	w := newWorld(t)
	tok := fullToken(w)
	if err := tok.Check(); err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken("\n  " + tok.String() + "\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, tok) || got.String() != tok.String() {
		t.Errorf("got %+v", got)
	}
	if terms := got.Terms(); terms == nil || terms.Uses != 1 || got.Author() != w.founder.ID() {
		t.Errorf("terms %+v", got.Terms())
	}
	if got.PSK != InvitePSK(w.k, w.genesis.ID, Short(got.InviteID())) {
		t.Error("psk")
	}
}

func TestTokenCheck(t *testing.T) {
	tok := fullToken(newWorld(t))
	long := tok
	for range MaxHints {
		long.Hints = append(long.Hints, Hint{Addr: "192.0.2.1:1"})
	}
	wide := tok
	wide.Hints = []Hint{{Addr: strings.Repeat("a", 1000)}}
	for _, c := range []Token{long, wide} {
		if err := c.Check(); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v", err)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	tok := fullToken(newWorld(t))
	s := tok.String()
	change := func(f func(*Token)) string {
		c := tok
		f(&c)
		return c.String()
	}
	swapped := []byte(s)
	swapped[50], swapped[51] = 'x', 'y'
	future := raw(struct {
		Version uint64 `cbor:"0,keyasint"`
	}{2})
	for _, c := range []struct {
		name, s string
		want    error
	}{
		{"empty", "", ErrTokenFormat},
		{"text", "hello", ErrTokenFormat},
		{"prefix only", "mesh1", ErrTokenFormat},
		{"next prefix", "mesh2" + s[5:], ErrTokenFormat},
		{"too long", "mesh1" + strings.Repeat("a", MaxToken), ErrTokenFormat},
		{"truncated", s[:len(s)-3], ErrTokenChecksum},
		{"very truncated", s[:7], ErrTokenChecksum},
		{"altered", string(swapped), ErrTokenChecksum},
		{"broken by a space", s[:40] + " " + s[40:], ErrTokenChecksum},
		{"newer", TokenPrefix + base58.Encode(append(future, checksum(future)...)), ErrTokenVersion},
		{"another seed", change(func(t *Token) { t.Seed[0] ^= 1 }), ErrTokenFormat},
		{"another network", change(func(t *Token) { t.Network[0] ^= 1 }), ErrTokenFormat},
		{"no invite", change(func(t *Token) { t.Invite = Signed{} }), ErrTokenFormat},
		{"empty hint", change(func(t *Token) { t.Hints = []Hint{{}} }), ErrTokenFormat},
		{"many hints", change(func(t *Token) { t.Hints = make([]Hint, 5) }), ErrTokenFormat},
	} {
		if _, err := ParseToken(c.s); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestTokenHidesItself(t *testing.T) {
	tok := fullToken(newWorld(t))
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "token", tok, "pointer", &tok)
	fmt.Fprintf(&out, "%v %+v %#v %s %q %v", tok, tok, tok, tok, &tok, &tok)
	for _, secret := range []string{tok.String()[5:40], fmt.Sprintf("%x", tok.Seed[:8]), fmt.Sprint(tok.Seed[:8])} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is in %s", secret, out.String())
		}
	}
}

func TestDerivedKeys(t *testing.T) {
	k, n := identity.Secret{1}, identity.NetworkID{2}
	a, b := identity.WGKey{3}, identity.WGKey{4}
	if FloorPSK(k, n, a, b) != FloorPSK(k, n, b, a) {
		t.Error("floor PSK differs between the two sides")
	}
	all := map[identity.Secret]bool{
		FloorPSK(k, n, a, b): true, FloorPSK(k, n, a, a): true, FloorPSK(k, identity.NetworkID{}, a, b): true,
		InvitePSK(k, n, ShortID{1}): true, InvitePSK(k, n, ShortID{2}): true, Commit(k): true,
	}
	if len(all) != 6 {
		t.Error("two keys are equal")
	}
	if c := Commit(k); KeyID(k) != KID(c[:4]) || KnownID(k, n) == KnownID(k, identity.NetworkID{}) {
		t.Error("names of keys")
	}
}
