package noise

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 7748 §5.2: two products, and what comes of a thousand in a row.
func TestX25519(t *testing.T) {
	for _, tt := range []struct{ k, u, want string }{
		{
			"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
			"e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
			"c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
		},
		{
			"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
			"e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
			"95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
		},
	} {
		k, u := clamped(unhex(t, tt.k)), [32]byte(unhex(t, tt.u))
		var out [32]byte
		if !k.shared(&out, &u) {
			t.Error("refused")
		}
		same(t, "product", out[:], unhex(t, tt.want))
	}

	var k, u, out [32]byte
	k[0], u[0] = 9, 9
	for n := range 1000 {
		c := clamped(k[:])
		c.shared(&out, &u)
		u, k = k, out
		if n == 0 {
			same(t, "after one", k[:], unhex(t, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"))
		}
	}
	same(t, "after a thousand", k[:], unhex(t, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"))
}

// checkCurve compares with crypto/ecdh.
func checkCurve(t *testing.T, raw, point []byte) {
	t.Helper()
	k, u := clamped(raw), [32]byte(point)
	key := private(t, raw)
	var public, shared [32]byte
	k.public(&public)
	same(t, "public key", public[:], key.PublicKey().Bytes())

	other, err := ecdh.X25519().NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	want, err := key.ECDH(other)
	if ok := k.shared(&shared, &u); ok != (err == nil) {
		t.Fatalf("%x · %x: %v, crypto/ecdh: %v", raw, point, ok, err)
	}
	if err == nil {
		same(t, "shared secret", shared[:], want)
	} else {
		same(t, "shared secret", shared[:], make([]byte, 32))
	}
}

func TestCurveLikeECDH(t *testing.T) {
	raw, point := make([]byte, 32), make([]byte, 32)
	for range 300 {
		rand.Read(raw)
		rand.Read(point)
		checkCurve(t, raw, point)
	}
	edges := [][]byte{make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)}
	for n := range 256 {
		edge := make([]byte, 32)
		edge[n/8] = 1 << (n % 8)
		edges = append(edges, edge)
	}
	for n := range 20 { // around the prime, and once more with the bit that is not looked at
		for _, top := range []byte{0x7f, 0xff} {
			edge := bytes.Repeat([]byte{0xff}, 32)
			edge[0], edge[31] = 0xec+byte(n), top
			edges = append(edges, edge)
		}
	}
	rand.Read(raw)
	for _, edge := range edges {
		checkCurve(t, edge, point)
		checkCurve(t, raw, edge)
	}
}

// smallOrder are all encodings of the points whose order divides 8 (https://cr.yp.to/ecdh.html).
func smallOrder(t testing.TB) (points [][32]byte) {
	for _, s := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		point := [32]byte(unhex(t, s))
		points = append(points, point)
		point[31] |= 0x80
		points = append(points, point)
	}
	return points
}

func TestSharedSmallOrder(t *testing.T) {
	k := newScalar()
	for _, point := range smallOrder(t) {
		var out [32]byte
		if k.shared(&out, &point) {
			t.Errorf("%x has a shared secret", point)
		}
	}
}

// A wiped key has nothing in common with anybody.
func TestSharedWiped(t *testing.T) {
	k, other := newScalar(), newScalar()
	k.wipe()
	var public, out [32]byte
	other.public(&public)
	if k.shared(&out, &public) || out != [32]byte{} {
		t.Errorf("got %x", out)
	}
}

func TestNewScalar(t *testing.T) {
	var a, b [32]byte
	newScalar().public(&a)
	newScalar().public(&b)
	if a == b || a == [32]byte{} {
		t.Errorf("%x, %x", a, b)
	}
}

func FuzzCurve(f *testing.F) {
	for _, point := range smallOrder(f) {
		f.Add(point[:], point[:])
	}
	f.Fuzz(func(t *testing.T, raw, point []byte) {
		if len(raw) == 32 && len(point) == 32 {
			checkCurve(t, raw, point)
		}
	})
}
