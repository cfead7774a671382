package disco

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

func testKeys(t *testing.T) (a, b *identity.Identity, ab, ba Key) {
	t.Helper()
	a, b = identity.FromSeed(identity.Secret{1}), identity.FromSeed(identity.Secret{2})
	k, network := identity.Secret{3}, identity.NetworkID{4}
	sharedA, err := a.DiscoShared(b.Disco())
	if err != nil {
		t.Fatal(err)
	}
	sharedB, err := b.DiscoShared(a.Disco())
	if err != nil {
		t.Fatal(err)
	}
	return a, b, NewKey(sharedA, k, network, a.ID(), b.ID()), NewKey(sharedB, k, network, a.ID(), b.ID())
}

func message(t Type) *Message {
	m := &Message{
		Type: t, TxID: TxID{1, 2}, Boot: BootID{3}, KID: [4]byte{4}, PSK: [8]byte{5}, Ledger: [8]byte{6},
		Flags: FlagWants | FlagReady, Time: time.UnixMilli(1_700_000_000_123), Padding: 7,
	}
	if t == TypePong {
		m.Observed = netip.MustParseAddrPort("192.0.2.1:41820")
	}
	return m
}

func TestSealOpen(t *testing.T) {
	_, _, seal, open := testKeys(t)
	for _, kind := range []Type{TypePing, TypePong} {
		pkt := seal.Seal(Tag{9}, message(kind))
		if len(pkt) != MinSize+7 {
			t.Errorf("type %x: %d bytes, want %d", kind, len(pkt), MinSize+7)
		}
		if tag, err := PacketTag(pkt); err != nil || tag != (Tag{9}) {
			t.Errorf("tag = %v, %v", tag, err)
		}
		got, err := open.Open(pkt)
		if err != nil || !reflect.DeepEqual(got, message(kind)) {
			t.Errorf("type %x: got %+v, %v", kind, got, err)
		}
	}
	if MinSize > 128 {
		t.Errorf("a bare ping has %d bytes; unconfirmed addresses get at most 128", MinSize)
	}
}

func TestOpenRefusesEveryAlteredByte(t *testing.T) {
	_, _, seal, open := testKeys(t)
	pkt := seal.Seal(Tag{9}, message(TypePong))
	for i := range pkt {
		bad := bytes.Clone(pkt)
		bad[i] ^= 1
		if _, err := open.Open(bad); err == nil {
			t.Fatalf("byte %d altered, still opened", i)
		}
		if _, err := open.Open(pkt[:i]); err == nil {
			t.Fatalf("cut to %d bytes, still opened", i)
		}
	}
}

func TestDirectionsHaveTheirOwnKeys(t *testing.T) {
	a, b, seal, _ := testKeys(t)
	shared, _ := a.DiscoShared(b.Disco())
	back := NewKey(shared, identity.Secret{3}, identity.NetworkID{4}, b.ID(), a.ID())
	if _, err := back.Open(seal.Seal(Tag{}, message(TypePing))); !errors.Is(err, ErrSeal) {
		t.Fatalf("reflected packet: %v, want ErrSeal", err)
	}
}

func TestTagChangesWithHourAndMember(t *testing.T) {
	a, b, _, _ := testKeys(t)
	k := identity.Secret{3}
	seen := map[Tag]bool{}
	for _, id := range []identity.PeerID{a.ID(), b.ID()} {
		for hour := range int64(3) {
			seen[TagOf(k, id, hour)] = true
		}
	}
	if len(seen) != 6 {
		t.Fatalf("%d different tags, want 6", len(seen))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(byte(TypePing), message(TypePing).encode())
	f.Add(byte(TypePong), message(TypePong).encode())
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		if kind != byte(TypePing) && kind != byte(TypePong) {
			return
		}
		m, err := parse(Type(kind), payload)
		if err != nil {
			return
		}
		if again := m.encode(); !bytes.Equal(again, payload) {
			t.Fatalf("parsed %x, re-encoded %x", payload, again)
		}
	})
}
