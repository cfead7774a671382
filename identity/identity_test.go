package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"

	"filippo.io/edwards25519"
	"github.com/mr-tron/base58"

	"github.com/meshnet/meshnet/internal/safefile"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rfc8032 is the first key of RFC 8032 §7.1.
const (
	rfc8032Seed   = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
	rfc8032Public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
)

func TestSeedIsEd25519Key(t *testing.T) {
	id := FromSeed(Secret(unhex(t, rfc8032Seed)))
	public := id.ID()
	if !bytes.Equal(public[:], unhex(t, rfc8032Public)) {
		t.Errorf("public key %x", public)
	}
	if got, want := public.String(), base58.Encode(unhex(t, rfc8032Public)); got != want {
		t.Errorf("id %s, want %s", got, want)
	}
	if id.Seed() != Secret(unhex(t, rfc8032Seed)) || !bytes.Equal(id.MarshalRaw(), unhex(t, rfc8032Seed)) {
		t.Error("the seed came back as another")
	}
}

// TestDerivedKeys pins the keys that are made from a seed: a node would be another to its peers if they changed.
func TestDerivedKeys(t *testing.T) {
	seed := Secret(unhex(t, rfc8032Seed))
	first := FromSeed(seed)
	keys := map[string]bool{}
	for generation := range uint32(3) {
		id := FromSeedGeneration(seed, generation)
		if id.ID() != first.ID() || id.Generation() != generation {
			t.Errorf("generation %d is another node", generation)
		}
		private := id.WGPrivate()
		if private[0]&7 != 0 || private[31]&0x80 != 0 || private[31]&0x40 == 0 {
			t.Errorf("generation %d: the WireGuard key is not clamped", generation)
		}
		wg, disco := id.WG(), id.Disco()
		keys[wg.Hex()], keys[hex.EncodeToString(disco[:])] = true, true
	}
	if len(keys) != 6 {
		t.Errorf("%d different keys, want 6", len(keys))
	}
	again := FromSeedGeneration(seed, 2)
	if wg := again.WG(); !keys[wg.Hex()] {
		t.Error("the same seed gave another key")
	}
	a, b := FromSeed(Secret{1}), FromSeed(Secret{2})
	ab, errA := a.DiscoShared(b.Disco())
	ba, errB := b.DiscoShared(a.Disco())
	if ab != ba || ab.IsZero() || errA != nil || errB != nil {
		t.Errorf("shared keys differ: %v, %v", errA, errB)
	}
}

