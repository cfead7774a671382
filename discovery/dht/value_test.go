package dht

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/meshnet/meshnet/identity"
)

var testTime = time.Unix(1_800_000_000, 0)

func secretOf(b byte) identity.Secret { return identity.Secret{b} }

func idOf(b byte) identity.PeerID { return identity.PeerID{b} }

func recordOf(b byte, at time.Time, size int) Record {
	return Record{Key: KeyOf(idOf(b)), At: at, Data: bytes.Repeat([]byte{b}, size)}
}

// sealed is the bencoded value of records.
func (l *location) sealed(t testing.TB, records []Record) []byte {
	t.Helper()
	v, err := bencode.Marshal(l.sealValue(records))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLocationsAreTheSameForEver(t *testing.T) {
	s := slotAt(testTime)
	if s != 250000 || !s.begin().Equal(testTime) || slotAt(testTime.Add(-time.Second)) != s-1 {
		t.Fatalf("slot %d begins %v", s, s.begin())
	}
	if slotAt(time.Unix(-1, 0)) != -1 || slotAt(time.Unix(0, 0)) != 0 {
		t.Fatal("slots around 1970 are not apart")
	}
	l := locationOf(secretOf(1), s, 3)
	if got, want := hex.EncodeToString(l.target[:]), "3f4e59460cb649468170826a9ec9804c34c220fd"; got != want {
		t.Errorf("target %s, want %s", got, want)
	}
	if got := indexOf(idOf(1), s); got != 4 {
		t.Errorf("index %d", got)
	}
	seen := make(map[[20]byte]bool)
	for _, secret := range []identity.Secret{secretOf(1), secretOf(2)} {
		for _, s := range []slot{s, s + 1} {
			for i := range locationCount {
				seen[locationOf(secret, s, i).target] = true
			}
		}
	}
	if len(seen) != 2*2*locationCount {
		t.Errorf("%d distinct locations, want %d", len(seen), 2*2*locationCount)
	}
}

func TestMembersSpreadOverLocations(t *testing.T) {
	var at [locationCount]int
	for i := range 800 {
		at[indexOf(identity.PeerID{byte(i), byte(i >> 8)}, slotAt(testTime))]++
	}
	for i, n := range at {
		if n < 60 || n > 140 {
			t.Errorf("location %d has %d of 800 members", i, n)
		}
	}
}

func TestValueRoundTrip(t *testing.T) {
	l := locationOf(secretOf(1), 5, 0)
	for _, records := range [][]Record{
		nil,
		{recordOf(1, testTime, 1)},
		{recordOf(1, testTime, MaxData), recordOf(2, testTime.Add(-time.Hour), 300)},
	} {
		v := l.sealed(t, records)
		if len(v) != 4+sealedSize || len(v) > 1000 {
			t.Fatalf("a value is %d bytes", len(v))
		}
		got, err := l.openValue(v)
		if err != nil || len(got) != len(records) {
			t.Fatalf("got %v, %v", got, err)
		}
		for i, r := range records {
			if got[i].Key != r.Key || !got[i].At.Equal(r.At) || !bytes.Equal(got[i].Data, r.Data) {
				t.Errorf("record %d: got %v, want %v", i, got[i], r)
			}
		}
	}
	if bytes.Equal(l.sealed(t, nil), l.sealed(t, nil)) {
		t.Error("two sealings of one plaintext are equal")
	}
}

func TestValueRefused(t *testing.T) {
	l := locationOf(secretOf(1), 5, 0)
	v := l.sealed(t, []Record{recordOf(1, testTime, 100)})
	for i := range v {
		bad := bytes.Clone(v)
		bad[i] ^= 1
		if _, err := l.openValue(bad); err == nil {
			t.Fatalf("a flipped bit in byte %d passed", i)
		}
	}
	for name, other := range map[string]*location{
		"secret": locationOf(secretOf(2), 5, 0), "slot": locationOf(secretOf(1), 6, 0), "index": locationOf(secretOf(1), 5, 1),
	} {
		if _, err := other.openValue(v); !errors.Is(err, errSeal) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	for name, plain := range map[string][]byte{
		"version":        {2, 0},
		"more than said": append([]byte{1, 0}, 7),
		"missing record": {1, 1},
		"empty data":     appendPlain(nil, []Record{{At: testTime}})[:valueHead+recordHead],
		"out of order":   appendPlain(nil, []Record{recordOf(1, testTime, 1), recordOf(2, testTime.Add(time.Second), 1)}),
		"key twice":      appendPlain(nil, []Record{recordOf(1, testTime, 1), recordOf(1, testTime.Add(-time.Second), 1)}),
		"too long":       appendPlain(nil, []Record{recordOf(1, testTime, MaxData+1)}),
	} {
		padded := make([]byte, plainSize)
		copy(padded, plain)
		if _, err := parsePlain(padded); !errors.Is(err, errBadValue) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMergeKeepsWhatIsNewAndFits(t *testing.T) {
	now := testTime
	own := recordOf(1, now, 200)
	for _, c := range []struct {
		name  string
		there []Record
		want  []byte // of Data
	}{
		{"alone", nil, []byte{1}},
		{"own one is replaced", []Record{recordOf(1, now.Add(-time.Hour), 400)}, []byte{1}},
		{"beside another", []Record{recordOf(2, now.Add(-time.Minute), 200)}, []byte{1, 2}},
		{"oldest dropped", []Record{
			recordOf(2, now.Add(-3*time.Minute), 200), recordOf(3, now.Add(-time.Minute), 200),
			recordOf(4, now.Add(-2*time.Minute), 200), recordOf(5, now.Add(-4*time.Minute), 200),
		}, []byte{1, 3, 4, 2}},
		{"a smaller older one still fits", []Record{
			recordOf(2, now.Add(-time.Minute), 512), recordOf(3, now.Add(-2*time.Minute), 400), recordOf(4, now.Add(-3*time.Minute), 90),
		}, []byte{1, 2, 4}},
		{"two slots old", []Record{recordOf(2, now.Add(-2*slotLength-time.Second), 10)}, []byte{1}},
		{"from the future comes last", []Record{
			recordOf(2, now.Add(24*time.Hour), 512), recordOf(3, now.Add(-time.Minute), 400),
		}, []byte{1, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			merged := merge(own, c.there, now)
			var got []byte
			for _, r := range merged {
				got = append(got, r.Data[0])
			}
			if !bytes.Equal(got, c.want) {
				t.Errorf("kept %v, want %v", got, c.want)
			}
			if _, err := parsePlain(appendPlain(nil, merged)); err != nil {
				t.Errorf("what was merged cannot be read: %v", err)
			}
		})
	}
}

func TestMergeOfAnythingCanBeRead(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var there []Record
		for range r.IntN(20) {
			at := testTime.Add(time.Duration(r.IntN(20000)-15000) * time.Second)
			there = append(there, recordOf(byte(r.IntN(20)), at, 1+r.IntN(MaxData)))
		}
		own := recordOf(1, testTime, 1+r.IntN(MaxData))
		merged := merge(own, there, testTime)
		back, err := parsePlain(appendPlain(nil, merged))
		if err != nil || len(back) != len(merged) {
			t.Fatalf("%d records: %v", len(merged), err)
		}
	}
}

func FuzzParsePlain(f *testing.F) {
	f.Add(appendPlain(nil, nil))
	f.Add(appendPlain(nil, []Record{recordOf(1, testTime, 512), recordOf(2, testTime.Add(-time.Hour), 300)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		padded := make([]byte, plainSize)
		copy(padded, b)
		records, err := parsePlain(padded)
		if err == nil && !bytes.Equal(appendPlain(nil, records), padded) {
			t.Fatal("what was read is written otherwise")
		}
		if _, err := locationOf(secretOf(1), 0, 0).openValue(b); err == nil {
			t.Fatal("a value without the key was opened")
		}
	})
}

func FuzzLoadContacts(f *testing.F) {
	var some contacts
	some.answered(contact{id: nodeID{1}, addr: at("192.0.2.1:6881")}, testTime)
	some.answered(contact{id: nodeID{2}, addr: at("[2001:db8::1]:6881")}, testTime)
	f.Add(some.save())
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, again contacts
		if c.load(b) != nil {
			return
		}
		if err := again.load(c.save()); err != nil || len(again.all) != len(c.all) || len(c.all) > maxContacts {
			t.Fatalf("%d loaded, %d after saving: %v", len(c.all), len(again.all), err)
		}
	})
}
