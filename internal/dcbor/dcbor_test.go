package dcbor

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nested is an array in an array … around a value, depth arrays in all.
func nested(depth int) string { return strings.Repeat("81", depth) + "00" }

func TestCheck(t *testing.T) {
	for _, good := range []string{
		"00", "17", "18 18", "18 ff", "19 0100", "19 ffff", "1a 00010000", "1b 0000000100000000", "1b ffffffffffffffff",
		"20", "37", "38 18", "3b ffffffffffffffff",
		"40", "43 010203", "60", "61 61", "62 c3bc", "63 e282ac", "64 f0908480",
		"80", "82 00 01", "a0", "a1 00 00", "a2 00 00 01 00", "a2 17 00 18 18 00", "a2 00 00 20 00", "a3 00 f6 20 f5 21 f4",
		"f4", "f5", "f6", nested(MaxDepth), "58 18" + strings.Repeat("00", 24),
	} {
		if err := Check(unhex(t, good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []struct{ name, data string }{
		{"nothing", ""},
		{"something behind", "00 00"},
		{"23 in two bytes", "18 17"},
		{"255 in three bytes", "19 00ff"},
		{"65535 in five bytes", "1a 0000ffff"},
		{"2³²-1 in nine bytes", "1b 00000000ffffffff"},
		{"-24 in two bytes", "38 17"},
		{"length in two bytes", "58 01 00"},
		{"array length in two bytes", "98 01 00"},
		{"map length in two bytes", "b8 01 00 00"},
		{"cut argument", "19 01"},
		{"reserved argument 28", "1c"},
		{"reserved argument 30", "1e"},
		{"cut bytes", "43 0102"},
		{"cut text", "61"},
		{"length beyond everything", "5b ffffffffffffffff"},
		{"array beyond everything", "9b ffffffffffffffff"},
		{"map beyond everything", "bb ffffffffffffffff"},
		{"cut array", "82 00"},
		{"cut map", "a1 00"},
		{"indefinite bytes", "5f 41 00 ff"},
		{"indefinite text", "7f 61 61 ff"},
		{"indefinite array", "9f ff"},
		{"indefinite map", "bf ff"},
		{"break", "ff"},
		{"text that is no UTF-8", "61 ff"},
		{"surrogate in UTF-8", "63 eda080"},
		{"overlong UTF-8", "62 c080"},
		{"keys out of order", "a2 01 00 00 00"},
		{"negative key before a positive one", "a2 20 00 00 00"},
		{"longer key before a shorter one", "a2 18 18 00 17 00"},
		{"key twice", "a2 00 00 00 01"},
		{"text key", "a1 61 61 00"},
		{"bytes key", "a1 41 00 00"},
		{"null key", "a1 f6 00"},
		{"array key", "a1 80 00"},
		{"key beyond 63 bits", "a1 1b 8000000000000000 00"},
		{"negative key beyond 63 bits", "a1 3b 8000000000000000 00"},
		{"tag", "c0 00"},
		{"bignum", "c2 41 01"},
		{"half float", "f9 3c00"},
		{"float", "fa 3f800000"},
		{"double", "fb 3ff0000000000000"},
		{"undefined", "f7"},
		{"simple 19", "f3"},
		{"simple 255", "f8 ff"},
		{"false in two bytes", "f8 14"},
		{"too deep", nested(MaxDepth + 1)},
		{"too deep within a map", "a1 00" + nested(MaxDepth)},
	} {
		if err := Check(unhex(t, bad.data)); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %v", bad.name, err)
		}
	}
}

type inner struct {
	Key [4]byte `cbor:"0,keyasint"`
}

type outer struct {
	Number uint8    `cbor:"0,keyasint"`
	Key    [4]byte  `cbor:"1,keyasint,omitempty"`
	Keys   []inner  `cbor:"2,keyasint,omitempty"`
	One    *inner   `cbor:"3,keyasint,omitempty"`
	Bytes  []byte   `cbor:"4,keyasint,omitempty"`
	Text   string   `cbor:"5,keyasint,omitempty"`
	Many   [][]byte `cbor:"6,keyasint,omitempty"`
}

func TestRoundTrip(t *testing.T) {
	for _, v := range []outer{
		{},
		{Number: 255, Key: [4]byte{1}, Text: "ü"},
		{Keys: []inner{{}, {[4]byte{1, 2, 3, 4}}}, One: &inner{}, Bytes: []byte{0}, Many: [][]byte{{}, {1}}},
	} {
		data := Marshal(&v)
		if err := Check(data); err != nil {
			t.Fatalf("%+v encodes as %x: %v", v, data, err)
		}
		var got outer
		if err := Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("got %+v, %v; want %+v", got, err, v)
		}
	}
}

func TestUnmarshal(t *testing.T) {
	for _, c := range []struct {
		name, data string
		err        error
	}{
		{"known", "a2 00 07 01 44 01020304", nil},
		{"unknown and not critical", "a2 00 07 20 00", nil},
		{"unknown within and not critical", "a2 00 07 03 a2 00 44 01020304 20 00", nil},
		{"unknown and critical", "a2 00 07 07 00", ErrUnknownCritical},
		{"largest key", "a2 00 07 1b 7fffffffffffffff 00", ErrUnknownCritical},
		{"smallest key", "a2 00 07 3b 7fffffffffffffff 00", nil},
		{"no map", "80", ErrNotCanonical},
		{"a number", "00", ErrNotCanonical},
		{"null", "f6", ErrNotCanonical},
		{"not canonical", "a1 18 00 07", ErrNotCanonical},
		{"number too large", "a1 00 19 0100", ErrNotCanonical},
		{"negative number", "a1 00 20", ErrNotCanonical},
		{"number of another kind", "a1 00 61 61", ErrNotCanonical},
		{"null for a number", "a1 00 f6", ErrNotCanonical},
		{"array too short", "a2 00 07 01 43 010203", ErrNotCanonical},
		{"array too long", "a2 00 07 01 45 0102030405", ErrNotCanonical},
		{"array empty", "a2 00 07 01 40", ErrNotCanonical},
		{"array of numbers", "a2 00 07 01 84 01 02 03 04", ErrNotCanonical},
		{"null for an array", "a2 00 07 01 f6", ErrNotCanonical},
		{"array within too short", "a2 00 07 02 81 a1 00 43 010203", ErrNotCanonical},
		{"array behind a pointer too long", "a2 00 07 03 a1 00 45 0102030405", ErrNotCanonical},
		{"bytes as numbers", "a2 00 07 04 81 01", ErrNotCanonical},
		{"text as bytes", "a2 00 07 05 41 61", ErrNotCanonical},
		{"bytes as text", "a2 00 07 04 61 61", ErrNotCanonical},
		{"null for text", "a2 00 07 05 f6", ErrNotCanonical},
	} {
		var v outer
		if err := Unmarshal(unhex(t, c.data), &v); !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		} else if c.err != ErrNotCanonical && v.Number != 7 {
			t.Errorf("%s: the number is %d: what is known has to be filled in", c.name, v.Number)
		}
	}
}

func TestMarshalPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a channel was encoded")
		}
	}()
	Marshal(make(chan int))
}

// generic decodes and encodes any accepted value, by the library alone and without bounds.
var (
	genericDec = must(cbor.DecOptions{MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32}.DecMode())
	genericEnc = must(cbor.EncOptions{Sort: cbor.SortCoreDeterministic}.EncMode())
)

func FuzzCheck(f *testing.F) {
	for _, s := range []string{"a2 00 07 20 00", "3b ffffffffffffffff", "83 f4 f5 f6", "62 c3bc", nested(8), "a1 3b8000000000000000 40", "9f ff", "c2 41 01"} {
		f.Add(unhex(f, s))
	}
	f.Add(Marshal(&outer{Keys: []inner{{}}, One: &inner{}, Bytes: []byte{1}, Text: "x"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if Check(data) != nil {
			return
		}
		var v any
		if err := genericDec.Unmarshal(data, &v); err != nil {
			t.Fatalf("%x passes and cannot be decoded: %v", data, err)
		}
		again, err := genericEnc.Marshal(v)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x re-encodes as %x, %v", data, again, err)
		}
	})
}

// FuzzUnmarshal: what a struct takes without an error it gives back, but for keys that it does not know.
func FuzzUnmarshal(f *testing.F) {
	f.Add(Marshal(&outer{Keys: []inner{{}}, One: &inner{}, Bytes: []byte{1}, Text: "x"}))
	f.Add(unhex(f, "a2 00 07 01 44 01020304"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v, again outer
		if Unmarshal(data, &v) != nil {
			return
		}
		if err := Unmarshal(Marshal(&v), &again); err != nil || !bytes.Equal(Marshal(&v), Marshal(&again)) {
			t.Fatalf("%+v became %+v, %v", v, again, err)
		}
	})
}