func TestPeerIDText(t *testing.T) {
	for _, id := range []PeerID{FromSeed(Secret{}).ID(), FromSeed(Secret{1}).ID(), PeerID(unhex(t, rfc8032Public))} {
		text := id.String()
		got, err := ParsePeerID(text)
		if err != nil || got != id {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		var back PeerID
		if data, err := json.Marshal(id); err != nil || json.Unmarshal(data, &back) != nil || back != id {
			t.Errorf("%s through JSON: %s, %v", text, data, err)
		}
		for _, bad := range []string{
			"", text[:20], text + text, "1" + text, " " + text, text + "\n",
			strings.Repeat("1", 32), strings.Repeat("z", 44), strings.Repeat("1", 44),
		} {
			if got, err := ParsePeerID(bad); !errors.Is(err, ErrBadPeerID) {
				t.Errorf("%q is the id %v", bad, got)
			}
		}
		for _, c := range "0OIl-+/ü" { // outside of the alphabet
			bad := text[:10] + string(c) + text[11:]
			if _, err := ParsePeerID(bad); !errors.Is(err, ErrBadPeerID) {
				t.Errorf("%q is an id", bad)
			}
		}
	}
}

// TestLeadingZeroBytes: each is a 1 in base58, and none may be dropped or added.
func TestLeadingZeroBytes(t *testing.T) {
	found := 0
	for x := range byte(250) { // points whose encoding begins with one zero or two
		for _, zeros := range []int{1, 2} {
			raw := make([]byte, 32)
			raw[zeros], raw[20] = x|1, 7
			id, err := PeerIDFromBytes(raw)
			if err != nil {
				continue
			}
			found++
			text := id.String()
			if !strings.HasPrefix(text, strings.Repeat("1", zeros)) || text[zeros] == '1' {
				t.Errorf("%x is %s", raw, text)
			}
			if got, err := ParsePeerID(text); err != nil || got != id {
				t.Errorf("%s: %v, %v", text, got, err)
			}
			for _, bad := range []string{text[1:], "1" + text} {
				if _, err := ParsePeerID(bad); err == nil {
					t.Errorf("%s is an id, as %s is", bad, text)
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d points were tried", found)
	}
}

// badKeys are encodings that are no node's.
func badKeys(t testing.TB) map[string][]byte {
	t.Helper()
	bad := map[string][]byte{
		"zero":                  make([]byte, 32), // order 4
		"identity":              append([]byte{1}, make([]byte, 31)...),
		"identity, sign set":    append(append([]byte{1}, make([]byte, 30)...), 0x80),
		"order 2":               unhex(t, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
		"order 4, sign set":     append(make([]byte, 31), 0x80),
		"order 8, one":          unhex(t, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
		"order 8, two":          unhex(t, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
		"order 8, three":        unhex(t, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
		"order 8, four":         unhex(t, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
		"p, which is 0":         unhex(t, "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
		"p+1, which is 1":       unhex(t, "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
		"p+1, sign set":         unhex(t, "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
		"largest, not reduced":  bytes.Repeat([]byte{0xff}, 32),
		"31 bytes":              make([]byte, 31),
		"33 bytes":              make([]byte, 33),
		"nothing":               nil,
		"a number on no point":  append([]byte{2}, make([]byte, 31)...),
		"p+3, reduced elsewise": unhex(t, "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	}
	return bad
}

func TestBadKeysAreNoPeers(t *testing.T) {
	small := 0
	for name, raw := range badKeys(t) {
		if id, err := PeerIDFromBytes(raw); !errors.Is(err, ErrBadPeerID) {
			t.Errorf("%s is the id %v", name, id)
		}
		if len(raw) != 32 {
			continue
		}
		if p, err := new(edwards25519.Point).SetBytes(raw); err == nil &&
			new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
			small++
		}
		// Signatures under such a key could be made for anything by anybody: R = identity, S = 0.
		forged := append(append([]byte{1}, make([]byte, 31)...), make([]byte, 32)...)
		if err := Verify(PeerID(raw), PurposeCard, NetworkID{}, nil, forged); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s signs: %v", name, err)
		}
	}
	if small < 8 {
		t.Errorf("%d encodings of points of small order, want all 8 at least", small)
	}
}

func TestSharedRefusesSmallOrder(t *testing.T) {
	id, e := FromSeed(Secret{1}), NewEphemeral()
	for name, raw := range map[string][]byte{
		"zero":    make([]byte, 32),
		"one":     append([]byte{1}, make([]byte, 31)...),
		"order 8": unhex(t, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
		"p-1":     unhex(t, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	} {
		if _, err := id.DiscoShared(DiscoKey(raw)); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: disco: %v", name, err)
		}
		if _, err := e.Shared([32]byte(raw)); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: ephemeral: %v", name, err)
		}
	}
	if _, err := e.Shared(NewEphemeral().Public()); err != nil {
		t.Errorf("a good key: %v", err)
	}
}

var purposes = []Purpose{
	PurposeGenesis, PurposeStatement, PurposeAdmitInvite, PurposeAdmitNode, PurposeAcceptance, PurposeLeave, PurposeCard,
	PurposeReach, PurposeRing, PurposeIntro, PurposeRefusal, PurposeRelayTLS, PurposeRelayNonce, PurposeRelayPass,
}

func TestSignaturesAreBound(t *testing.T) {
	id, other := FromSeed(Secret{1}), FromSeed(Secret{2})
	network, body := NetworkID{3}, []byte("body")
	for _, made := range purposes {
		sig := id.Sign(made, network, body)
		for _, asked := range purposes {
			if err := Verify(id.ID(), asked, network, body, sig); (err == nil) != (asked == made) {
				t.Errorf("made for %s, asked for %s: %v", made, asked, err)
			}
		}
		for name, err := range map[string]error{
			"another network": Verify(id.ID(), made, NetworkID{4}, body, sig),
			"another body":    Verify(id.ID(), made, network, []byte("bodY"), sig),
			"no body":         Verify(id.ID(), made, network, nil, sig),
			"another signer":  Verify(other.ID(), made, network, body, sig),
			"no signer":       Verify(PeerID{}, made, network, body, sig),
			"cut":             Verify(id.ID(), made, network, body, sig[:63]),
			"longer":          Verify(id.ID(), made, network, body, append(bytes.Clone(sig), 0)),
			"none":            Verify(id.ID(), made, network, body, nil),
		} {
			if !errors.Is(err, ErrBadSignature) {
				t.Errorf("%s: %s verifies: %v", made, name, err)
			}
		}
		for bit := 0; bit < 8*len(sig); bit += 13 {
			flipped := bytes.Clone(sig)
			flipped[bit/8] ^= 1 << (bit % 8)
			if Verify(id.ID(), made, network, body, flipped) == nil {
				t.Errorf("%s: a signature with bit %d flipped verifies", made, bit)
			}
		}
	}
	// A plain signature of the body is none of ours.
	if err := Verify(id.ID(), PurposeCard, network, body, ed25519.Sign(id.node, body)); err == nil {
		t.Error("a signature without a purpose verifies")
	}
	if Sum(PurposeCard, body) == Sum(PurposeReach, body) {
		t.Error("ids of two purposes are the same")
	}
}

// A key that OpenSSL made (openssl genpkey -algorithm ed25519), and what it prints as its public half.
const (
	opensslPEM = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIM6TcCrdZMyUFYnbTTEnchz500Tpno0wi1ISUrMScxuy
-----END PRIVATE KEY-----
`
	opensslPublicPEM = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAn9Q04P3p9oH2+AsDiS2/M+pRaQ+bpNZ9kb6Pvdqg9sI=
-----END PUBLIC KEY-----
`
	opensslPublic = "9fd434e0fde9f681f6f80b03892dbf33ea51690f9ba4d67d91be8fbddaa0f6c2"
	x25519PEM     = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIJhGEDwG9fwGewFO3bjuTkYsbclKzNbHNBCtIRwa1uFk
-----END PRIVATE KEY-----
`
	ecPEM = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg1FFx0hjJOMCY5v2q
Z5th93LtN62c7VfnACaIhJbVgMqhRANCAARdEPfkt+N4zc2MWPH/ZAp2m4d0hOdF
HHZoj3qFk7IiTQG4y7AtnsKMhovC+cv9xGYpFOyo8O2XocjdMM/Ht4Qz
-----END PRIVATE KEY-----
`
)

func TestOpenSSLKey(t *testing.T) {
	id, err := ParseKey([]byte(opensslPEM))
	if err != nil {
		t.Fatal(err)
	}
	if public := id.ID(); !bytes.Equal(public[:], unhex(t, opensslPublic)) {
		t.Errorf("public key %x, want %s", public, opensslPublic)
	}
	private, err := id.MarshalPEM()
	if err != nil || string(private) != opensslPEM {
		t.Errorf("written as\n%s%v", private, err)
	}
	public, err := id.MarshalPublicPEM()
	if err != nil || string(public) != opensslPublicPEM {
		t.Errorf("public key written as\n%s%v", public, err)
	}
}

func TestParseKey(t *testing.T) {
	seed := unhex(t, rfc8032Seed)
	body := strings.Split(opensslPEM, "\n")[1]
	for _, c := range []struct {
		name string
		data string
		err  error
	}{
		{"raw", string(seed), nil},
		{"PEM", opensslPEM, nil},
		{"PEM with text before it", "key of alice\n" + opensslPEM, nil},
		{"PEM with CRLF", strings.ReplaceAll(opensslPEM, "\n", "\r\n"), nil},
		{"nothing", "", ErrKeyFormat},
		{"31 bytes", string(seed[:31]), ErrKeyFormat},
		{"33 bytes", string(seed) + "\n", ErrKeyFormat},
		{"hexadecimal", rfc8032Seed, ErrKeyFormat},
		{"PEM without its end", strings.SplitAfter(opensslPEM, "=")[0][:100], ErrKeyFormat},
		{"PEM of a cut key", strings.Replace(opensslPEM, body, body[:len(body)-8], 1), ErrKeyFormat},
		{"PEM of nothing", strings.Replace(opensslPEM, body, "", 1), ErrKeyFormat},
		{"public PEM", opensslPublicPEM, ErrKeyFormat},
		{"PEM of another type", strings.ReplaceAll(opensslPEM, "PRIVATE KEY", "OPENSSH PRIVATE KEY"), ErrKeyFormat},
		{"encrypted PEM", strings.ReplaceAll(opensslPEM, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), ErrKeyFormat},
		{"two keys", opensslPEM + opensslPEM, ErrKeyFormat},
		{"X25519 key", x25519PEM, ErrKeyKind},
		{"P-256 key", ecPEM, ErrKeyKind},
	} {
		if _, err := ParseKey([]byte(c.data)); !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	dir, err := safefile.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	id := New()
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir.Path(KeyFile)); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := Load(dir)
	if err != nil || got.ID() != id.ID() || got.Seed() != id.Seed() {
		t.Errorf("another came back: %v", err)
	}
	if err := os.WriteFile(dir.Path(KeyFile), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrKeyFormat) || !strings.Contains(err.Error(), dir.Path(KeyFile)) {
		t.Errorf("junk: %v, want the file's name", err)
	}
}

// TestSecretsStayHidden prints a node in every way that a log may.
func TestSecretsStayHidden(t *testing.T) {
	seed := Secret(bytes.Repeat([]byte{0xA7}, 32)) // 167, a7, "§"
	id := FromSeed(seed)
	values := map[string]any{
		"secret": seed, "pointer to a secret": &seed, "secret in a struct": struct{ S Secret }{seed},
		"secrets": []Secret{seed}, "hidden field": struct{ s Secret }{seed}.s,
		"identity": id, "identity by value": *id, "identity in a struct": struct{ ID *Identity }{id},
		"identities": []*Identity{id},
	}
	private := id.WGPrivate()
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x"} {
			text := strings.ToLower(fmt.Sprintf(verb, v))
			for _, secret := range []Secret{seed, private} {
				for _, form := range []string{
					hex.EncodeToString(secret[:4]), fmt.Sprintf("%d %d %d", secret[0], secret[1], secret[2]),
					strings.ToLower(fmt.Sprintf("%#x, %#x", secret[0], secret[1])), fmt.Sprintf("% x", secret[:4]), string(secret[:4]),
				} {
					if strings.Contains(text, form) {
						t.Errorf("%s with %s shows itself: %.80s", name, verb, text)
					}
				}
			}
		}
		var out bytes.Buffer
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		for _, form := range []string{"a7a7a7", "167 167", "167,167"} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%s shows itself in a log: %.200s", name, out.String())
			}
		}
	}
}

func TestDerive(t *testing.T) {
	base := Derive([]byte("secret"), NetworkID{1}, "purpose", []byte("ab"), []byte("c"))
	for name, other := range map[string]Secret{
		"secret":  Derive([]byte("secreT"), NetworkID{1}, "purpose", []byte("ab"), []byte("c")),
		"network": Derive([]byte("secret"), NetworkID{2}, "purpose", []byte("ab"), []byte("c")),
		"purpose": Derive([]byte("secret"), NetworkID{1}, "purposE", []byte("ab"), []byte("c")),
		"field":   Derive([]byte("secret"), NetworkID{1}, "purpose", []byte("ab"), []byte("d")),
	} {
		if other == base {
			t.Errorf("another %s derives the same", name)
		}
	}
	if Derive([]byte("secret"), NetworkID{1}, "purpose", []byte("ab"), []byte("c")) != base {
		t.Error("the same derives something else")
	}
}

func FuzzParsePeerID(f *testing.F) {
	f.Add(FromSeed(Secret{1}).ID().String())
	f.Add(strings.Repeat("1", 32))
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParsePeerID(s); err == nil && id.String() != s {
			t.Errorf("%q is printed as %s", s, id)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{opensslPEM, x25519PEM, ecPEM, opensslPublicPEM, strings.Repeat("x", 32)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := ParseKey(data)
		if err != nil {
			return
		}
		text, err := id.MarshalPEM()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseKey(text); err != nil || again.Seed() != id.Seed() {
			t.Errorf("read back: %v", err)
		}
	})
}
