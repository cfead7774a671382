package noise

import (
	"encoding/binary"
	"testing"
)

// message is one of that type and size whose other bytes count up.
func message(kind byte, size int) []byte {
	msg := make([]byte, size)
	for i := range msg {
		msg[i] = byte(i)
	}
	copy(msg, []byte{kind, 0, 0, 0})
	return msg
}

func TestTypeOf(t *testing.T) {
	exact := map[byte]int{1: 148, 2: 92, 3: 64}
	for kind := range 256 {
		for size := range 200 {
			msg := message(byte(kind), max(size, 4))[:size]
			want := byte(0)
			if exact[byte(kind)] == size && size > 0 || kind == 4 && size >= 32 {
				want = byte(kind)
			}
			if got := TypeOf(msg); got != want {
				t.Errorf("type %d, %d bytes: got %d, want %d", kind, size, got, want)
			}
			for i := 1; i < 4 && want != 0; i++ {
				msg[i] = 0x80
				if got := TypeOf(msg); got != 0 {
					t.Errorf("type %d with reserved byte %d set: got %d", kind, i, got)
				}
				msg[i] = 0
			}
		}
	}
	if TypeOf(nil) != 0 {
		t.Error("nil has a type")
	}
}

func TestIndices(t *testing.T) {
	const at4, at8 = 0x07060504, 0x0b0a0908
	type index struct {
		n  uint32
		ok bool
	}
	for _, tt := range []struct {
		name             string
		msg              []byte
		sender, receiver index
	}{
		{"initiation", message(1, 148), index{at4, true}, index{}},
		{"response", message(2, 92), index{at4, true}, index{at8, true}},
		{"cookie reply", message(3, 64), index{}, index{at4, true}},
		{"data", message(4, 32), index{}, index{at4, true}},
		{"short response", message(2, 91), index{}, index{}},
		{"short data", message(4, 31), index{}, index{}},
		{"unheard of", message(5, 148), index{}, index{}},
		{"nothing", nil, index{}, index{}},
	} {
		if n, ok := SenderIndex(tt.msg); (index{n, ok}) != tt.sender {
			t.Errorf("%s: sender %x, %v", tt.name, n, ok)
		}
		if n, ok := ReceiverIndex(tt.msg); (index{n, ok}) != tt.receiver {
			t.Errorf("%s: receiver %x, %v", tt.name, n, ok)
		}
	}
}

func TestMAC1Of(t *testing.T) {
	for _, tt := range []struct {
		msg  []byte
		from byte
	}{{message(1, 148), 116}, {message(2, 92), 60}} {
		got := MAC1(tt.msg)
		same(t, "mac1", got[:], tt.msg[tt.from:tt.from+16])
	}
	for _, msg := range [][]byte{nil, message(3, 64), message(4, 148), message(1, 147)} {
		if MAC1(msg) != [16]byte{} {
			t.Errorf("%d bytes of type %d have a mac", len(msg), TypeOf(msg))
		}
	}
}

func TestData(t *testing.T) {
	msg := message(9, 40)
	PutDataHeader(msg, 0x11223344, 0x0102030405060708)
	same(t, "header", msg[:18], unhex(t, "0400000044332211"+"0807060504030201"+"1011"))
	if got := Counter(msg); got != 0x0102030405060708 {
		t.Errorf("counter %x", got)
	}
	nonce := Nonce(0x0102030405060708)
	same(t, "nonce", nonce[:], unhex(t, "00000000"+"0807060504030201"))
}

func FuzzMessage(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.Initiation))
		f.Add([]byte(v.Response))
		f.Add([]byte(v.CookieReply))
		f.Add([]byte(v.Data))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		kind := TypeOf(msg)
		_, from := SenderIndex(msg)
		to, answers := ReceiverIndex(msg)
		if from != (kind == 1 || kind == 2) || answers != (kind >= 2) || kind > 4 {
			t.Errorf("type %d, sender %v, receiver %v", kind, from, answers)
		}
		if (MAC1(msg) != [16]byte{}) && !from {
			t.Errorf("type %d has a mac", kind)
		}
		if kind != TypeData {
			return
		}
		var head [DataHeaderSize]byte
		PutDataHeader(head[:], to, Counter(msg))
		same(t, "header", head[:], msg[:DataHeaderSize])
		nonce := Nonce(Counter(msg))
		if binary.LittleEndian.Uint64(nonce[4:]) != Counter(msg) {
			t.Errorf("nonce %x", nonce)
		}
	})
}
