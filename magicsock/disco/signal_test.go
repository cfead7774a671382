package disco

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// signals has one of each kind, and the shortest and the longest.
func signals() map[string]*Signal {
	all := map[string]*Signal{
		"call-me-maybe": {Kind: CallMeMaybe, NAT: 3, Endpoints: []netip.AddrPort{
			netip.MustParseAddrPort("192.0.2.1:41820"), netip.MustParseAddrPort("[2001:db8::1]:7"),
		}},
		"nobody at home": {Kind: CallMeMaybe},
		"open":           {Kind: RelayOpen, Peer: identity.PeerID{8}, Nonce: Nonce{9}},
		"offer":          {Kind: RelayOffer, Peer: identity.PeerID{8}, SID: 0xA0B0C0D0, Nonce: Nonce{9}},
		"ok":             {Kind: RelayAnswer, About: TxID{7}, SID: 5},
		"not now":        {Kind: RelayAnswer, About: TxID{7}, Code: CodeNotNow, Retry: 65535 * time.Second},
		"close":          {Kind: RelayClose, SID: 1<<32 - 1},
	}
	full := &Signal{Kind: CallMeMaybe, NAT: 255}
	for i := range MaxEndpoints {
		full.Endpoints = append(full.Endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1))
	}
	all["everywhere"] = full
	for _, s := range all {
		s.TxID, s.Time = TxID{1, 2}, time.UnixMilli(1_700_000_000_123)
	}
	return all
}

func TestSignalSealOpen(t *testing.T) {
	_, _, seal, open := testKeys(t)
	for name, s := range signals() {
		pkt := seal.SealSignal(Tag{9}, s)
		if len(pkt) > MaxSignal || pkt[0] != 0xC6 {
			t.Errorf("%s: %d bytes, first %x", name, len(pkt), pkt[0])
		}
		if tag, err := SignalTag(pkt); err != nil || tag != (Tag{9}) {
			t.Errorf("%s: tag %v, %v", name, tag, err)
		}
		got, err := open.OpenSignal(pkt)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, s)
		}
		if _, err := open.Open(pkt); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: read as a ping: %v", name, err)
		}
	}
}

// TestSignalVectors holds the encoding to its bytes: other versions read them.
func TestSignalVectors(t *testing.T) {
	const head = "010200000000000000000000" + "0000018bcfe5687b"
	const id = "0800000000000000000000000000000000000000000000000000000000000000"
	const nonce = "09000000000000000000000000000000"
	all := signals()
	for name, want := range map[string]string{
		"call-me-maybe": "01" + "03" + "02" + "00000000000000000000ffffc0000201a35c" + "20010db80000000000000000000000010007",
		"open":          "02" + id + nonce,
		"offer":         "03" + id + "a0b0c0d0" + nonce,
		"ok":            "04" + "070000000000000000000000" + "00000005" + "00" + "0000",
		"not now":       "04" + "070000000000000000000000" + "00000000" + "04" + "ffff",
		"close":         "05" + "ffffffff",
	} {
		if got := hex.EncodeToString(all[name].encode()); got != head+want {
			t.Errorf("%s is\n%s, want\n%s", name, got, head+want)
		}
	}
}

func TestSignalRefusesEveryAlteredByte(t *testing.T) {
	_, _, seal, open := testKeys(t)
	pkt := seal.SealSignal(Tag{9}, signals()["offer"])
	for i := range pkt {
		bad := bytes.Clone(pkt)
		bad[i] ^= 1
		if _, err := open.OpenSignal(bad); err == nil {
			t.Fatalf("byte %d altered, still opened", i)
		}
		if _, err := open.OpenSignal(pkt[:i]); err == nil {
			t.Fatalf("cut to %d bytes, still opened", i)
		}
	}
}

func TestSignalRefusesWhatIsNone(t *testing.T) {
	good := signals()["call-me-maybe"].encode()
	for name, change := range map[string]func(b []byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"kind 0":           func(b []byte) []byte { b[20] = 0; return b },
		"kind 6":           func(b []byte) []byte { b[20] = 6; return b },
		"time":             func(b []byte) []byte { b[12] = 1; return b },
		"one address more": func(b []byte) []byte { b[22]++; return b },
		"33 addresses":     func(b []byte) []byte { b[22] = 33; return append(b, make([]byte, 31*addrSize)...) },
		"port 0":           func(b []byte) []byte { clear(b[len(b)-2:]); return b },
		"no address":       func(b []byte) []byte { clear(b[len(b)-18 : len(b)-2]); return b },
		"trailing byte":    func(b []byte) []byte { return append(b, 0) },
		"code 5":           func([]byte) []byte { b := signals()["ok"].encode(); b[37] = 5; return b },
	} {
		if s, err := parseSignal(change(bytes.Clone(good))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func FuzzSignal(f *testing.F) {
	for _, s := range signals() {
		f.Add(s.encode())
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := parseSignal(payload)
		if err != nil {
			return
		}
		if again := s.encode(); !bytes.Equal(again, payload) {
			t.Fatalf("parsed %x, re-encoded %x", payload, again)
		}
	})
}
